//! Progress of a job: a bar on a terminal, JSON lines in a log, a metrics file for Prometheus.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::metrics::PrepMetrics;
use crate::prep::commit::write_whole;

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
    fn secs(&self) -> f64 {
        self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// For the bar of a terminal.
    fn line(&self) -> String {
        let (metrics, secs) = (self.metrics, self.secs());
        format!(
            "{} images, {:.0} images/s, {:.1} MB/s, {} rejected",
            metrics.samples.get(),
            metrics.samples.get() as f64 / secs,
            metrics.bytes_in.get() as f64 / 1e6 / secs,
            metrics.rejects.get()
        )
    }

    /// For a log: one JSON object. `parts_before` were there when the job began.
    fn json_line(&self, parts_before: u64) -> String {
        let (metrics, secs) = (self.metrics, self.secs());
        let parts = metrics.parts.get();
        let (made, left) = (parts - parts_before, self.parts.saturating_sub(parts));
        let eta_secs = (made > 0).then(|| (secs * left as f64 / made as f64).round());
        serde_json::json!({
            "parts": parts,
            "of": self.parts,
            "samples": metrics.samples.get(),
            "rejected": metrics.rejects.get(),
            "samples_per_sec": (metrics.samples.get() as f64 / secs).round(),
            "mb_per_sec": (metrics.bytes_in.get() as f64 / 1e5 / secs).round() / 10.0,
            "elapsed_secs": secs.round(),
            "eta_secs": eta_secs,
        })
        .to_string()
    }

    /// Replaces the metrics file whole; a file that cannot be written stops no job.
    fn write_metrics(&self) {
        if let Some(path) = self.metrics_file {
            let text = self.metrics.prometheus(self.threads, self.start.elapsed().as_secs_f64());
            if let Err(error) = write_whole(path, text.as_bytes()) {
                eprintln!("warning: cannot write {}: {error}", path.display());
            }
        }
    }
}

/// Runs `work` while its progress is shown on standard error and kept in the metrics file.
pub fn show_while<T: Send>(
    watched: &Watched<'_>,
    quiet: bool,
    work: impl FnOnce() -> T + Send,
) -> T {
    let terminal = std::io::stderr().is_terminal();
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let bar = (terminal && !quiet).then(|| part_bar(watched.parts));
            let interval = if bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
            let parts_before = watched.metrics.parts.get();
            let mut written = Instant::now();
            while wait.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                match &bar {
                    Some(bar) => {
                        bar.set_position(watched.metrics.parts.get());
                        bar.set_message(watched.line());
                    }
                    None if quiet => {}
                    None => eprintln!("{}", watched.json_line(parts_before)),
                }
                if written.elapsed() >= LINE_INTERVAL {
                    watched.write_metrics();
                    written = Instant::now();
                }
            }
            match bar {
                Some(bar) => bar.finish_and_clear(),
                None if quiet => {}
                // A job of seconds has its line too.
                None => eprintln!("{}", watched.json_line(parts_before)),
            }
        });
        let result = work();
        drop(done);
        watched.write_metrics();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_json() {
        let metrics = PrepMetrics::default();
        metrics.parts.add(3);
        metrics.samples.add(20);
        let watched = Watched {
            metrics: &metrics,
            parts: 5,
            start: Instant::now(),
            threads: 2,
            metrics_file: None,
        };
        let line: serde_json::Value = serde_json::from_str(&watched.json_line(1)).unwrap();
        assert_eq!(
            (&line["parts"], &line["of"], &line["samples"]),
            (&3.into(), &5.into(), &20.into())
        );
        assert!(line["eta_secs"].is_number());
        let none: serde_json::Value = serde_json::from_str(&watched.json_line(3)).unwrap();
        assert!(none["eta_secs"].is_null());
    }
}
