//! A second request when the first one stalls.
//!
//! In: ranges of a store in which a request now and then hangs for seconds. Out: the same bytes,
//! from whichever of two requests comes first. Never: more than two for one range; a wait for the
//! slower one, which ends by itself and is forgotten.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::source::Ranges;
use crate::source::store::StoreError;

/// Times the mean of the last requests after which one has stalled: of 1,000 requests with
/// exponential times two take longer.
const MEANS: u32 = 6;

/// Weight of the newest request in that mean.
const MEAN_SHARE: f64 = 0.05;

/// A store whose stalled requests are made again.
pub struct Hedged {
    inner: Arc<dyn Ranges>,
    /// A request has never stalled before this.
    least: Duration,
    /// Mean seconds of the requests; 0 before the first.
    mean_secs: Mutex<f64>,
    hedges: AtomicU64,
}

type Answer = Result<Vec<u8>, StoreError>;

impl Hedged {
    /// `inner`, with a second request after `least`, or after a multiple of the mean time of a
    /// request if that is more.
    pub fn new(inner: Arc<dyn Ranges>, least: Duration) -> Self {
        Self { inner, least, mean_secs: Mutex::new(0.0), hedges: AtomicU64::new(0) }
    }

    /// Second requests so far.
    pub fn hedges(&self) -> u64 {
        self.hedges.load(Ordering::Relaxed)
    }

    fn patience(&self) -> Duration {
        let mean = *self.mean_secs.lock().unwrap_or_else(|e| e.into_inner());
        self.least.max(Duration::from_secs_f64(mean) * MEANS)
    }

    fn learn(&self, took: Duration) {
        let mut mean = self.mean_secs.lock().unwrap_or_else(|e| e.into_inner());
        let share = if *mean == 0.0 { 1.0 } else { MEAN_SHARE };
        *mean += (took.as_secs_f64() - *mean) * share;
    }

    fn request(&self, name: &str, range: &Range<u64>, buffer: Vec<u8>, answers: &Sender<Answer>) {
        let (inner, name, range) = (self.inner.clone(), name.to_owned(), range.clone());
        let answers = answers.clone();
        // Nobody listens any more when the other request was faster.
        thread::spawn(move || drop(answers.send(inner.read(&name, range, buffer))));
    }
}

impl Ranges for Hedged {
    fn read(&self, name: &str, range: Range<u64>, buffer: Vec<u8>) -> Answer {
        let start = Instant::now();
        let (sender, answers) = channel();
        self.request(name, &range, buffer, &sender);
        let first = answers.recv_timeout(self.patience());
        let answer = match first {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => lost(self.inner.as_ref(), name),
            Err(RecvTimeoutError::Timeout) => {
                self.hedges.fetch_add(1, Ordering::Relaxed);
                self.request(name, &range, Vec::new(), &sender);
                drop(sender);
                first_whole(&answers).unwrap_or_else(|| lost(self.inner.as_ref(), name))
            }
        };
        if answer.is_ok() {
            self.learn(start.elapsed());
        }
        answer
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// The first answer that is no error, else the last.
fn first_whole(answers: &Receiver<Answer>) -> Option<Answer> {
    let mut failed = None;
    while let Ok(answer) = answers.recv() {
        if answer.is_ok() {
            return Some(answer);
        }
        failed = Some(answer);
    }
    failed
}

/// A request whose thread died without an answer.
fn lost(inner: &dyn Ranges, name: &str) -> Answer {
    Err(StoreError::Answer {
        url: format!("{}/{name}", inner.place()),
        message: "a request ended without an answer".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    /// Answers with the range, but the first request of each name waits until it is let go.
    #[derive(Default)]
    struct Stalling {
        seen: Mutex<Vec<String>>,
        open: (Mutex<bool>, Condvar),
        fails: bool,
    }

    impl Ranges for Stalling {
        fn read(&self, name: &str, range: Range<u64>, _: Vec<u8>) -> Answer {
            let is_first = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(name.to_owned());
                seen.iter().filter(|other| *other == name).count() == 1
            };
            if is_first {
                let mut open = self.open.0.lock().unwrap();
                while !*open {
                    open = self.open.1.wait(open).unwrap();
                }
            }
            if self.fails {
                return Err(StoreError::NotFound { url: name.to_owned() });
            }
            Ok(vec![range.start as u8; (range.end - range.start) as usize])
        }

        fn place(&self) -> String {
            "here".to_owned()
        }
    }

    impl Stalling {
        fn let_go(&self) {
            *self.open.0.lock().unwrap() = true;
            self.open.1.notify_all();
        }
    }

    #[test]
    fn a_request_that_never_answers_is_made_again() {
        let store = Arc::new(Stalling::default());
        let hedged = Hedged::new(store.clone(), Duration::from_millis(1));
        // Ends only if the second requests are made: the first ones are let go behind this line.
        assert_eq!(hedged.read("a", 7..9, Vec::new()).unwrap(), [7, 7]);
        assert_eq!(hedged.read("b", 1..2, Vec::new()).unwrap(), [1]);
        assert_eq!(hedged.hedges(), 2);
        store.let_go();
    }

    #[test]
    fn a_quick_request_is_made_once() {
        let store = Arc::new(Stalling::default());
        store.let_go();
        let hedged = Hedged::new(store.clone(), Duration::from_secs(3600));
        assert_eq!(hedged.read("a", 1..2, Vec::new()).unwrap(), [1]);
        assert_eq!((hedged.hedges(), store.seen.lock().unwrap().len()), (0, 1));
    }

    #[test]
    fn two_errors_are_one() {
        let store = Arc::new(Stalling { fails: true, ..Stalling::default() });
        store.let_go();
        let hedged = Hedged::new(store, Duration::ZERO);
        assert!(matches!(hedged.read("a", 1..2, Vec::new()), Err(StoreError::NotFound { .. })));
    }
}
