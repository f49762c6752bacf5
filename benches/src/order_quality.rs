//! What the order costs in reads, and how well it shuffles data that are sorted by class.
//!
//! In: the shape of a data set. Out: bytes read ÷ data set for numbers of ranks; the variance of
//! class counts of global batches ÷ that of independent draws for windows. All by walking the order
//! itself; nothing lies on a disk.

use catlip_pipeline::feed::order::{GroupRows, Layout};
use catlip_pipeline::feed::{BatchSampler, Selection, Stream, trace};

/// Classes of the sorted data: row group g is all of class g × 1,000 ÷ groups.
const CLASSES: usize = 1000;

/// The stream over `parts` parts of `groups` row groups of `rows` rows.
pub fn stream(
    [parts, groups, rows]: [u32; 3],
    lanes: u32,
    window_groups: u32,
    batch: u32,
) -> Stream {
    let group = |part, group| GroupRows { part, group, rows };
    let all = (0..parts).flat_map(|part| (0..groups).map(move |g| group(part, g))).collect();
    let layout = Layout::Shuffled { seed: 1, lanes, window_groups };
    Stream::of_one(Selection::of_groups(all), layout, BatchSampler::fixed(224, batch))
}

/// Row groups that `world_size` ranks read in an epoch, ÷ those that there are: each rank reads
/// the groups of its lanes, and those that two of its lanes share once for each.
pub fn read_ratio(stream: &Stream, world_size: u32) -> f64 {
    let order = stream.order(0, 0);
    let lanes = order.num_lanes() as u32;
    let of_lane = |lane: u32| {
        let windows = 0..order.num_windows(lane);
        windows.flat_map(|window| order.window_groups(lane, window)).count()
    };
    let of_rank =
        |rank: u32| (rank..lanes).step_by(world_size as usize).map(of_lane).sum::<usize>();
    let read: usize = (0..world_size).map(of_rank).sum();
    read as f64 / stream.selection.groups().len() as f64
}

/// Variance of the class counts of `steps` global batches ÷ that of independent draws.
pub fn variance_ratio(stream: &Stream, steps: usize) -> f64 {
    let groups = stream.selection.groups().len();
    let batch = f64::from(stream.sampler.largest_batch());
    let share = 1.0 / CLASSES as f64;
    let (mut squares, mut seen) = (0.0, 0);
    // Far apart, so that no two share their windows.
    let all = stream.steps_in(0);
    let apart = (all / steps as u64).max(1);
    for step in trace::steps(stream, 0, 0).step_by(apart as usize).take(steps) {
        let mut counts = vec![0.0; CLASSES];
        step.rows.iter().for_each(|row| counts[row.group as usize * CLASSES / groups] += 1.0);
        squares += counts.iter().map(|n| (n - batch * share).powi(2)).sum::<f64>();
        seen += 1;
    }
    let independent = batch * share * (1.0 - share);
    squares / (f64::from(seen) * CLASSES as f64) / independent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_read_little_twice_and_windows_shuffle() {
        let small = stream([40, 10, 16], 8, 4, 64);
        for world_size in [1, 2, 4, 8] {
            let ratio = read_ratio(&small, world_size);
            assert!((1.0..1.0 + 7.0 / 400.0 + 1e-9).contains(&ratio), "{ratio}");
        }
        let sorted =
            |window_groups| variance_ratio(&stream([400, 10, 16], 4, window_groups, 64), 50);
        assert!(sorted(1) > 2.0 * sorted(64), "{} and {}", sorted(1), sorted(64));
    }
}
