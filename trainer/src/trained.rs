//! A trained run, opened to evaluate it or to predict with it.
//!
//! In: a run folder. Out: the model with its weights, vocabulary and label frequencies. Never:
//! writes to the run.

use std::sync::Arc;

use catlip_pipeline::feed::{Choice, DataPlace, DataSets, files};
use catlip_schemas::Vocab;

use crate::checkpoint::{self, Damage};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::eval::{self, Evaluation};
use crate::metrics::LabelPriors;
use crate::model::{Vit, Weights};
use crate::page_lock;
use crate::plan::{self, OpenDevice};
use crate::run_folder::RunFolder;

/// Refuses settings by which the weights of the run would be another model's.
fn check_same_model(
    own: &TrainConfig,
    config: &TrainConfig,
    labels: usize,
) -> Result<(), TrainError> {
    if plan::vit_plan(own, labels) == plan::vit_plan(config, labels) {
        return Ok(());
    }
    let of_model = |key: &str| key.starts_with("model.") || key.starts_with("augment.range");
    match own.first_difference_of(config, of_model) {
        Some([key, expected, found]) => Err(TrainError::OtherModel { key, found, expected }),
        None => Ok(()),
    }
}

/// The model of a run at its newest whole checkpoint.
#[derive(Debug)]
pub struct TrainedRun {
    /// The run's config, with the settings of the command.
    pub config: TrainConfig,
    /// The device, and which ones were found.
    pub device: OpenDevice,
    /// The model.
    pub vit: Vit,
    /// Its weights: the average, or the raw ones.
    pub weights: Weights,
    /// What the labels mean.
    pub vocab: Arc<Vocab>,
    /// How often each label occurs among the training rows.
    pub priors: Arc<LabelPriors>,
    /// Step of the checkpoint.
    pub step: u64,
    /// Newer checkpoints that are damaged.
    pub passed_over: Vec<Damage>,
    /// The config without the settings of the command.
    own: TrainConfig,
    /// Config and data set that the run was trained with, as the checkpoint names them.
    trained_with: String,
    /// Whether the settings of the command choose a snapshot, and labels.
    chooses: [bool; 2],
}

impl TrainedRun {
    /// Opens a run with the averaged weights, or with the `raw` ones.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoRun`], [`TrainError::Checkpoint`], and what its files may give.
    pub fn open(run: &RunFolder, raw: bool, settings: &[String]) -> Result<Self, TrainError> {
        let (own, config) = (run.config(&[])?, run.config(settings)?);
        let says = |key: &str| settings.iter().any(|said| said.starts_with(key));
        let chooses = ["data.snapshots=", "data.label_set="].map(says);
        let vocab = run.vocab()?;
        check_same_model(&own, &config, vocab.len())?;
        let device = plan::open_device(&config)?;
        let priors = run.priors(&vocab)?;
        let vit = Vit::new(plan::vit_plan(&config, vocab.len()));
        let mut weights = Weights::zeros(vit.layout(), device.device)
            .map_err(TrainError::torch("allocate the weights"))?;
        let whole = checkpoint::newest(run.place())?;
        whole.check_vocab(&vocab.hash())?;
        whole.restore_weights(&mut weights, raw)?;
        Ok(Self {
            config,
            device,
            vit,
            weights,
            vocab: Arc::new(vocab),
            priors: Arc::new(priors),
            step: whole.state.step,
            trained_with: whole.state.config_hash,
            passed_over: whole.passed_over,
            own,
            chooses,
        })
    }

    /// Evaluates on the rows of a data set that the run holds out; on all of them if it was trained
    /// with a data set of held-out rows, or `data.holdout_percent=0` is set.
    ///
    /// # Errors
    ///
    /// [`TrainError::NothingHeldOut`], and what [`eval::evaluate`] may give.
    pub fn evaluate(&self, data: impl Into<DataPlace>) -> Result<Evaluation, TrainError> {
        let place = data.into();
        let opened = self.data_sets(&place)?;
        files::check(&opened)?;
        let plan = if self.config.data.holdout_percent == 0.0 {
            plan::plan_of_rows(&self.config, &opened, opened.all_rows(), &self.vocab, &self.priors)
        } else {
            plan::eval_plan(&self.config, &opened, &self.vocab, &self.priors)?
        };
        let plan = plan.ok_or_else(|| TrainError::NothingHeldOut { path: place.place() })?;
        let plan = plan.locked(page_lock::of_run(&self.config, self.device.device)?);
        eval::evaluate(&plan, &self.vit, &self.weights, self.step)
    }

    /// The data set at `place`: of the run's own the snapshot that it was trained on, of another
    /// one the newest, where the command does not say which; and the run's labels, where there are
    /// several.
    fn data_sets(&self, place: &DataPlace) -> Result<DataSets, TrainError> {
        let places = std::slice::from_ref(place);
        let [says_snapshot, says_labels] = self.chooses;
        let recipe = self.config.feed_recipe();
        let said = Choice { takes_others: !says_labels, ..Choice::of(&recipe) };
        if says_snapshot || said.snapshots.is_empty() {
            return Ok(DataSets::open_as(&recipe, places, &said)?);
        }
        if let Ok(own) = DataSets::open_as(&self.own.feed_recipe(), places, &said) {
            let identity = plan::identity(&self.own, &own, &self.vocab);
            if identity.config_hash == self.trained_with {
                return Ok(own);
            }
        }
        Ok(DataSets::open_as(&recipe, places, &Choice { snapshots: Vec::new(), ..said })?)
    }
}
