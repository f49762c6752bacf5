//! Counters that a job raises and a terminal shows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time and items of one stage, summed over threads.
#[derive(Debug, Default)]
pub struct StageMeter {
    busy_nanos: AtomicU64,
    items: AtomicU64,
}

impl StageMeter {
    /// Runs `work` on one item and counts it with its time.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed(), 1);
        result
    }

    /// Counts `items` that together took that time.
    pub fn add(&self, time: Duration, items: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.items.fetch_add(items, Ordering::Relaxed);
    }

    /// Busy time, summed over threads.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    /// Items so far.
    pub fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }
}

/// How many items are in hand, over time.
#[derive(Debug, Default)]
pub struct HeldMeter(AtomicU64);

impl HeldMeter {
    /// Counts `items` that were in hand for that time.
    pub fn add(&self, time: Duration, items: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros.saturating_mul(items), Ordering::Relaxed);
    }

    /// How many were in hand on average in a job that took that long.
    pub fn mean(&self, wall_secs: f64) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6 / wall_secs.max(1e-9)
    }
}

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a prep job has done so far.
#[derive(Debug, Default)]
pub struct PrepMetrics {
    /// Samples found.
    pub samples: Counter,
    /// Rows made.
    pub rows: Counter,
    /// Ledger entries.
    pub rejects: Counter,
    /// Parts that are whole, those of earlier runs too.
    pub parts: Counter,
    /// Bytes of samples read.
    pub bytes_in: Counter,
    /// Bytes of images to store.
    pub bytes_out: Counter,
    /// Tar to samples; of a mapped shard also the waiting for its first bytes.
    pub read: StageMeter,
    /// Decoding images.
    pub decode: StageMeter,
    /// Resizing images, where that is not done while they are decoded.
    pub resize: StageMeter,
    /// Encoding images.
    pub encode: StageMeter,
    /// Captions to synsets.
    pub label: StageMeter,
    /// Rows to Parquet.
    pub write: StageMeter,
    /// Reading back for checksums, fsync and rename.
    pub finish: StageMeter,
    /// Batches between reading and writing: how long samples are in hand.
    pub held: HeldMeter,
}

impl PrepMetrics {
    /// The stages by name, in the order of the line.
    pub fn stages(&self) -> [(&'static str, &StageMeter); 7] {
        [
            ("tar to samples", &self.read),
            ("decode", &self.decode),
            ("resize", &self.resize),
            ("encode", &self.encode),
            ("captions to synsets", &self.label),
            ("write columns", &self.write),
            ("hash and fsync", &self.finish),
        ]
    }

    /// The job's own log, with times, which no file of a data set holds.
    pub fn log(&self, threads: usize, wall_secs: f64) -> PrepLog {
        let stage = |(name, meter): &(&str, &StageMeter)| StageLog {
            stage: (*name).to_owned(),
            items: meter.items(),
            busy_secs: meter.busy().as_secs_f64(),
        };
        PrepLog {
            program: "catlip-prep run".to_owned(),
            wall_secs,
            threads,
            samples: self.samples.get(),
            rows: self.rows.get(),
            rejects: self.rejects.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            stages: self.stages().iter().map(stage).collect(),
        }
    }
}

impl PrepMetrics {
    /// The counters in Prometheus' text form.
    pub fn prometheus(&self, threads: usize, wall_secs: f64) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            text.push_str(&format!(
                "# HELP catlip_prep_{name} {help}\n# TYPE catlip_prep_{name} {kind}\n"
            ));
            for (labels, value) in values {
                text.push_str(&format!("catlip_prep_{name}{labels} {value}\n"));
            }
        };
        let plain = |value: f64| [(String::new(), value)];
        for (name, help, counter) in [
            ("samples_total", "Samples found.", &self.samples),
            ("rows_total", "Rows made.", &self.rows),
            ("rejects_total", "Entries of the ledger.", &self.rejects),
            ("parts_total", "Parts that are whole, those of earlier runs too.", &self.parts),
            ("bytes_in_total", "Bytes of samples read.", &self.bytes_in),
            ("bytes_out_total", "Bytes of images to store.", &self.bytes_out),
        ] {
            one(name, "counter", help, &plain(counter.get() as f64));
        }
        let stages = |value: fn(&StageMeter) -> f64| -> Vec<(String, f64)> {
            let each = self.stages().into_iter();
            each.map(|(name, meter)| (format!("{{stage=\"{name}\"}}"), value(meter))).collect()
        };
        let busy = stages(|meter| meter.busy().as_secs_f64());
        one("stage_busy_seconds_total", "counter", "Time in a stage, over all threads.", &busy);
        one("stage_items_total", "counter", "Items of a stage.", &stages(|m| m.items() as f64));
        let held = self.held.mean(wall_secs);
        one("samples_held", "gauge", "Samples in hand on average.", &plain(held));
        one("threads", "gauge", "Threads of the job.", &plain(threads as f64));
        one("elapsed_seconds", "gauge", "Time since the job began.", &plain(wall_secs));
        text
    }
}

/// What one run of a prep job did, and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepLog {
    /// What wrote it.
    pub program: String,
    /// Seconds from start to end.
    pub wall_secs: f64,
    /// Threads of the job.
    pub threads: usize,
    /// Samples found.
    pub samples: u64,
    /// Rows made.
    pub rows: u64,
    /// Ledger entries.
    pub rejects: u64,
    /// Bytes of samples read.
    pub bytes_in: u64,
    /// Bytes of images to store.
    pub bytes_out: u64,
    /// In the order of the line.
    pub stages: Vec<StageLog>,
}

/// Items and time of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageLog {
    /// Its name.
    pub stage: String,
    /// Images, captions or files that went through it.
    pub items: u64,
    /// Seconds in it, summed over threads.
    pub busy_secs: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_given_in_the_text_form_of_prometheus() {
        let metrics = PrepMetrics::default();
        metrics.samples.add(7);
        metrics.label.measure(|| ());
        let text = metrics.prometheus(2, 1.5);
        for line in [
            "# TYPE catlip_prep_samples_total counter",
            "catlip_prep_samples_total 7",
            "catlip_prep_stage_items_total{stage=\"captions to synsets\"} 1",
            "catlip_prep_threads 2",
            "catlip_prep_elapsed_seconds 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
