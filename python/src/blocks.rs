//! A loop over rows on all cores, from which Ctrl-C finds a way out.
//!
//! In: how many rows, and what is done with a range of them. Out: the results in the order of the
//! rows. Never: holds the GIL while it works; leaves a thread behind, so that a process may fork
//! between two calls.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{available_parallelism, scope};
use std::time::Duration;

use pyo3::prelude::*;

/// Rows that a thread takes at once: 0.1 ms of work, so that all threads end together.
const BLOCK_ROWS: usize = 512;
/// How long Ctrl-C may wait until it is heard.
const PATIENCE: Duration = Duration::from_millis(50);

/// Asks a loop to end early.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether the loop shall end; what it has made so far is thrown away.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a loop is made of.
pub struct Blocks {
    /// Rows of each array.
    pub rows: Vec<usize>,
    /// Threads; 0 for one a core.
    pub threads: usize,
}

impl Blocks {
    /// Gives the number of an array and a range of its rows to `work`, again and again until every
    /// row had its turn, and returns the results in that order.
    ///
    /// # Errors
    ///
    /// That of the first rows for which `work` fails; what a signal raised, such as
    /// `KeyboardInterrupt`.
    pub fn each<T: Send, E: Send + Into<PyErr>>(
        &self,
        py: Python<'_>,
        work: impl Fn(usize, Range<usize>, &Stop) -> Result<T, E> + Sync,
    ) -> PyResult<Vec<T>> {
        let blocks = self.all();
        let stop = Stop::default();
        let do_block = |block: &(usize, Range<usize>)| work(block.0, block.1.clone(), &stop);
        // No thread for what takes no longer than to start one.
        if let [] | [_] = blocks[..] {
            let done = py.detach(|| blocks.iter().map(do_block).collect::<Result<_, _>>());
            return done.map_err(Into::into);
        }
        let cores = || available_parallelism().map_or(1, NonZero::get);
        let threads = if self.threads == 0 { cores() } else { self.threads };
        let mut done: Vec<Option<T>> = blocks.iter().map(|_| None).collect();
        let next = AtomicUsize::new(0);
        let ended = py.detach(|| {
            scope(|scope| {
                let (tell, told) = channel();
                for _ in 0..threads.min(blocks.len()) {
                    let tell = tell.clone();
                    scope.spawn(|| {
                        let (tell, mut made) = (tell, Vec::new());
                        loop {
                            let at = next.fetch_add(1, Ordering::Relaxed);
                            let Some(block) = blocks.get(at) else { break };
                            if stop.is_asked() {
                                break;
                            }
                            match do_block(block) {
                                Ok(result) => made.push((at, result)),
                                Err(error) => {
                                    // Blocks that were begun before are ended: an earlier one may
                                    // have an error too, and the first one counts.
                                    next.fetch_max(blocks.len(), Ordering::Relaxed);
                                    drop(tell.send(Err((at, error))));
                                    break;
                                }
                            }
                        }
                        drop(tell.send(Ok(made)));
                    });
                }
                drop(tell);
                let (mut first, mut raised) = (None, None);
                loop {
                    match told.recv_timeout(PATIENCE) {
                        Ok(Ok(made)) => {
                            made.into_iter().for_each(|(at, result)| done[at] = Some(result));
                        }
                        Ok(Err((at, error))) => {
                            if first.as_ref().is_none_or(|&(before, _)| at < before) {
                                first = Some((at, error));
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => break,
                        Err(RecvTimeoutError::Timeout) if raised.is_none() => {
                            raised = Python::attach(|py| py.check_signals()).err();
                            stop.0.store(raised.is_some(), Ordering::Relaxed);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                }
                raised.or(first.map(|(_, error)| error.into()))
            })
        });
        ended.map_or_else(|| Ok(done.into_iter().flatten().collect()), Err)
    }

    /// The numbers of the arrays with ranges of their rows, in order.
    fn all(&self) -> Vec<(usize, Range<usize>)> {
        let of_array = |(array, &rows): (usize, &usize)| {
            let starts = (0..rows).step_by(BLOCK_ROWS);
            starts.map(move |start| (array, start..rows.min(start + BLOCK_ROWS)))
        };
        self.rows.iter().enumerate().flat_map(of_array).collect()
    }
}
