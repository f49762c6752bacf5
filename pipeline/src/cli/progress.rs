//! Progress of a job: a bar on a terminal, a line now and then in a log.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::metrics::PrepMetrics;

/// How often a bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// How often a log gets a line.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What is watched.
pub struct Watched<'m> {
    /// The counters.
    pub metrics: &'m PrepMetrics,
    /// All parts.
    pub parts: u64,
    /// Begin of the job.
    pub start: Instant,
    /// Threads of the job.
    pub threads: usize,
    /// Where the counters are kept.
    pub metrics_file: Option<&'m Path>,
}

impl Watched<'_> {
    fn line(&self) -> String {
        let metrics = self.metrics;
        let secs = self.start.elapsed().as_secs_f64().max(1e-9);
        format!(
            "{} samples, {:.0} a second, {:.1} MB/s in, {} rejected",
            metrics.samples.get(),
            metrics.samples.get() as f64 / secs,
            metrics.bytes_in.get() as f64 / 1e6 / secs,
            metrics.rejects.get()
        )
    }
}

/// Runs `work` while its progress is shown on standard error.
pub fn show_while<T: Send>(
    watched: &Watched<'_>,
    quiet: bool,
    work: impl FnOnce() -> T + Send,
) -> T {
    let terminal = std::io::stderr().is_terminal();
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        if !quiet {
            scope.spawn(move || {
                let bar = terminal.then(|| part_bar(watched.parts));
                let interval = if terminal { BAR_INTERVAL } else { LINE_INTERVAL };
                while wait.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    let parts = watched.metrics.parts.get();
                    match &bar {
                        Some(bar) => {
                            bar.set_position(parts);
                            bar.set_message(watched.line());
                        }
                        None => eprintln!("parts {parts}/{}, {}", watched.parts, watched.line()),
                    }
                }
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            });
        }
        let result = work();
        drop(done);
        result
    })
}

fn part_bar(parts: u64) -> ProgressBar {
    let bar = ProgressBar::new(parts);
    let template = "{bar:30} {pos}/{len} parts, {msg}, {elapsed} gone, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
