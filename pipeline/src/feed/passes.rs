//! A feed that is walked epoch by epoch, without an end, and put anywhere.
//!
//! In: a [`FeedPlan`], whose number of steps does not count. Out: the batches of one epoch after
//! the other; the cursor behind the batch that was handed out last. Never: begins a thread before
//! a batch is asked for; waits at an epoch's end for what could be read ahead; makes anybody ask
//! once more to learn that an epoch has ended, since some loops count its steps instead.

use std::time::Duration;

use catlip_schemas::Cursor;

use super::error::FeedError;
use super::plan::FeedPlan;
use super::planner::cursor_at;
use super::run::{Feed, FeedStats, Next, check};

/// A feed, and where its consumer is.
pub struct Passes {
    plan: FeedPlan,
    feed: Option<Feed>,
    at: Cursor,
    steps_done: u64,
}

impl Passes {
    /// A feed that begins where the plan says.
    ///
    /// # Errors
    ///
    /// Those of [`Feed::start`] that the plan alone shows.
    pub fn new(plan: FeedPlan) -> Result<Self, FeedError> {
        let at = plan.start.clone();
        let plan = FeedPlan { num_steps: u64::MAX, ..plan };
        let mut passes = Self { plan, feed: None, at: at.clone(), steps_done: 0 };
        passes.go_to(at)?;
        Ok(passes)
    }

    /// What it delivers.
    pub fn plan(&self) -> &FeedPlan {
        &self.plan
    }

    /// The epoch of the next batch.
    pub fn epoch(&self) -> u64 {
        self.at.epoch
    }

    /// Steps of that epoch that were handed out.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Steps of that epoch in all.
    pub fn num_steps(&self) -> u64 {
        self.plan.stream.steps_in(self.at.epoch)
    }

    /// Behind the batch that was handed out last, whatever was read ahead.
    pub fn cursor(&self) -> &Cursor {
        &self.at
    }

    /// The next batch, if it is of `epoch` and whole within `limit`; [`Next::End`] if it is of
    /// another epoch.
    ///
    /// # Errors
    ///
    /// Those of [`Feed::start`] and [`Feed::next`].
    pub fn next_of(&mut self, epoch: u64, limit: Duration) -> Result<Next, FeedError> {
        if epoch != self.at.epoch {
            return Ok(Next::End);
        }
        let feed = match &mut self.feed {
            Some(feed) => feed,
            None => {
                let plan = FeedPlan { start: self.at.clone(), ..self.plan.clone() };
                self.feed.insert(Feed::start(plan)?)
            }
        };
        let next = feed.next_within(limit)?;
        if let Next::Batch(batch) = &next {
            self.at = batch.cursor.clone();
            self.steps_done += 1;
            self.leave_epoch();
        }
        Ok(next)
    }

    /// Goes on from a cursor.
    ///
    /// # Errors
    ///
    /// [`FeedError::Cursor`] for one of other data; then it stays where it is.
    pub fn go_to(&mut self, at: Cursor) -> Result<(), FeedError> {
        check(&FeedPlan { start: at.clone(), ..self.plan.clone() })?;
        let before = self.plan.stream.steps_from(at.epoch, 0);
        self.steps_done = before.take_while(|(begin, _)| *begin < at.position).count() as u64;
        self.at = at;
        self.feed = None;
        self.leave_epoch();
        Ok(())
    }

    /// Goes to the next epoch if no step of this one is left.
    fn leave_epoch(&mut self) {
        if self.plan.stream.step_at(self.at.epoch, self.at.position).is_none() {
            self.at = cursor_at(&self.plan, self.at.epoch + 1, 0);
            self.steps_done = 0;
        }
    }

    /// Goes to the beginning of an epoch, unless it is somewhere in it.
    ///
    /// # Errors
    ///
    /// Those of [`Passes::go_to`].
    pub fn enter_epoch(&mut self, epoch: u64) -> Result<(), FeedError> {
        match epoch == self.at.epoch {
            true => Ok(()),
            false => self.go_to(cursor_at(&self.plan, epoch, 0)),
        }
    }

    /// Ends the threads; the next batch begins them anew, where the consumer is.
    pub fn rest(&mut self) {
        self.feed = None;
    }

    /// Leaves the threads alone, in a forked child: they are not there, what they had locked is.
    pub fn leave(&mut self) {
        std::mem::forget(self.feed.take());
    }

    /// What the threads have done since they last began; `None` before the first batch.
    pub fn stats(&self) -> Option<FeedStats> {
        self.feed.as_ref().map(Feed::stats)
    }
}
