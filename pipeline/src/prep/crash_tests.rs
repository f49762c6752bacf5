//! Deaths at every step that touches the disk, and what the next start makes of the rest.
//!
//! A step is a creation, write, fsync, rename, link or removal below a folder that is watched. From
//! the step at which the job is to die on, every step fails, so nothing more reaches the disk: what
//! is left is what a kill would leave. For tests only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use catlip_schemas::{SampleId, Synsets};

use super::drop_rows::{RowList, drop_rows};
use super::relabel::relabel;
use super::run::{Share, commit_shares, run, run_share};
use super::snapshot::DataSet;
use super::verify::verify;
use crate::caption::nouns::NounsOptions;
use crate::caption::{Explanation, LabelRule, rule};
use crate::config::PrepConfig;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::PrepPlan;
use crate::source::list::ShardPlace;
use crate::source::{ShardList, ShardUrl};

struct Watched {
    folder: PathBuf,
    dies_at: usize,
    steps: Vec<&'static str>,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// Counts a step; fails if the job is dead by now.
pub fn may_die(step: &'static str, path: &Path) -> io::Result<()> {
    let mut all = WATCHED.lock().unwrap();
    let Some(watched) = all.iter_mut().find(|w| path.starts_with(&w.folder)) else {
        return Ok(());
    };
    if watched.steps.len() >= watched.dies_at {
        return Err(io::Error::other("the job died here"));
    }
    watched.steps.push(step);
    Ok(())
}

/// Runs `work`, which dies at its step `dies_at`; gives the steps that it took.
fn until(folder: &Path, dies_at: usize, work: impl FnOnce()) -> Vec<&'static str> {
    WATCHED.lock().unwrap().push(Watched { folder: folder.into(), dies_at, steps: Vec::new() });
    work();
    let mut all = WATCHED.lock().unwrap();
    let at = all.iter().position(|w| w.folder == folder).unwrap();
    all.swap_remove(at).steps
}

struct First;

impl LabelRule for First {
    fn id(&self) -> &'static str {
        "first-1"
    }

    fn synsets(&self, caption: &str) -> Synsets {
        self.explain(caption).synsets()
    }

    fn explain(&self, caption: &str) -> Explanation {
        let mut explanation = rule("corenet", &NounsOptions::default()).unwrap().explain(caption);
        let first = explanation.steps.iter().position(|step| step.outcome.is_kept());
        explanation.steps.truncate(first.map_or(0, |first| first + 1));
        explanation
    }
}

fn shards(folder: &Path) -> ShardList {
    let jpeg = crate::image::jpeg::encode(
        &crate::image::Image { width_px: 8, height_px: 8, pixels: vec![7; 192] },
        90,
        crate::image::jpeg::Chroma::Yuv420,
    )
    .unwrap();
    let shard = |name: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        for key in 0..3 {
            let files = [(format!("{key}.jpg"), &jpeg[..]), (format!("{key}.txt"), b"two dogs")];
            for (file, data) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, file, data).unwrap();
            }
        }
        let path = folder.join(name);
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        ShardUrl { place: ShardPlace::Local(path), name: name.to_owned() }
    };
    ShardList(["a.tar", "b.tar"].map(shard).to_vec())
}

/// The life of a data set: made, grown by jobs that share the work, relabelled, a row dropped.
/// Each step that was done does nothing when it is done again.
fn life(shards: &ShardList, output: &Path) -> Result<(), PrepError> {
    let mut plan = PrepPlan::new(PrepConfig::default())?;
    let (metrics, stop) = (PrepMetrics::default(), AtomicBool::new(false));
    let first = ShardList(shards.0[..1].to_vec());
    run(&first, output, &plan, &metrics, &stop)?;
    for index in 0..2 {
        run_share(shards, output, &plan, Share { index, of: 2 }, &metrics, &stop)?;
    }
    commit_shares(output, None, false, 0)?;
    plan.rule = std::sync::Arc::new(First);
    relabel(&DataSet::open(output)?, &plan, &metrics, &stop)?;
    let id = SampleId::new("b.tar", b"1");
    let list = RowList::Ids([id].into());
    drop_rows(output, &list, Path::new("ids"), false)?;
    Ok(())
}

fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for path in std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with(".tmp") {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_death_at_any_step_is_made_good_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let shards = shards(dir.path());
    let whole = dir.path().join("whole");
    let steps = until(&whole, usize::MAX, || life(&shards, &whole).unwrap());
    let expected = files_of(&whole);
    for kind in ["create", "write", "sync", "rename", "link", "remove", "sync folder"] {
        assert!(steps.contains(&kind), "{kind}");
    }
    assert!(steps.len() > 120, "{} steps", steps.len());
    for dies_at in 0..steps.len() {
        let output = dir.path().join(format!("dies-at-{dies_at}"));
        until(&output, dies_at, || {
            let error = life(&shards, &output).err();
            // Only the last removal of a temporary file and what follows it may go unseen.
            assert!(error.is_some() || dies_at + 4 > steps.len(), "step {dies_at}");
        });
        // What is committed is whole, whenever the job died.
        if super::snapshot::newest_number(&super::Folder::from(&output)).unwrap() > 0 {
            verify(&output, None, false).unwrap();
        }
        life(&shards, &output).unwrap();
        let found = files_of(&output);
        let differ = |name: &&PathBuf| found.get(*name) != expected.get(*name);
        let all = found.keys().chain(expected.keys());
        let names: Vec<_> = all.filter(differ).collect();
        assert!(names.is_empty(), "step {dies_at} ({}): {names:?}", steps[dies_at]);
        std::fs::remove_dir_all(&output).unwrap();
    }
}
