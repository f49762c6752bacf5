//! How fast a feed is on this machine and these data, and what limits it.
//!
//! In: the plan of a feed. Out: the speed of its decoders alone, of its reads alone and of the
//! whole, and one sentence. Never: changes what is measured; trains.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use super::draw::{Draws, Purpose};
use super::error::FeedError;
use super::group::GroupError;
use super::memory::Memory;
use super::plan::FeedPlan;
use super::run::Feed;
use super::view::fill_slot;
use crate::image::{CropDecoder, DecodeOptions};

/// Share of what decoders could do from which on they are the limit.
const LIMIT_SHARE: f64 = 0.9;

/// What was measured.
#[derive(Clone, Debug)]
pub struct FeedReport {
    /// Decoding threads of the feed.
    pub decode_threads: usize,
    /// Reading threads of the feed.
    pub reader_threads: usize,
    /// Images that one thread decodes and crops a second, from memory, while all of them do.
    pub decode_images_per_sec: f64,
    /// Bytes of row groups that one thread reads a second.
    pub read_bytes_per_sec: f64,
    /// Images in those row groups that it reads a second.
    pub read_images_per_sec: f64,
    /// Seconds from the start to the first whole batch.
    pub first_batch_secs: f64,
    /// Images of the feed.
    pub images: u64,
    /// Images a second of the feed, from the first batch on.
    pub feed_images_per_sec: f64,
    /// The most bytes of compressed row groups that were in memory.
    pub group_bytes_max: u64,
    /// Bytes of row groups that were spilled.
    pub spilled_bytes: u64,
    /// Rows that did not decode.
    pub bad_rows: u64,
}

/// Runs the feed of `plan`, then its parts alone on the first `num_images` images of the order.
///
/// # Errors
///
/// [`FeedError`]; [`FeedError::TooFewRows`] for a plan of fewer than two steps.
pub fn measure(plan: &FeedPlan, num_images: usize) -> Result<FeedReport, FeedError> {
    let start = Instant::now();
    let mut feed = Feed::start(plan.clone())?;
    let first = feed.next()?.map_or(0, |batch| batch.len());
    let first_batch_secs = start.elapsed().as_secs_f64();
    let (mut images, start) = (0, Instant::now());
    while let Some(batch) = feed.next()? {
        images += batch.len() as u64;
    }
    if images == 0 {
        let (rows, batch) = (plan.stream.num_rows(), first * 2);
        return Err(FeedError::TooFewRows { rows, batch });
    }
    let feed_images_per_sec = images as f64 / start.elapsed().as_secs_f64();
    let stats = feed.stats();
    drop(feed);
    let alone = alone(plan, num_images)?;
    Ok(FeedReport {
        decode_threads: plan.decode_threads,
        reader_threads: plan.reader_threads,
        decode_images_per_sec: alone.decode_images_per_sec,
        read_bytes_per_sec: alone.read_bytes_per_sec,
        read_images_per_sec: alone.read_images_per_sec,
        first_batch_secs,
        images: images + first as u64,
        feed_images_per_sec,
        group_bytes_max: stats.memory.used_bytes_max,
        spilled_bytes: stats.memory.spilled_bytes,
        bad_rows: stats.bad_rows,
    })
}

/// The parts of a feed, each in one thread.
struct Alone {
    decode_images_per_sec: f64,
    read_bytes_per_sec: f64,
    read_images_per_sec: f64,
}

fn alone(plan: &FeedPlan, num_images: usize) -> Result<Alone, FeedError> {
    let order = plan.stream.order(0, plan.start.epoch);
    let memory = Memory::new(u64::MAX, plan.memory.spill_dir.clone());
    let (mut read_secs, mut read_images, mut read_bytes) = (0.0, 0, 0);
    let (mut encoded, mut buffer) = (Vec::new(), Vec::new());
    for group in order.groups_read() {
        let rows = plan.stream.selection.groups()[group as usize];
        if rows.rows == 0 || encoded.len() >= num_images {
            continue;
        }
        let (source, part) = plan.sources.part(rows.part);
        let start = Instant::now();
        let images = Arc::new(source.read_group(part, rows.group, &memory)?);
        read_secs += start.elapsed().as_secs_f64();
        read_images += rows.rows;
        read_bytes += memory.stats().used_bytes;
        for nth in 0..rows.rows {
            let (_, row) = plan.stream.selection.row(group as usize, nth);
            let bytes = images.image(row, &mut buffer).map_err(GroupError::from)?;
            encoded.push((bytes.to_vec(), source.options));
        }
    }
    let per_sec = |count: f64, secs: f64| count / secs.max(1e-9);
    Ok(Alone {
        decode_images_per_sec: decoding(plan, &encoded),
        read_bytes_per_sec: per_sec(read_bytes as f64, read_secs),
        read_images_per_sec: per_sec(f64::from(read_images), read_secs),
    })
}

