//! How fast a run is, and how much of its time was good for something.
//!
//! In: when steps begin and end. Out: seconds and shares for the log. Never: a number that a step
//! depends on.

use std::time::{Duration, Instant};

use crate::dist::World;
use crate::state::TrainState;

/// The time since the last log line, pauses left out.
#[derive(Debug)]
pub(super) struct Interval {
    start: Instant,
    before_pause: Duration,
    images_seen: u64,
    flops: f64,
    waited_secs: f64,
    waited_for_ranks: Duration,
}

/// What an interval came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Images a second, waiting included.
    pub images_per_sec: f64,
    /// Seconds of waiting for the feed.
    pub wait_secs: f64,
    /// Seconds without those of waiting for other ranks.
    pub own_secs: f64,
    /// Operations of the model a second, over all ranks.
    pub flops_per_sec: f64,
}

impl Interval {
    pub fn new(state: &TrainState, world: &World) -> Self {
        Self {
            start: Instant::now(),
            before_pause: Duration::ZERO,
            images_seen: state.images_seen,
            flops: 0.0,
            waited_secs: 0.0,
            waited_for_ranks: world.waited(),
        }
    }

    /// Adds the operations of a step.
    pub fn add(&mut self, flops: f64) {
        self.flops += flops;
    }

    pub fn pause(&mut self) {
        self.before_pause += self.start.elapsed();
    }

    pub fn go_on(&mut self) {
        self.start = Instant::now();
    }

    /// Ends the interval and begins the next. `waited_secs` counts from the start of the feed.
    pub fn end(&mut self, state: &TrainState, waited_secs: f64, world: &World) -> Pace {
        self.pause();
        let images = (state.images_seen - self.images_seen) as f64;
        let for_ranks = world.waited().saturating_sub(self.waited_for_ranks);
        let secs = self.before_pause.as_secs_f64().max(1e-9);
        let pace = Pace {
            images_per_sec: images / secs,
            flops_per_sec: self.flops / secs,
            wait_secs: waited_secs - self.waited_secs,
            own_secs: self.before_pause.saturating_sub(for_ranks).as_secs_f64(),
        };
        *self = Self { waited_secs, ..Self::new(state, world) };
        pace
    }
}

/// Time in steps that stayed ÷ wall time of this process.
#[derive(Debug)]
pub(super) struct Goodput {
    begun: Instant,
    step: Instant,
    kept: Duration,
    since_save: Duration,
}

impl Goodput {
    pub fn new() -> Self {
        let begun = Instant::now();
        Self { begun, step: begun, kept: Duration::ZERO, since_save: Duration::ZERO }
    }

    pub fn begin_step(&mut self) {
        self.step = Instant::now();
    }

    pub fn end_step(&mut self) {
        self.since_save += self.step.elapsed();
    }

    /// The steps so far can be gone back to.
    pub fn saved(&mut self) {
        self.kept += std::mem::take(&mut self.since_save);
    }

    /// The steps since the last checkpoint were for nothing.
    pub fn undo(&mut self) {
        self.since_save = Duration::ZERO;
    }

    pub fn share(&self) -> f64 {
        (self.kept + self.since_save).as_secs_f64() / self.begun.elapsed().as_secs_f64().max(1e-9)
    }
}
