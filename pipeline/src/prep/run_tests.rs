//! The whole job on small shards that the tests draw themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::PrepConfig;
use crate::image::Image;
use crate::image::jpeg::{Chroma, encode};
use crate::prep::columns::RejectRow;
use crate::prep::part::PartWatch;
use crate::prep::snapshot::DataSet;
use crate::prep::verify::verify;

fn picture(seed: u8, width_px: u32, height_px: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [x as u8, y as u8, seed];
    let pixels =
        (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y))).collect();
    encode(&Image { width_px, height_px, pixels }, 90, Chroma::Yuv420).unwrap()
}

pub fn shard(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, &data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn samples(first: u8, count: u8) -> Vec<(String, Vec<u8>)> {
    (first..first + count)
        .flat_map(|i| {
            [
                (format!("{i:04}.jpg"), picture(i, 40, 30)),
                (format!("{i:04}.txt"), b"a dog and two bicycles".to_vec()),
            ]
        })
        .collect()
}

pub struct Job {
    dir: tempfile::TempDir,
    shards: ShardList,
}

fn pattern(dir: &tempfile::TempDir) -> String {
    dir.path().join("s-*.tar").to_str().unwrap().to_owned()
}

impl Job {
    pub fn new(shards: &[Vec<u8>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (i, bytes) in shards.iter().enumerate() {
            std::fs::write(dir.path().join(format!("s-{i}.tar")), bytes).unwrap();
        }
        let shards = ShardList::expand(&[pattern(&dir)], None).unwrap();
        Self { shards, dir }
    }

    pub fn pattern(&self) -> String {
        pattern(&self.dir)
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn run(&self, name: &str, settings: &[&str]) -> Result<PrepSummary, PrepError> {
        let mut all = vec!["image.rows_per_group=4".to_owned()];
        all.extend(settings.iter().map(|s| s.to_string()));
        let plan = PrepPlan::new(PrepConfig::load(None, &all).unwrap()).unwrap();
        let stop = AtomicBool::new(false);
        run(&self.shards, &self.output(name), &plan, &PrepMetrics::default(), &stop)
    }
}

pub fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn shards_become_parts_of_exact_row_groups() {
    let job = Job::new(&[shard(&samples(0, 10)), shard(&samples(10, 3))]);
    let summary = job.run("out", &["image.short_side_px=16"]).unwrap();
    assert_eq!((summary.parts, summary.totals.rows, summary.totals.captions), (2, 13, 13));
    let data = DataSet::open(&job.output("out")).unwrap();
    let groups = |part: &crate::prep::snapshot::Part| -> Vec<u32> {
        part.files["images"].groups.iter().map(|g| g.rows).collect()
    };
    assert_eq!(groups(&data.parts[0]), [4, 4, 2]);
    assert_eq!(groups(&data.parts[1]), [3]);
    let synsets = data.read_synsets(&data.parts[0]).unwrap();
    let keys: Vec<_> = synsets[9][0].0.iter().map(|s| s.corenet_key()).collect();
    assert_eq!(keys[0], "n2084071");
    assert_eq!(data.read_captions(&data.parts[1]).unwrap()[2], ["a dog and two bicycles"]);
    let ids = data.read_sample_ids(&data.parts[1]).unwrap();
    assert_eq!(ids[0], catlip_schemas::SampleId::new("s-1.tar", b"0010"));
    let checked = verify(&job.output("out"), None, false).unwrap();
    assert_eq!((checked.rows, checked.files, checked.rubbish.len()), (13, 10, 0));
}

#[test]
fn the_same_input_gives_the_same_bytes_with_any_number_of_threads() {
    let job = Job::new(&[shard(&samples(0, 9)), shard(&samples(9, 9)), shard(&samples(18, 2))]);
    job.run("one", &["runtime.threads=1"]).unwrap();
    job.run("four", &["runtime.threads=4"]).unwrap();
    assert!(files_of(&job.output("one")) == files_of(&job.output("four")));
}

#[test]
fn a_finished_job_does_nothing_and_a_half_one_goes_on() {
    let job = Job::new(&[shard(&samples(0, 5)), shard(&samples(5, 5))]);
    job.run("whole", &[]).unwrap();
    let expected = files_of(&job.output("whole"));
    assert_eq!(job.run("whole", &[]).unwrap().parts_made, 0);
    // Loses the second part and the commit, as a kill between them would.
    for (name, _) in expected.iter().filter(|(n, _)| n.contains("000001") || n.contains("README")) {
        std::fs::remove_file(job.output("whole").join(name)).unwrap();
    }
    let _ = std::fs::remove_file(job.output("whole").join("manifest/00000001.json"));
    assert_eq!(job.run("whole", &[]).unwrap().parts_made, 1);
    assert!(files_of(&job.output("whole")) == expected);
}

#[test]
fn an_output_of_another_run_is_refused() {
    let job = Job::new(&[shard(&samples(0, 2))]);
    job.run("out", &[]).unwrap();
    let error = job.run("out", &["image.quality=50"]).unwrap_err();
    assert!(matches!(error, PrepError::Change(ChangeError::ConfigChanged { .. })), "{error}");
    std::fs::create_dir(job.output("home")).unwrap();
    std::fs::write(job.output("home").join("thesis.tex"), b"").unwrap();
    let error = job.run("home", &[]).unwrap_err().to_string();
    assert!(error.contains("holds `thesis.tex`"), "{error}");
}

#[test]
fn bad_samples_go_to_the_ledger_and_the_rest_becomes_rows() {
    let mut files = samples(0, 4);
    files[0].1.clear();
    files[3].1 = b"caf\xe9".to_vec();
    files.push(("0009.txt".to_owned(), b"no image".to_vec()));
    let job = Job::new(&[shard(&files)]);
    let summary = job.run("out", &[]).unwrap();
    assert_eq!((summary.totals.samples, summary.totals.rows), (5, 2));
    let reasons: Vec<_> = summary.totals.rejects.into_iter().collect();
    let expected = [("caption-not-utf8", 1), ("image-empty", 1), ("image-missing", 1)];
    assert_eq!(reasons, expected.map(|(r, n)| (r.to_owned(), n)));
}

#[test]
fn a_damaged_shard_is_not_committed_until_it_is_accepted() {
    let whole = shard(&samples(0, 6));
    let job = Job::new(&[shard(&samples(6, 2)), whole[..whole.len() / 2].to_vec()]);
    let error = job.run("out", &[]).unwrap_err();
    assert!(matches!(&error, PrepError::DamagedShards { shards, .. } if shards.len() == 1));
    assert_eq!(error.exit_code(), crate::error::exit::BUDGET);
    assert!(DataSet::open(&job.output("out")).is_err());
    let summary = job.run("out", &["budget.damaged_shards=1"]).unwrap();
    assert_eq!(summary.parts_made, 0);
    assert!(summary.totals.rows >= 4);
}

#[test]
fn too_many_bad_samples_stop_the_job() {
    let mut files = samples(0, 8);
    files.iter_mut().filter(|(n, _)| n.ends_with("jpg")).for_each(|(_, d)| d.truncate(30));
    let job = Job::new(&[shard(&files)]);
    let error = job.run("out", &["budget.probation=5"]).unwrap_err();
    assert!(matches!(error, PrepError::FailureRate { failed: 8, samples: 8, .. }), "{error}");
}

#[test]
fn a_shard_that_changed_is_noticed() {
    let job = Job::new(&[shard(&samples(0, 3))]);
    job.run("out", &[]).unwrap();
    std::fs::write(job.shards.0[0].path(), shard(&samples(3, 3))).unwrap();
    let error = job.run("out", &[]).unwrap_err();
    assert!(matches!(error, PrepError::Change(ChangeError::SourcesChanged { .. })), "{error}");
}

#[test]
fn a_flipped_byte_is_found() {
    let job = Job::new(&[shard(&samples(0, 6))]);
    job.run("out", &[]).unwrap();
    for (name, bytes) in files_of(&job.output("out")) {
        if !name.ends_with(".parquet") {
            continue;
        }
        let path = job.output("out").join(&name);
        let mut broken = bytes.clone();
        broken[bytes.len() / 2] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        let error = verify(&job.output("out"), None, false).unwrap_err();
        assert_eq!(error.exit_code(), crate::error::exit::DAMAGED, "{name}: {error}");
        std::fs::write(&path, &bytes).unwrap();
    }
    verify(&job.output("out"), None, false).unwrap();
}

fn reasons(summary: &PrepSummary) -> Vec<(&str, u64)> {
    summary.totals.rejects.iter().map(|(reason, count)| (reason.as_str(), *count)).collect()
}

#[test]
fn filtered_samples_are_in_the_ledger_and_charged_to_no_budget() {
    let mut files = samples(0, 6);
    files.push(("0006.jpg".to_owned(), picture(0, 40, 30)));
    files.push(("0006.txt".to_owned(), b"the image of the first".to_vec()));
    files.push(("0007.jpg".to_owned(), picture(7, 90, 20)));
    files.push(("0007.txt".to_owned(), b"a wide one".to_vec()));
    files.push(("0007.json".to_owned(), br#"{"score": 0.5}"#.to_vec()));
    let job = Job::new(&[shard(&files)]);
    let keys = job.dir.path().join("keys");
    std::fs::write(&keys, "0001\n0002\n").unwrap();
    let strict = ["budget.probation=1", "budget.failure_rate=0.0"];
    let run =
        |name: &str, setting: &str| job.run(name, &[&strict[..], &[setting]].concat()).unwrap();
    let drop_keys = format!("filter.drop_keys={}", keys.display());
    for (setting, expected) in [
        ("filter.duplicates=drop", ("filter-duplicate", 1)),
        ("filter.side_min_px=21", ("filter-side", 1)),
        ("filter.aspect_max=4.0", ("filter-aspect", 1)),
        ("filter.captions_min=2", ("filter-captions", 8)),
        ("filter.caption_bytes_min=11", ("filter-captions", 1)),
        ("filter.where=[\"score > 0.4\"]", ("filter-where", 7)),
        (drop_keys.as_str(), ("filter-key", 2)),
    ] {
        let summary = run(expected.0, setting);
        assert_eq!(reasons(&summary), [expected], "{setting}");
        assert_eq!(summary.totals.rows, 8 - expected.1);
        std::fs::remove_dir_all(job.output(expected.0)).unwrap();
    }
}

#[test]
fn the_first_of_equal_images_stays() {
    let mut files = samples(0, 2);
    files.extend(samples(0, 1).into_iter().map(|(name, data)| (name.replace("0000", "9"), data)));
    let job = Job::new(&[shard(&files)]);
    job.run("out", &["filter.duplicates=drop"]).unwrap();
    let data = DataSet::open(&job.output("out")).unwrap();
    let ids = data.read_sample_ids(&data.parts[0]).unwrap();
    let id = |key: &[u8]| catlip_schemas::SampleId::new("s-0.tar", key);
    assert_eq!(ids, [id(b"0000"), id(b"0001")]);
}

#[test]
fn a_kept_image_is_the_source_byte_by_byte() {
    let turned = include_bytes!("../../tests/data/images/turned_6.jpg");
    let gif = include_bytes!("../../tests/data/images/animated.gif");
    let mut cut = picture(1, 40, 30);
    cut.truncate(cut.len() / 2);
    let file = |name: &str, data: &[u8]| (name.to_owned(), data.to_vec());
    let files = [
        file("a.jpg", turned),
        file("a.txt", b"a dog"),
        file("b.gif", gif),
        file("b.txt", b"a cat"),
        file("c.jpg", &cut),
        file("c.txt", b"a cow"),
    ];
    let job = Job::new(&[shard(&files)]);
    let lenient = "budget.failure_rate=1.0";
    let summary = job.run("out", &["image.mode=keep", lenient]).unwrap();
    assert_eq!(reasons(&summary), [("image-corrupt", 1)]);
    let data = DataSet::open(&job.output("out")).unwrap();
    let images = [first_group_image(&data, 0), first_group_image(&data, 1)];
    assert_eq!(images, [turned.to_vec(), gif.to_vec()]);
    let unchecked = job.run("fast", &["image.mode=keep", "image.check=false", lenient]).unwrap();
    assert_eq!(unchecked.totals.rows, 3);
}

#[test]
fn referenced_images_are_found_in_the_shards() {
    let source = shard(&samples(0, 5));
    let job = Job::new(std::slice::from_ref(&source));
    job.run("out", &["image.mode=reference"]).unwrap();
    assert!(!job.output("out").join("images").exists());
    let data = DataSet::open(&job.output("out")).unwrap();
    assert!(!data.parts[0].files.contains_key("images"));
    assert_eq!(verify(&job.output("out"), None, false).unwrap().rows, 5);
    let meta = job.output("out").join(&data.parts[0].files["meta"].file);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        std::fs::File::open(meta).unwrap(),
    );
    let batch = reader.unwrap().build().unwrap().next().unwrap().unwrap();
    let numbers = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(column).clone()
    };
    let (offsets, lengths) = (numbers("source_offset"), numbers("source_bytes"));
    for row in 0..5 {
        let (start, length) = (offsets.value(row) as usize, lengths.value(row) as usize);
        assert_eq!(source[start..start + length], picture(row as u8, 40, 30), "row {row}");
    }
}

#[test]
fn a_compressed_shard_cannot_be_referenced() {
    let packed = zstd::encode_all(&shard(&samples(0, 2))[..], 1).unwrap();
    let job = Job::new(&[packed]);
    let error = job.run("out", &["image.mode=reference"]).unwrap_err();
    assert!(matches!(error, PrepError::NoByteRanges { .. }), "{error}");
    assert!(error.hint().unwrap().contains("image.mode=keep"));
}

#[test]
fn a_turned_image_is_stored_upright() {
    let turned = include_bytes!("../../tests/data/images/turned_6.jpg");
    let files = [("a.jpg".to_owned(), turned.to_vec()), ("a.txt".to_owned(), b"a dog".to_vec())];
    let job = Job::new(&[shard(&files)]);
    job.run("out", &[]).unwrap();
    let data = DataSet::open(&job.output("out")).unwrap();
    let options = crate::image::DecodeOptions::default();
    let header = crate::image::Header::read(&first_group_image(&data, 0), &options).unwrap();
    assert_eq!((header.stored_px, header.upright_px()), ((16, 32), (16, 32)));
}

#[test]
fn an_avif_is_a_row_or_an_entry_that_names_the_feature() {
    let avif = include_bytes!("../../tests/data/avif/turned_6.avif");
    let files = [("a.avif".to_owned(), avif.to_vec()), ("a.txt".to_owned(), b"a dog".to_vec())];
    let job = Job::new(&[shard(&files)]);
    let summary = job.run("out", &[]).unwrap();
    let data = DataSet::open(&job.output("out")).unwrap();
    if crate::image::READS_AVIF {
        assert_eq!((summary.totals.rows, reasons(&summary)), (1, vec![]));
        let image = crate::image::decode(&first_group_image(&data, 0), &Default::default());
        let image = image.unwrap();
        assert_eq!((image.width_px, image.height_px), (16, 32));
    } else {
        assert_eq!(reasons(&summary), [("image-unsupported", 1)]);
        let ledger = job.output("out").join(&data.parts[0].files["rejects"].file);
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
            std::fs::File::open(ledger).unwrap(),
        );
        let batch = reader.unwrap().build().unwrap().next().unwrap().unwrap();
        let messages: &arrow_array::StringArray =
            arrow_array::cast::AsArray::as_string(batch.column_by_name("message").unwrap());
        let expected = "AVIF: this build has no feature `avif`; build with `--features avif`";
        assert_eq!(messages.value(0), expected);
    }
}

/// A stored image of the first row group, as the feed reads it.
fn first_group_image(data: &DataSet, row: u32) -> Vec<u8> {
    let source = {
        let data = std::sync::Arc::new(data.clone());
        crate::feed::Source::open(data, None, &Default::default()).unwrap()
    };
    let memory = crate::feed::memory::Memory::new(u64::MAX, "".into());
    let group = source.read_group(&data.parts[0], 0, &memory).unwrap();
    group.image(row, &mut Vec::new()).unwrap().to_vec()
}

#[test]
fn good_samples_that_end_the_probation_are_judged_too() {
    let settings = ["budget.probation=60", "budget.failure_rate=0.0"].map(str::to_owned);
    let budget = PrepConfig::load(None, &settings).unwrap().budget;
    let (stop, metrics) = (AtomicBool::new(false), PrepMetrics::default());
    let watch = Watch::new(&budget, &stop, &metrics, 2);
    let bad = RejectRow {
        key: "b".to_owned(),
        source_shard: "a.tar".to_owned(),
        source_offset: 512,
        stage: "image",
        reason: "image-format",
        message: "no image".to_owned(),
    };
    watch.check(40, &[bad]).unwrap();
    let error = watch.check(40, &[]).unwrap_err().to_string();
    let expected = "too many bad samples: 1 of 80 (1.2 %), the budget is 0.0 % (last: shard a.tar";
    assert!(error.starts_with(expected), "{error}");
}