/// Images a second of one decoding thread while all of them decode: cores share caches and clocks.
fn decoding(plan: &FeedPlan, encoded: &[(Vec<u8>, DecodeOptions)]) -> f64 {
    let side_px = plan.stream.sampler.at(plan.start.epoch, 0).side_px;
    let work = |thread: u64| {
        let mut slot = vec![0; side_px as usize * side_px as usize * 3];
        let mut decoder = CropDecoder::default();
        let start = Instant::now();
        for (at, (bytes, options)) in (0_u64..).zip(encoded) {
            let mut draws = Draws::new(Purpose::View, 0, 0, at, thread);
            let seen = (&plan.viewing, side_px);
            // A rotten row costs its time too.
            drop(fill_slot(bytes, options, seen, &mut draws, &mut decoder, &mut slot));
        }
        encoded.len() as f64 / start.elapsed().as_secs_f64().max(1e-9)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.decode_threads.max(1) as u64)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let num_threads = threads.len() as f64;
        let rate = |thread: ScopedJoinHandle<'_, f64>| match thread.join() {
            Ok(rate) => rate,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(rate).sum::<f64>() / num_threads
    })
}

impl FeedReport {
    /// What all decoding threads could do, if cores are enough for them.
    pub fn decoders_images_per_sec(&self) -> f64 {
        self.decode_images_per_sec * self.decode_threads as f64
    }

    /// One sentence: which part limits, and what to change.
    pub fn limit(&self) -> String {
        let decoders = self.decoders_images_per_sec();
        let readers = self.read_images_per_sec * self.reader_threads as f64;
        let share = self.feed_images_per_sec / decoders;
        if self.spilled_bytes > 0 {
            return format!(
                "Memory limits: {:.0} MB of row groups went to the disk; raise feed.memory_bytes \
                 or lower feed.window_bytes.",
                self.spilled_bytes as f64 / 1e6
            );
        }
        if readers < decoders && share < LIMIT_SHARE {
            return format!(
                "Reading limits: {readers:.0} images/s arrive where {decoders:.0} could be \
                 decoded; keep the data nearer, or store smaller images \
                 (image.short_side_px, image.quality)."
            );
        }
        if share >= LIMIT_SHARE {
            return format!(
                "Decoding limits: {} threads do {:.0} images/s each; give it more cores, or \
                 prepare smaller images (image.short_side_px, image.quality).",
                self.decode_threads, self.decode_images_per_sec
            );
        }
        format!(
            "Cores limit: {} threads could decode {decoders:.0} images/s on cores of their \
             own, but do {:.0}; other work has the cores, or feed.threads is above their number.",
            self.decode_threads, self.feed_images_per_sec
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(feed: f64, read: f64, spilled: u64) -> FeedReport {
        FeedReport {
            decode_threads: 4,
            reader_threads: 2,
            decode_images_per_sec: 1000.0,
            read_bytes_per_sec: read * 1e5,
            read_images_per_sec: read,
            first_batch_secs: 0.1,
            images: 5000,
            feed_images_per_sec: feed,
            group_bytes_max: 1 << 20,
            spilled_bytes: spilled,
            bad_rows: 0,
        }
    }

    #[test]
    fn the_sentence_names_what_limits() {
        let begins = |report: FeedReport, text: &str| {
            assert!(report.limit().starts_with(text), "{}", report.limit());
        };
        begins(report(3900.0, 9000.0, 0), "Decoding limits: 4 threads do 1000 images/s each");
        begins(report(900.0, 500.0, 0), "Reading limits: 1000 images/s arrive where 4000");
        begins(report(2000.0, 9000.0, 0), "Cores limit: 4 threads could decode 4000");
        begins(report(3900.0, 9000.0, 5_000_000), "Memory limits: 5 MB");
    }
}
