//! The feed over a small data set that the tests prepare themselves.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use catlip_schemas::{Cursor, Frequencies, Synsets, VocabCut};

use super::*;
use crate::config::PrepConfig;
use crate::feed::group::GroupError;
use crate::feed::hedge::Hedged;
use crate::feed::source::Ranges;
use crate::feed::{
    BatchSampler, LabelsFrom, LastBatch, MemoryPlan, ReadPlan, Selection, SetRows, Source, Sources,
    Stream, Viewing,
};
use crate::feed::{Passes, Targets};
use crate::image::Filter;
use crate::image::Image;
use crate::image::jpeg::{Chroma, encode};
use crate::metrics::PrepMetrics;
use crate::prep::{self, DataSet, Folder, PrepPlan};
use crate::source::ShardList;
use crate::source::store::StoreError;

struct Prepared {
    dir: tempfile::TempDir,
    data: Arc<DataSet>,
    vocab: Arc<catlip_schemas::Vocab>,
}

/// Two shards of 13 and 8 flat grey images; the grey is the number of the sample.
fn prepared() -> Prepared {
    prepared_as(&[])
}

fn prepared_as(settings: &[&str]) -> Prepared {
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
            // Of 16 KB, so that a shard is more than the two ends that its ETag covers.
            let captions = r#""captions": ["a tree", "a house", "a river"]"#;
            let json = format!(r#"{{{captions}, "filler": "{}"}}"#, "x".repeat(16_000));
            append(format!("{i:03}.json"), json.as_bytes());
        }
        builder.finish().unwrap();
    }
    let list =
        ShardList::expand(&[dir.path().join("*.tar").to_str().unwrap().into()], None).unwrap();
    let mut all = vec!["image.rows_per_group=4".to_owned()];
    all.extend(settings.iter().map(|s| s.to_string()));
    if !settings.iter().any(|setting| setting.starts_with("caption.")) {
        all.push("caption.sources=['txt']".to_owned());
    }
    let plan = PrepPlan::new(PrepConfig::load(None, &all).unwrap()).unwrap();
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
    Prepared { dir, data, vocab }
}

