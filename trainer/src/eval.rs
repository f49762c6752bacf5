//! Evaluation of the pre-training itself, on held-out rows.
//!
//! In: a model, weights, a feed of held-out rows, the label frequencies of the training rows. Out:
//! an [`Evaluation`]: cross-entropy, average precision and recall beside those of a baseline that
//! knows the frequencies only. Never: trains; keeps pixels, but for the few rows that are shown.
//!
//! b rows of a batch, n rows of all batches, v labels.

use std::sync::Arc;

use catlip_pipeline::feed::slot::PageLock;
use catlip_pipeline::feed::{Feed, FeedPlan, HostBatch, Targets};
use catlip_schemas::{LabelId, Vocab};
use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use crate::batch::DeviceBatch;
use crate::error::TrainError;
use crate::loss;
use crate::metrics::{LabelPriors, MicroPrecision, average_precision};
use crate::model::{Pass, Vit, Weights};

/// Rows whose images and predictions are kept to be shown.
const SHOWN_ROWS: u64 = 25;
/// Labels that are kept of each shown row.
const SHOWN_LABELS: i64 = 5;

/// What an evaluation is measured against.
#[derive(Clone)]
pub struct EvalPlan {
    /// Held-out rows, each once, in the order of the data set.
    pub feed: FeedPlan,
    /// Rows of `feed`.
    pub num_rows: u64,
    /// What the labels mean.
    pub vocab: Arc<Vocab>,
    /// How often each label occurs among the training rows.
    pub priors: Arc<LabelPriors>,
    /// Average precision is taken over labels with at least so many held-out positives.
    pub min_positives: usize,
    /// Recall is given among the so many highest labels.
    pub recall_at: Vec<usize>,
    /// Rank rows by the logarithm of a softmax, as a model trained by one means its logits.
    pub softmax: bool,
}

impl EvalPlan {
    /// The same plan, whose batches `lock` keeps in memory.
    pub fn locked(self, lock: Option<Arc<dyn PageLock>>) -> Self {
        Self { feed: FeedPlan { page_lock: lock, ..self.feed }, ..self }
    }
}

/// The numbers of an evaluation, each beside the baseline's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    /// Rows that were evaluated.
    pub rows: u64,
    /// Labels of the vocabulary.
    pub labels: usize,
    /// Labels with enough positives for an average precision.
    pub labels_scored: usize,
    /// Binary cross-entropy per row, summed over labels.
    pub bce: f64,
    /// That of constant logits at the training frequencies.
    pub bce_baseline: f64,
    /// How much lower the first is, in percent of the second.
    pub bce_improvement_percent: f64,
    /// Mean of the scored labels' average precisions; none if no label has enough positives.
    pub map: Option<f64>,
    /// That of constant scores: the mean share of positives.
    pub map_baseline: Option<f64>,
    /// Average precision over all pairs of a row and a label in one list; none without a label.
    #[serde(default)]
    pub map_micro: Option<f64>,
    /// The scored labels by how often they occur in training, the most frequent first.
    #[serde(default)]
    pub bands: Vec<Band>,
    /// Recall among the highest labels.
    pub recall: Vec<Recall>,
}

/// Mean share of a row's labels that are among its `at` highest, over rows with a label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// How many labels are taken.
    pub at: usize,
    /// Of the model.
    pub model: f64,
    /// Of the most frequent labels.
    pub baseline: f64,
}

/// Labels of about the same frequency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Least share of the training rows that have one of them.
    pub share_min: f64,
    /// Scored labels in the band.
    pub labels: usize,
    /// Mean of their average precisions.
    pub map: f64,
    /// That of constant scores.
    pub map_baseline: f64,
}

/// Least shares of the bands, the most frequent first.
const BAND_SHARES: [f64; 4] = [1e-2, 1e-3, 1e-4, 0.0];

/// The average precision of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SynsetScore {
    /// Its synset.
    pub wnid: String,
    /// Its head lemma.
    pub lemma: String,
    /// Held-out rows that have it.
    pub positives: usize,
    /// Share of the training rows that have it.
    pub training_share: f64,
    /// How well its rows are ranked.
    pub average_precision: f64,
}

