//! The feed over a small data set that the tests prepare themselves.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use catlip_schemas::{Frequencies, Synsets, VocabCut};

use super::*;
use crate::config::PrepConfig;
use crate::feed::Targets;
use crate::feed::group::GroupError;
use crate::feed::{BatchSampler, LastBatch, Selection, Stream, Viewing};
use crate::image::Filter;
use crate::image::Image;
use crate::image::jpeg::{Chroma, encode};
use crate::metrics::PrepMetrics;
use crate::prep::{self, DataSet, PrepPlan};
use crate::source::ShardList;

struct Prepared {
    _dir: tempfile::TempDir,
    data: Arc<DataSet>,
    vocab: Arc<catlip_schemas::Vocab>,
}

/// Two shards of 13 and 8 flat grey images; the grey is the number of the sample.
fn prepared() -> Prepared {
    let dir = tempfile::tempdir().unwrap();
    for (shard, range) in [(0, 0..13u8), (1, 13..21)] {
        let file = std::fs::File::create(dir.path().join(format!("{shard}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        let mut append = |name: String, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        };
        for i in range {
            let image = Image { width_px: 24, height_px: 20, pixels: vec![10 * i; 24 * 20 * 3] };
            append(format!("{i:03}.jpg"), &encode(&image, 95, Chroma::Yuv444).unwrap());
            append(format!("{i:03}.txt"), if i % 2 == 0 { b"a dog" } else { b"a car" });
        }
        builder.finish().unwrap();
    }
    let list =
        ShardList::expand(&[dir.path().join("*.tar").to_str().unwrap().into()], None).unwrap();
    let config = PrepConfig::load(None, &["image.rows_per_group=4".to_owned()]).unwrap();
    let plan = PrepPlan::new(config).unwrap();
    let output = dir.path().join("out");
    prep::run(&list, &output, &plan, &PrepMetrics::default(), &AtomicBool::new(false)).unwrap();
    let data = Arc::new(DataSet::open(&output).unwrap());
    let mut frequencies = Frequencies::default();
    for part in &data.parts {
        for row in data.read_synsets(part).unwrap() {
            row.iter().for_each(|caption: &Synsets| frequencies.add(caption));
        }
    }
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let vocab = Arc::new(prep::vocab::from_frequencies(&frequencies, &cut).unwrap());
    Prepared { _dir: dir, data, vocab }
}

fn plan(prepared: &Prepared) -> FeedPlan {
    let stream = Stream {
        selection: Arc::new(Selection::all(&prepared.data)),
        layout: Layout::Shuffled { seed: 3, lanes: 6, window_groups: 2 },
        sampler: BatchSampler::fixed(8, 5),
        last_batch: LastBatch::Drop,
        world_size: 1,
        rank: 0,
    };
    FeedPlan {
        data: prepared.data.clone(),
        stream,
        vocab: prepared.vocab.clone(),
        viewing: Viewing::RandomCrop {
            area: (0.3, 1.0),
            aspect: (0.75, 1.33),
            flip: 0.5,
            filter: Filter::Bilinear,
        },
        start: Cursor { snapshot: 1, epoch: 0, position: 0, order_version: ORDER_VERSION },
        num_steps: 12,
        with_captions: true,
        decode_threads: 3,
        reader_threads: 2,
        depth_batches: 2,
    }
}

/// What a batch is, as text: positions, ids, weights, labels, first pixels.
fn describe(batch: &mut HostBatch) -> Vec<String> {
    let slot_bytes = batch.height_px * batch.width_px * 3;
    let Targets::LabelsCsr { offsets, ids } = batch.targets.clone();
    let pixels = batch.images_bhwc().to_vec();
    (0..batch.len())
        .map(|i| {
            let labels = &ids[offsets[i] as usize..offsets[i + 1] as usize];
            let hash = crc32c::crc32c(&pixels[i * slot_bytes..(i + 1) * slot_bytes]);
            format!(
                "{} {} {} {labels:?} {hash:08x} {:?}",
                batch.positions[i], batch.sample_ids[i], batch.weights[i], batch.views[i]
            )
        })
        .collect()
}

fn collect(plan: FeedPlan) -> Vec<Vec<String>> {
    let mut feed = Feed::start(plan).unwrap();
    std::iter::from_fn(|| feed.next().unwrap().map(|mut b| describe(&mut b))).collect()
}

#[test]
fn an_epoch_shows_every_row_once_with_its_own_pixels_and_labels() {
    let prepared = prepared();
    let mut all = plan(&prepared);
    (all.stream.last_batch, all.num_steps) = (LastBatch::Pad, 5);
    let mut feed = Feed::start(all).unwrap();
    let mut seen = HashSet::new();
    while let Some(mut batch) = feed.next().unwrap() {
        let side = batch.width_px;
        let pixels = batch.images_bhwc().to_vec();
        let Targets::LabelsCsr { offsets, ids } = &batch.targets;
        for i in 0..batch.len() {
            let grey = pixels[i * side * side * 3];
            if batch.weights[i] == 0.0 {
                assert_eq!((grey, offsets[i]), (0, offsets[i + 1]));
                continue;
            }
            let number = (grey + 5) / 10;
            let shard = if number < 13 { "0.tar" } else { "1.tar" };
            let key = format!("{number:03}");
            assert_eq!(batch.sample_ids[i], SampleId::new(shard, key.as_bytes()));
            let label = ids[offsets[i] as usize];
            let lemma = &prepared.vocab.rows()[label as usize].lemma;
            assert_eq!(lemma, if number % 2 == 0 { "dog" } else { "car" });
            assert_eq!(batch.captions.as_ref().unwrap()[i], [format!("a {lemma}")]);
            assert!(seen.insert(number), "{number} twice");
        }
    }
    assert_eq!(seen.len(), 21);
}

#[test]
fn threads_and_depth_change_nothing() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    assert_eq!(expected.len(), 12);
    for (threads, depth) in [(1, 1), (2, 5), (7, 3)] {
        let mut other = plan(&prepared);
        (other.decode_threads, other.depth_batches) = (threads, depth);
        assert_eq!(collect(other), expected, "{threads} threads, depth {depth}");
    }
}

#[test]
fn a_feed_goes_on_from_any_cursor() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let mut feed = Feed::start(plan(&prepared)).unwrap();
    for taken in 0..12 {
        let cursor = feed.next().unwrap().unwrap().cursor;
        let mut rest = plan(&prepared);
        (rest.start, rest.num_steps) = (cursor, 11 - taken);
        assert_eq!(collect(rest)[..], expected[taken as usize + 1..], "after {taken}");
    }
}

#[test]
fn ranks_together_show_what_one_rank_shows() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    for world_size in [2, 3, 6] {
        let mut steps = vec![Vec::new(); expected.len()];
        for rank in 0..world_size {
            let mut share = plan(&prepared);
            (share.stream.world_size, share.stream.rank) = (world_size, rank);
            for (step, mut rows) in collect(share).into_iter().enumerate() {
                steps[step].append(&mut rows);
            }
        }
        for (step, rows) in steps.iter_mut().enumerate() {
            rows.sort_by_key(|row| row.split(' ').next().unwrap().parse::<u64>().unwrap());
            assert_eq!(rows, &expected[step], "world size {world_size}, step {step}");
        }
    }
}