fn plan(prepared: &Prepared) -> FeedPlan {
    let layout = Layout::Shuffled { seed: 3, lanes: 6, window_groups: 2 };
    let selection = Selection::all(&prepared.data);
    FeedPlan {
        sources: in_shards(prepared),
        stream: Stream::of_one(selection, layout, BatchSampler::fixed(8, 5)),
        vocab: prepared.vocab.clone(),
        labels_from: LabelsFrom::Union,
        viewing: Viewing::RandomCrop {
            area: (0.3, 1.0),
            aspect: (0.75, 1.33),
            flip: 0.5,
            filter: Filter::Bilinear,
        },
        start: Cursor::start(1),
        num_steps: 12,
        with_captions: true,
        decode_threads: 3,
        reader_threads: 2,
        depth_batches: 2,
        memory: MemoryPlan { bytes: 64 << 20, spill_dir: std::path::PathBuf::new() },
        bad_rows_max: None,
        page_lock: None,
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
        let cursor = feed.next().unwrap().unwrap().cursor.clone();
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
    all.sources = Sources::of_one(Arc::new(data)).unwrap();
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

/// The data set, with its images in the shards that it was made from if it is one of references.
fn in_shards(prepared: &Prepared) -> Sources {
    let source = Source::open(
        prepared.data.clone(),
        Some(&Folder::from(prepared.dir.path())),
        &ReadPlan::default(),
    )
    .unwrap();
    Sources::new(vec![source])
}

fn error_of(plan: FeedPlan) -> FeedError {
    let mut feed = Feed::start(plan).unwrap();
    loop {
        match feed.next() {
            Ok(batch) => assert!(batch.is_some(), "the feed ended well"),
            Err(error) => break error,
        }
    }
}

#[test]
fn a_data_set_of_references_is_read_from_its_shards() {
    let kept = prepared_as(&["image.mode=keep"]);
    let referred = prepared_as(&["image.mode=reference"]);
    let expected = collect(plan(&kept));
    assert_eq!(collect(plan(&referred)), expected);
    let refused = Sources::of_one(referred.data.clone()).unwrap_err().to_string();
    assert!(refused.contains("nobody said where"), "{refused}");
}

#[test]
fn a_shard_that_is_another_now_ends_the_feed() {
    let prepared = prepared_as(&["image.mode=reference"]);
    let path = prepared.dir.path().join("1.tar");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = error_of(plan(&prepared));
    assert!(matches!(error, FeedError::Group(GroupError::Shard { .. })), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = error_of(plan(&prepared));
    assert!(error.to_string().contains("1.tar does not exist"), "{error}");
}

#[test]
fn one_bad_row_too_many_ends_the_feed_with_its_name() {
    let prepared = prepared_as(&["image.mode=reference"]);
    // Two images between the ends of the shard that its ETag covers.
    let path = prepared.dir.path().join("0.tar");
    let mut bytes = std::fs::read(&path).unwrap();
    let is_start = |at: &usize| bytes[*at..at + 3] == [0xff, 0xd8, 0xff];
    let starts: Vec<usize> = (0..bytes.len() - 3).filter(is_start).skip(5).take(2).collect();
    starts.iter().for_each(|at| bytes[at + 300] ^= 0x55);
    std::fs::write(&path, bytes).unwrap();
    let plan = |limit| {
        let mut all = plan(&prepared);
        (all.stream.last_batch, all.num_steps) = (LastBatch::Pad, 5);
        FeedPlan { bad_rows_max: Some(limit), ..all }
    };
    let mut feed = Feed::start(plan(2)).unwrap();
    while feed.next().unwrap().is_some() {}
    assert_eq!(feed.stats().bad_rows, 2);
    let error = error_of(plan(1)).to_string();
    assert!(error.starts_with("2 rows did not decode, 1 may; the last: sample "), "{error}");
    assert!(error.contains("its bytes in the shard are not those"), "{error}");
}

#[test]
fn memory_that_is_short_is_spilled_and_changes_nothing() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let mut short = plan(&prepared);
    // 3 batches of 5 × 192 B, an eighth for labels, and 1 kB for row groups of 3 kB.
    short.memory.bytes = (short.batch_bytes() + 1000) * 8 / 7;
    let mut feed = Feed::start(short.clone()).unwrap();
    let fed: Vec<_> =
        std::iter::from_fn(|| feed.next().unwrap().map(|mut b| describe(&mut b))).collect();
    assert_eq!(fed, expected);
    let memory = feed.stats().memory;
    assert!(memory.spilled_bytes > 0 && memory.used_bytes_max <= 1001, "{memory:?}");
    short.memory.bytes = 1000;
    let refused = Feed::start(short).err().map(|e| e.to_string()).unwrap();
    let expected = "the feed may take 1000 bytes, but its 3 batches take 2880 and labels 125";
    assert_eq!(refused, expected);
}

#[test]
fn one_caption_is_drawn_for_each_position() {
    let prepared = prepared_as(&["caption.sources=['json:captions']"]);
    let lemma = |label: i64| prepared.vocab.rows()[label as usize].lemma.clone();
    let labels = |from, threads| {
        let mut feed =
            Feed::start(FeedPlan { labels_from: from, decode_threads: threads, ..plan(&prepared) })
                .unwrap();
        let mut all = Vec::new();
        while let Some(batch) = feed.next().unwrap() {
            let Targets::LabelsCsr { offsets, ids } = &batch.targets;
            let rows = offsets.windows(2).map(|o| &ids[o[0] as usize..o[1] as usize]);
            all.extend(rows.map(|ids| ids.iter().map(|&id| lemma(id)).collect::<Vec<_>>()));
        }
        all
    };
    assert!(labels(LabelsFrom::Union, 2).iter().all(|row| row.len() == 3));
    let drawn = labels(LabelsFrom::OneCaption, 1);
    assert_eq!(drawn, labels(LabelsFrom::OneCaption, 4));
    for lemma in ["tree", "house", "river"] {
        let count = drawn.iter().filter(|row| row[..] == [lemma.to_owned()]).count();
        // A third of 60.
        assert!((8..=35).contains(&count), "{lemma}: {count} of {}", drawn.len());
    }
}

/// Two data sets of 21 rows, of which an epoch takes 14 and 28.
fn mixed(prepared: &Prepared) -> FeedPlan {
    let all = plan(prepared);
    let source = || Source::open(prepared.data.clone(), None, &ReadPlan::default()).unwrap();
    let rows = || SetRows {
        selection: Selection::all(&prepared.data),
        num_parts: prepared.data.parts.len(),
        window_groups: 2,
    };
    let weights = [1.0, 2.0];
    let sampler = all.stream.sampler.clone();
    FeedPlan {
        sources: Sources::new(vec![source(), source()]),
        stream: Stream::of_sets(vec![rows(), rows()], &weights, all.stream.layout, sampler)
            .unwrap(),
        num_steps: 20,
        ..all
    }
}

#[test]
fn a_mix_goes_on_from_any_cursor_with_any_number_of_ranks() {
    let prepared = prepared();
    let expected = collect(mixed(&prepared));
    let mut feed = Feed::start(mixed(&prepared)).unwrap();
    let by_position = |row: &String| row.split(' ').next().unwrap().parse::<u64>().unwrap();
    for (taken, world_size) in [1, 2, 3, 4, 6].into_iter().cycle().take(20).enumerate() {
        let cursor = feed.next().unwrap().unwrap().cursor.clone();
        assert_eq!(cursor.sets.len(), 2);
        let mut steps = vec![Vec::new(); 19 - taken];
        for rank in 0..world_size {
            let mut rest = mixed(&prepared);
            (rest.start, rest.num_steps) = (cursor.clone(), 19 - taken as u64);
            (rest.stream.world_size, rest.stream.rank) = (world_size, rank);
            for (step, mut rows) in collect(rest).into_iter().enumerate() {
                steps[step].append(&mut rows);
            }
        }
        steps.iter_mut().for_each(|step| step.sort_by_key(by_position));
        assert_eq!(steps[..], expected[taken + 1..], "after {taken}, {world_size} ranks");
    }
}

#[test]
fn a_cursor_of_another_mix_is_refused() {
    let prepared = prepared();
    let mut feed = Feed::start(mixed(&prepared)).unwrap();
    let cursor = feed.next().unwrap().unwrap().cursor.clone();
    let mut other = plan(&prepared);
    other.start = cursor.clone();
    let refused = Feed::start(other).err().map(|e| e.to_string()).unwrap();
    assert_eq!(refused, "the cursor is of data sets 2, expected 0");
    let mut other = mixed(&prepared);
    other.start = cursor;
    other.start.sets[1].position += 1;
    let refused = Feed::start(other).err().map(|e| e.to_string()).unwrap();
    assert_eq!(refused, "the cursor is of position of data set 1 5, expected 4");
}

/// What is wrong with the requests of a folder.
#[derive(Clone, Copy, PartialEq)]
enum Illness {
    /// All of them panic.
    Panics,
    /// The first one for every third range hangs until it is let go.
    Thirds,
    /// All of them hang until they are let go.
    Hangs,
}

/// A folder that is not well.
struct Unwell {
    folder: Folder,
    illness: Illness,
    seen: Mutex<HashSet<(String, u64)>>,
    open: (Mutex<bool>, Condvar),
}

impl Unwell {
    fn new(prepared: &Prepared, illness: Illness) -> Arc<Self> {
        let folder = prepared.data.folder.clone();
        let (seen, open) = Default::default();
        Arc::new(Self { folder, illness, seen, open })
    }

    fn let_go(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Ranges for Unwell {
    fn read(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        let hangs = match self.illness {
            Illness::Panics => panic!("a store that panics"),
            Illness::Hangs => true,
            Illness::Thirds => {
                let mut seen = self.seen.lock().unwrap();
                seen.insert((name.to_owned(), range.start)) && seen.len() % 3 == 1
            }
        };
        if hangs {
            let mut open = self.open.0.lock().unwrap();
            while !*open {
                open = self.open.1.wait(open).unwrap();
            }
        }
        self.folder.read_range_in(name, range, buffer)
    }

    fn place(&self) -> String {
        self.folder.store().place()
    }
}

#[test]
fn no_step_waits_for_a_request_that_hangs() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let unwell = Unwell::new(&prepared, Illness::Thirds);
    let hedged = Arc::new(Hedged::new(unwell.clone(), Duration::from_millis(1)));
    let source = Source::stored(prepared.data.clone(), hedged.clone()).unwrap();
    // Ends only if no step needs one of the first requests, which are let go behind this line.
    let sources = Sources::new(vec![source]);
    assert_eq!(collect(FeedPlan { sources, ..plan(&prepared) }), expected);
    assert!(hedged.hedges() > 0);
    unwell.let_go();
}

#[test]
fn a_thread_that_panics_ends_the_feed_with_what_it_said() {
    let prepared = prepared();
    let unwell = Unwell::new(&prepared, Illness::Panics);
    let sources = Sources::new(vec![Source::stored(prepared.data.clone(), unwell).unwrap()]);
    let error = error_of(FeedPlan { sources, ..plan(&prepared) });
    assert!(matches!(&error, FeedError::Panicked { .. }), "{error}");
    assert!(error.to_string().ends_with("panicked: a store that panics"), "{error}");
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
fn a_consumer_that_leaves_waits_for_no_image_that_is_queued() {
    let prepared = prepared();
    let unwell = Unwell::new(&prepared, Illness::Hangs);
    let source = Source::stored(prepared.data.clone(), unwell.clone()).unwrap();
    let sources = Sources::new(vec![source]);
    let feed = Feed::start(FeedPlan { sources, decode_threads: 1, ..plan(&prepared) }).unwrap();
    let shared = feed.shared.clone();
    // Three batches of five.
    while shared.tasks.stats().pushed < 15 {
        std::thread::yield_now();
    }
    let leaving = std::thread::spawn(move || drop(feed));
    while !shared.is_ended() {
        std::thread::yield_now();
    }
    unwell.let_go();
    leaving.join().unwrap();
    assert!(shared.decode.items() <= 1, "{} images", shared.decode.items());
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
        all.stream = Stream::of_one(selection, all.stream.layout, BatchSampler::fixed(8, 1));
        (all.stream.last_batch, all.num_steps) = (LastBatch::Pad, all.stream.num_rows());
        let mut feed = Feed::start(all).unwrap();
        while let Some(batch) = feed.next().unwrap() {
            assert!(ids.insert(batch.sample_ids[0]));
        }
    }
    assert_eq!(ids.len(), 21);
}

#[test]
fn batches_that_are_kept_do_not_stop_the_feed() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let mut feed = Feed::start(plan(&prepared)).unwrap();
    // Four times as many as there are buffers.
    let mut kept: Vec<HostBatch> = std::iter::from_fn(|| feed.next().unwrap()).collect();
    drop(feed);
    let kept: Vec<_> = kept.iter_mut().map(describe).collect();
    assert_eq!(kept, expected);
}

#[test]
fn a_wait_with_an_end_loses_no_batch() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let mut feed = Feed::start(plan(&prepared)).unwrap();
    let (mut all, mut waits) = (Vec::new(), 0);
    loop {
        match feed.next_within(Duration::from_micros(50)).unwrap() {
            Next::Batch(mut batch) => all.push(describe(&mut batch)),
            Next::NotYet => waits += 1,
            Next::End => break,
        }
    }
    assert_eq!(all, expected);
    assert!(waits > 0, "it never waited");
}

/// The batches up to the epoch's end.
fn pass(passes: &mut Passes) -> Vec<Vec<String>> {
    let (mut all, epoch) = (Vec::new(), passes.epoch());
    loop {
        match passes.next_of(epoch, Duration::from_secs(60)).unwrap() {
            Next::Batch(mut batch) => all.push(describe(&mut batch)),
            Next::NotYet => panic!("a batch takes a minute"),
            Next::End => return all,
        }
    }
}

#[test]
fn passes_are_the_epochs_of_a_feed_and_go_on_from_anywhere() {
    let prepared = prepared();
    let expected = collect(plan(&prepared));
    let mut passes = Passes::new(plan(&prepared)).unwrap();
    let epochs: Vec<_> = (0..3).map(|_| pass(&mut passes)).collect();
    assert_eq!(epochs.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
    assert_eq!(epochs.concat(), expected);
    assert_eq!((passes.epoch(), passes.steps_done(), passes.num_steps()), (3, 0, 4));
    for taken in 0..12 {
        let mut first = Passes::new(plan(&prepared)).unwrap();
        first.enter_epoch(taken / 4).unwrap();
        for _ in 0..taken % 4 {
            let Next::Batch(_) = first.next_of(taken / 4, Duration::from_secs(60)).unwrap() else {
                panic!("too few steps")
            };
        }
        // Elsewhere, as another rank of three: the three have all rows of the steps that are left.
        let mut rows = Vec::new();
        for rank in 0..3 {
            let mut share = plan(&prepared);
            (share.stream.world_size, share.stream.rank) = (3, rank);
            let mut second = Passes::new(share).unwrap();
            second.go_to(first.cursor().clone()).unwrap();
            assert_eq!((second.epoch(), second.steps_done()), (taken / 4, taken % 4));
            rows.extend(pass(&mut second).concat());
            assert_eq!((second.epoch(), second.steps_done()), (taken / 4 + 1, 0));
        }
        let mut left = expected[taken as usize..(taken as usize / 4 + 1) * 4].concat();
        rows.sort();
        left.sort();
        assert_eq!(rows, left, "after {taken}");
    }
}

#[test]
fn a_cursor_of_other_data_moves_no_pass() {
    let prepared = prepared();
    let mut passes = Passes::new(plan(&prepared)).unwrap();
    passes.enter_epoch(2).unwrap();
    let before = passes.cursor().clone();
    let other = Cursor { snapshot: 9, ..before.clone() };
    let refused = passes.go_to(other).unwrap_err().to_string();
    assert_eq!(refused, "the cursor is of snapshot 9, expected 1");
    assert_eq!(passes.cursor(), &before);
}
