//! What a step shares with the other ranks.
//!
//! In: weights and their gradient. Out: the gradient of all ranks, summed stretch by stretch while
//! the backward pass goes on. Never: outlives the world that the sums are made in.

use std::rc::Rc;

use catlip_schemas::checkpoint::CheckpointState;
use tch::{TchError, Tensor};

use super::{DistError, World};
use crate::config::DistConfig;
use crate::error::TrainError;
use crate::model::Weights;
use crate::model::params::{EntryId, Gradient};
use crate::shim::c10d::Buckets;

/// The other ranks as a step sees them. The sums go before the world that they are made in.
#[derive(Debug)]
pub struct Together {
    buckets: Buckets,
    /// The stretch of each entry; −1 for those that are not trained.
    bucket_of: Vec<i64>,
    world: Rc<World>,
    rows: f64,
    shares_moments: bool,
}

impl Together {
    /// Attaches the sums to the parameters of `weights`; none where there is one rank.
    ///
    /// # Errors
    ///
    /// As `World::buckets`.
    pub fn attach(
        world: &Rc<World>,
        weights: &Weights,
        gradient: &Gradient,
        config: &DistConfig,
    ) -> Result<Option<Self>, TrainError> {
        let plan = BucketPlan::new(weights, config.bucket_bytes);
        let buckets = world.buckets(weights, gradient, &plan)?;
        let (world, shares_moments) = (world.clone(), config.share_moments);
        let bucket_of = plan.of_entries(weights);
        Ok(buckets.map(|buckets| Self { buckets, bucket_of, world, rows: 0.0, shares_moments }))
    }

    /// Rows of the next step over all ranks, of weight other than zero.
    pub fn rows(&self) -> f64 {
        self.rows
    }

    /// Sets what [`Self::rows`] gives.
    pub fn set_rows(&mut self, rows: f64) {
        self.rows = rows;
    }

    /// Says that a weight has its gradient, which no graph gave it.
    pub fn arrived(&self, id: EntryId) {
        self.buckets.arrived(self.bucket_of[id.index()]);
    }

    /// Sums the statistics of BatchNorm over the ranks, in place.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn sum_statistics(&self, tensor: &Tensor) -> Result<(), DistError> {
        self.world.sum_aside(tensor, "sum BatchNorm's statistics")
    }

    /// Awaits the next backward pass.
    pub fn begin(&self) {
        self.buckets.begin();
    }

    /// Gives every rank the stretches of the weights that the others have made.
    ///
    /// # Errors
    ///
    /// [`TrainError::Torch`], [`DistError::Lost`].
    pub fn spread(&self, weights: &Weights) -> Result<(), TrainError> {
        let (world, floats) = (&self.world, weights.layout().trained_floats());
        for rank in 0..world.size() {
            let stretch = CheckpointState::stretch(rank, world.size(), floats);
            let part = weights.flat().f_narrow(0, stretch.start, stretch.end - stretch.start);
            let part = part.map_err(TrainError::torch("cut the weights"))?;
            world.broadcast(&part, rank, "spread the weights")?;
        }
        Ok(())
    }

    /// Whether each rank has the moments of its own stretch only.
    pub fn shares_moments(&self) -> bool {
        self.shares_moments
    }

    /// Waits until the gradient is that of all ranks.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub fn finish(&self) -> Result<(), DistError> {
        self.world.finish(&self.buckets)
    }
}

impl World {
    /// Sums a gradient over the ranks in the stretches of `plan`, during each backward pass; none
    /// where there is one rank.
    ///
    /// # Errors
    ///
    /// [`TrainError::Torch`], [`DistError::Lost`].
    pub(super) fn buckets(
        &self,
        weights: &Weights,
        gradient: &Gradient,
        plan: &BucketPlan,
    ) -> Result<Option<Buckets>, TrainError> {
        let Some(link) = &self.link else { return Ok(None) };
        let cut = |&(from, floats): &(i64, i64)| gradient.flat().f_narrow(0, from, floats);
        let stretches: Vec<_> = plan
            .stretches
            .iter()
            .map(cut)
            .collect::<Result<_, TchError>>()
            .map_err(TrainError::torch("cut the gradient"))?;
        let entries: Vec<&Tensor> = weights.entries().map(|(_, tensor)| tensor).collect();
        let leaves: Vec<&Tensor> = plan.leaves.iter().map(|&at| entries[at]).collect();
        let buckets = link.buckets(&stretches, &leaves, &plan.bucket_of);
        Ok(Some(buckets.map_err(|reason| self.lost("prepare the gradient's sum", reason))?))
    }

    /// Waits for the sums of a backward pass.
    ///
    /// # Errors
    ///
    /// [`DistError::Lost`].
    pub(super) fn finish(&self, buckets: &Buckets) -> Result<(), DistError> {
        let finished = self.timed(|| buckets.finish());
        finished.map_err(|reason| self.lost("sum the gradients", reason))
    }
}

/// The flat gradient cut into stretches, the last first: a backward pass fills it from the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BucketPlan {
    /// First float and number of floats of each.
    pub stretches: Vec<(i64, i64)>,
    /// Entries whose gradients are waited for.
    pub leaves: Vec<usize>,
    /// The stretch of each.
    pub bucket_of: Vec<i64>,
}

impl BucketPlan {
    /// The stretch of each entry; −1 for those that are not trained.
    fn of_entries(&self, weights: &Weights) -> Vec<i64> {
        let mut of_entries = vec![-1; weights.layout().entries().len()];
        for (&entry, &bucket) in self.leaves.iter().zip(&self.bucket_of) {
            of_entries[entry] = bucket;
        }
        of_entries
    }

    pub fn new(weights: &Weights, bucket_bytes: u64) -> Self {
        let layout = weights.layout();
        let trained = layout.trained_floats();
        let bucket_floats = (bucket_bytes / 4).max(1) as i64;
        let offsets = layout.entries().iter().map(|entry| entry.offset);
        let mut at: Vec<(usize, i64)> = offsets.enumerate().collect();
        at.retain(|&(_, offset)| offset < trained);
        at.sort_by_key(|&(_, offset)| std::cmp::Reverse(offset));
        let mut plan = Self { stretches: Vec::new(), leaves: Vec::new(), bucket_of: Vec::new() };
        let mut end = trained;
        for (entry, offset) in at {
            plan.leaves.push(entry);
            plan.bucket_of.push(plan.stretches.len() as i64);
            if end - offset >= bucket_floats || offset == 0 {
                plan.stretches.push((offset, end - offset));
                end = offset;
            }
        }
        plan
    }
}