/// An evaluation as `eval.json` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Steps of the weights.
    pub step: u64,
    /// The numbers.
    pub summary: EvalSummary,
    /// The scored labels by falling average precision.
    pub synsets: Vec<SynsetScore>,
}

/// A held-out row to show.
#[derive(Clone, Debug)]
pub struct ShownRow {
    /// Side of its pixels.
    pub side_px: usize,
    /// Its pixels as the model saw them, height × width × RGB.
    pub pixels: Vec<u8>,
    /// Its first caption.
    pub caption: Option<String>,
    /// Its labels, the most frequent first.
    pub labels: Vec<LabelId>,
    /// The highest labels with their probabilities.
    pub predicted: Vec<(LabelId, f64)>,
}

/// A report and rows to show with it.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The numbers.
    pub report: EvalReport,
    /// Rows spread over the held-out ones.
    pub shown: Vec<ShownRow>,
}

/// Evaluates `weights` on the rows of `plan`.
///
/// # Errors
///
/// [`TrainError::Feed`], [`TrainError::Torch`]; [`TrainError::NotFinite`] if a logit is no number.
pub fn evaluate(
    plan: &EvalPlan,
    vit: &Vit,
    weights: &Weights,
    step: u64,
) -> Result<Evaluation, TrainError> {
    let mut feed = Feed::start(plan.feed.clone())?;
    let mut tally = Tally::new(plan);
    while let Some(mut host) = feed.next()? {
        let seen = tch::no_grad(|| -> Result<_, TchError> {
            let batch = DeviceBatch::from_host(&mut host, weights.device())?;
            let logits_bv = vit.forward(weights, &batch.unit_images()?, Pass::EVAL)?;
            let bce = loss::bce_sum(&logits_bv, &batch.targets)?.f_double_value(&[])?;
            let scores_bv =
                if plan.softmax { logits_bv.f_log_softmax(-1, None)? } else { logits_bv };
            Ok((scores_bv, bce))
        });
        let (scores_bv, bce) = seen.map_err(TrainError::torch("evaluate a batch"))?;
        if !bce.is_finite() {
            return Err(TrainError::NotFinite { step, loss: bce });
        }
        tally.bce_sum += bce;
        tally.add(&mut host, &scores_bv).map_err(TrainError::torch("rank the labels"))?;
    }
    tally.finish(step).map_err(TrainError::torch("read the scores"))
}

/// What has been seen of the held-out rows.
struct Tally<'p> {
    plan: &'p EvalPlan,
    /// Logits of all rows so far, each `[v, b]`, on the host.
    scores_vb: Vec<Tensor>,
    labels: Vec<Vec<LabelId>>,
    positives: Vec<u64>,
    bce_sum: f64,
    /// Sums over rows with a label, for each of `recall_at`: of the model, of the baseline.
    recall_sums: Vec<[f64; 2]>,
    rows_with_labels: u64,
    frequent: Vec<usize>,
    slots_seen: u64,
    shown: Vec<ShownRow>,
}

impl<'p> Tally<'p> {
    fn new(plan: &'p EvalPlan) -> Self {
        Self {
            plan,
            scores_vb: Vec::new(),
            labels: Vec::new(),
            positives: vec![0; plan.vocab.len()],
            bce_sum: 0.0,
            recall_sums: vec![[0.0; 2]; plan.recall_at.len()],
            rows_with_labels: 0,
            frequent: plan.priors.ranked(),
            slots_seen: 0,
            shown: Vec::new(),
        }
    }