#[test]
fn a_rotten_row_keeps_its_place_with_weight_zero() {
    let prepared = prepared();
    // Damages the pixels of one image and mends the checksum, as rot before the write would.
    let mut data = (*prepared.data).clone();
    let file = data.parts[0].files.get_mut("images").unwrap();
    let path = data.folder.path(&file.file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|w| w == [0xff, 0xd8, 0xff]).unwrap();
    bytes[at] = 0;
    std::fs::write(&path, &bytes).unwrap();
    let group = &mut file.groups[0];
    let range = group.offset as usize..(group.offset + group.bytes) as usize;
    group.crc32c = crc32c::crc32c(&bytes[range]);
    let mut all = plan(&prepared);
    all.data = Arc::new(data);
    (all.stream.last_batch, all.num_steps) = (LastBatch::Pad, 5);
    let mut feed = Feed::start(all).unwrap();
    let mut weights = Vec::new();
    while let Some(batch) = feed.next().unwrap() {
        weights.extend_from_slice(&batch.weights);
    }
    assert_eq!(weights.len(), 25);
    assert_eq!(weights.iter().filter(|&&w| w == 0.0).count(), 4 + 1);
    assert_eq!(feed.stats().bad_rows, 1);
}

#[test]
fn damage_of_a_row_group_ends_the_feed_with_its_place() {
    let prepared = prepared();
    let path = prepared.data.folder.path(&prepared.data.parts[1].files["images"].file);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut feed = Feed::start(plan(&prepared)).unwrap();
    let error = loop {
        match feed.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FeedError::Group(GroupError::Checksum { .. })), "{error}");
}

#[test]
fn a_consumer_that_leaves_ends_the_threads() {
    let prepared = prepared();
    for taken in 0..3 {
        let mut feed = Feed::start(plan(&prepared)).unwrap();
        (0..taken).for_each(|_| drop(feed.next().unwrap()));
        drop(feed);
    }
}

#[test]
fn impossible_plans_are_refused() {
    let prepared = prepared();
    let refused = |change: fn(&mut FeedPlan)| {
        let mut wrong = plan(&prepared);
        change(&mut wrong);
        Feed::start(wrong).err().map(|e| e.to_string()).unwrap()
    };
    assert_eq!(
        refused(|p| p.stream.sampler = BatchSampler::fixed(8, 22)),
        "21 rows are on offer, too few for one batch of 22"
    );
    assert_eq!(refused(|p| p.start.snapshot = 2), "the cursor is of snapshot 2, expected 1");
    assert_eq!(refused(|p| p.stream.world_size = 7), "7 ranks for 6 lanes: a rank would have none");
}

#[test]
fn a_hold_out_and_the_rest_share_no_row() {
    let prepared = prepared();
    let held = |id: &SampleId| crate::feed::selection::is_held_out(id, 30.0);
    let out = Selection::by_id(&prepared.data, held).unwrap();
    let rest = Selection::by_id(&prepared.data, |id| !held(id)).unwrap();
    assert_eq!(out.num_rows() + rest.num_rows(), 21);
    assert!(out.num_rows() > 0);
    let mut ids = HashSet::new();
    for selection in [out, rest] {
        let mut all = plan(&prepared);
        (all.stream.selection, all.stream.sampler) =
            (Arc::new(selection), BatchSampler::fixed(8, 1));
        (all.stream.last_batch, all.num_steps) = (LastBatch::Pad, all.stream.selection.num_rows());
        let mut feed = Feed::start(all).unwrap();
        while let Some(batch) = feed.next().unwrap() {
            assert!(ids.insert(batch.sample_ids[0]));
        }
    }
    assert_eq!(ids.len(), 21);
}
