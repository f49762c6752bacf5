//! How signals end a training.
//!
//! In: SIGINT, SIGTERM, SIGUSR1. Out: a flag that training looks at, and what becomes of the state
//! in words. Never: ends the program while it saves, unless it was asked twice, seconds apart.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catlip_pipeline::error::exit;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::say;

/// A second SIGINT within this time is the first one's echo: a terminal and a launcher such as
/// torchrun both send it.
const ECHO: Duration = Duration::from_secs(1);

/// Installs the handlers. The flag is set by the first SIGINT, SIGTERM or SIGUSR1 (SLURM's warning
/// before the time is up): the state is then saved after the step. Further ones change nothing, but
/// for a later SIGINT, which ends the program at once and says that nothing was saved.
pub(super) fn flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let installed = Signals::new([SIGINT, SIGTERM, SIGUSR1]).and_then(|signals| {
        let stop = stop.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || listen(signals, &stop))
    });
    if let Err(error) = installed {
        say(&format!("warning: signals end the run without a checkpoint: {error}"));
    }
    stop
}

fn listen(mut signals: Signals, stop: &AtomicBool) {
    let mut asked: Option<Instant> = None;
    for signal in signals.forever() {
        match asked {
            None => {
                asked = Some(Instant::now());
                stop.store(true, Ordering::Relaxed);
                say("stopping: the state is saved after this step; a later SIGINT ends at once, \
                     without saving");
            }
            Some(first) if signal == SIGINT && first.elapsed() > ECHO => {
                say("error: ended at once by a second SIGINT: the steps since the newest \
                     checkpoint are not saved\n\
                     hint: start the same command with --resume to go on from that checkpoint");
                process::exit(exit::FAILED.into());
            }
            Some(_) => {}
        }
    }
}