    /// Takes in a batch; slots of weight zero are left out.
    fn add(&mut self, host: &mut HostBatch, scores_bv: &Tensor) -> Result<(), TchError> {
        let most = self.plan.recall_at.iter().copied().max().unwrap_or(0) as i64;
        let most = most.max(SHOWN_LABELS).min(self.plan.vocab.len() as i64);
        let (highest, ranked) = scores_bv.f_topk(most, 1, true, true)?;
        let highest: Vec<f32> = Vec::try_from(highest.f_reshape([-1])?)?;
        let ranked: Vec<i64> = Vec::try_from(ranked.f_reshape([-1])?)?;
        let mut kept = Vec::new();
        for slot in 0..host.len() {
            self.slots_seen += 1;
            if host.weights[slot] == 0.0 {
                continue;
            }
            kept.push(slot as i64);
            let from_to = slot * most as usize..(slot + 1) * most as usize;
            let labels = labels_of(&host.targets, slot);
            self.add_recall(&labels, &ranked[from_to.clone()]);
            if self.is_shown() {
                let best = ranked[from_to.clone()].iter().zip(&highest[from_to]);
                self.show(host, slot, &labels, best.map(|(&label, &logit)| (label, logit)));
            }
            labels.iter().for_each(|&label| self.positives[label as usize] += 1);
            self.labels.push(labels);
        }
        let kept = Tensor::f_from_slice(&kept)?.f_to_device(scores_bv.device())?;
        let scores_vb = scores_bv.f_index_select(0, &kept)?.f_transpose(0, 1)?;
        self.scores_vb.push(scores_vb.f_to_device(Device::Cpu)?);
        Ok(())
    }

    fn add_recall(&mut self, labels: &[LabelId], ranked: &[i64]) {
        if labels.is_empty() {
            return;
        }
        self.rows_with_labels += 1;
        let has = |label: usize| labels.binary_search(&(label as LabelId)).is_ok();
        for (&at, sums) in self.plan.recall_at.iter().zip(&mut self.recall_sums) {
            let hits = ranked.iter().take(at).filter(|&&label| has(label as usize)).count();
            let hits_baseline = self.frequent.iter().take(at).filter(|&&label| has(label)).count();
            sums[0] += hits as f64 / labels.len() as f64;
            sums[1] += hits_baseline as f64 / labels.len() as f64;
        }
    }

    /// Whether the row just seen is one of the rows to show, which are spread evenly.
    fn is_shown(&self) -> bool {
        let num_rows = self.plan.num_rows.max(1);
        let due = |slots: u64| slots * SHOWN_ROWS / num_rows.max(SHOWN_ROWS);
        due(self.slots_seen) > due(self.slots_seen - 1) || num_rows <= SHOWN_ROWS
    }

    fn show(
        &mut self,
        host: &mut HostBatch,
        slot: usize,
        labels: &[LabelId],
        best: impl Iterator<Item = (i64, f32)>,
    ) {
        let bytes = host.height_px * host.width_px * 3;
        let caption = host.captions.as_ref().and_then(|c| c[slot].first().cloned());
        let softmax = self.plan.softmax;
        let probability = |score: f32| match softmax {
            true => f64::from(score).exp(),
            false => 1.0 / (1.0 + (-f64::from(score)).exp()),
        };
        self.shown.push(ShownRow {
            side_px: host.width_px,
            pixels: host.images_bhwc()[slot * bytes..(slot + 1) * bytes].to_vec(),
            caption,
            labels: labels.to_vec(),
            predicted: best
                .take(SHOWN_LABELS as usize)
                .map(|(label, logit)| (label as LabelId, probability(logit)))
                .collect(),
        });
    }

    fn finish(self, step: u64) -> Result<Evaluation, TchError> {
        let rows = self.labels.len() as u64;
        let (synsets, map_micro) = self.synset_scores()?;
        let bands = bands(&synsets, rows);
        let mean = |value: fn(&SynsetScore, f64) -> f64| {
            let sum: f64 = synsets.iter().map(|score| value(score, rows as f64)).sum();
            (!synsets.is_empty()).then(|| sum / synsets.len() as f64)
        };
        let (bce, bce_baseline) = (
            self.bce_sum / rows.max(1) as f64,
            self.plan.priors.bce_on(&self.positives, rows.max(1)),
        );
        let with_labels = self.rows_with_labels.max(1) as f64;
        let recall = self.plan.recall_at.iter().zip(&self.recall_sums);
        let summary = EvalSummary {
            rows,
            labels: self.plan.vocab.len(),
            labels_scored: synsets.len(),
            bce,
            bce_baseline,
            bce_improvement_percent: 100.0 * (1.0 - bce / bce_baseline),
            map: mean(|score, _| score.average_precision),
            map_baseline: mean(|score, rows| score.positives as f64 / rows),
            map_micro,
            bands,
            recall: recall
                .map(|(&at, sums)| Recall {
                    at,
                    model: sums[0] / with_labels,
                    baseline: sums[1] / with_labels,
                })
                .collect(),
        };
        Ok(Evaluation { report: EvalReport { step, summary, synsets }, shown: self.shown })
    }

    /// The labels with enough positives, by falling average precision; and that of all pairs.
    fn synset_scores(&self) -> Result<(Vec<SynsetScore>, Option<f64>), TchError> {
        if self.labels.is_empty() {
            return Ok((Vec::new(), None));
        }
        let scores_vn = Tensor::f_cat(&self.scores_vb, 1)?;
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); self.plan.vocab.len()];
        for (row, labels) in self.labels.iter().enumerate() {
            labels.iter().for_each(|&label| rows_of[label as usize].push(row as u32));
        }
        let mut scores = vec![0_f32; self.labels.len()];
        let scores_of = |label: usize, scores: &mut [f32]| {
            scores_vn.f_get(label as i64)?.f_copy_data(scores, self.labels.len())
        };
        let mut of_positives = Vec::new();
        for (label, rows) in rows_of.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            scores_of(label, &mut scores)?;
            of_positives.extend(rows.iter().map(|&row| scores[row as usize]));
        }
        let mut micro = MicroPrecision::new(of_positives);
        let mut table = Vec::new();
        for (label, rows) in rows_of.iter().enumerate() {
            scores_of(label, &mut scores)?;
            micro.add(&scores);
            if rows.len() < self.plan.min_positives.max(1) {
                continue;
            }
            let mut positives = vec![false; self.labels.len()];
            rows.iter().for_each(|&row| positives[row as usize] = true);
            let row = &self.plan.vocab.rows()[label];
            let trained_on = self.plan.priors.positives[label] as f64;
            table.extend(average_precision(&scores, &positives).map(|value| SynsetScore {
                wnid: row.synset.wnid(),
                lemma: row.lemma.clone(),
                positives: rows.len(),
                training_share: trained_on / self.plan.priors.rows.max(1) as f64,
                average_precision: value,
            }));
        }
        table.sort_by(|a, b| b.average_precision.total_cmp(&a.average_precision));
        Ok((table, micro.finish()))
    }
}

/// The scored labels by how often they occur in training; bands without a label are left out.
fn bands(synsets: &[SynsetScore], rows: u64) -> Vec<Band> {
    let mut more_frequent = f64::INFINITY;
    let mut bands = Vec::new();
    for share_min in BAND_SHARES {
        let shares = share_min..more_frequent;
        more_frequent = share_min;
        let members: Vec<_> =
            synsets.iter().filter(|score| shares.contains(&score.training_share)).collect();
        if members.is_empty() {
            continue;
        }
        let mean = |value: &dyn Fn(&SynsetScore) -> f64| {
            members.iter().map(|score| value(score)).sum::<f64>() / members.len() as f64
        };
        bands.push(Band {
            share_min,
            labels: members.len(),
            map: mean(&|score| score.average_precision),
            map_baseline: mean(&|score| score.positives as f64 / rows.max(1) as f64),
        });
    }
    bands
}

fn labels_of(targets: &Targets, slot: usize) -> Vec<LabelId> {
    let Targets::LabelsCsr { offsets, ids } = targets;
    let range = offsets[slot] as usize..offsets[slot + 1] as usize;
    ids[range].iter().map(|&id| id as LabelId).collect()
}
