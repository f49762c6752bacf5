//! Commits that meet each other.

use std::path::Path;
use std::sync::Mutex;

use catlip_schemas::PartName;

use super::*;

fn draft(old: Option<&DataSet>, change: &str) -> Draft {
    let mut draft = old.map_or_else(
        || Draft {
            config_hash: "0".repeat(64),
            config: serde_json::json!({}),
            totals: Counts::default(),
            column_sets: Vec::new(),
            parts: Vec::new(),
            dropped: Tombstones::default(),
            change: String::new(),
        },
        Draft::of,
    );
    draft.totals.samples += 1;
    draft.change = change.to_owned();
    draft
}

fn snapshots(folder: &Path) -> Vec<(u64, Option<u64>, Option<String>)> {
    let folder = &Folder::from(folder);
    let numbers = 1..=crate::prep::snapshot::newest_number(folder).unwrap();
    let read = |n| crate::prep::snapshot::read_manifest(folder, n).unwrap();
    numbers.map(read).map(|m| (m.totals.samples, m.parent, m.change)).collect()
}

#[test]
fn each_of_many_writers_at_once_makes_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let folder = Folder::from(dir.path());
            scope.spawn(move || {
                for turn in 0..5 {
                    commit(&folder, |old| Ok(draft(old, &format!("{thread}.{turn}")))).unwrap();
                }
            });
        }
    });
    let all = snapshots(dir.path());
    assert_eq!(all.len(), 40);
    for (number, (samples, parent, change)) in (1..).zip(&all) {
        assert_eq!((*samples, *parent), (number, Some(number - 1).filter(|&n| n > 0)));
        assert_eq!(change.is_some(), number > 1);
        DataSet::open_at(dir.path(), Some(number)).unwrap();
    }
}

#[test]
fn who_comes_second_drafts_from_what_the_first_made() {
    let dir = tempfile::tempdir().unwrap();
    let folder = &Folder::from(dir.path());
    commit(folder, |old| Ok(draft(old, "first"))).unwrap();
    let part = PartName { shard: 0, cut: 0 };
    let seen = Mutex::new(Vec::new());
    let manifest = commit(folder, |old| {
        let newest = old.unwrap().manifest.snapshot;
        let turn = seen.lock().unwrap().len();
        seen.lock().unwrap().push(newest);
        if turn == 0 {
            // Somebody else drops a row between our reading and our commit.
            commit(folder, |old| {
                let mut other = draft(old, "other");
                other.dropped.drop_row(part, 3, 1);
                Ok(other)
            })?;
        }
        Ok(draft(old, "ours"))
    })
    .unwrap();
    assert_eq!((manifest.snapshot, &seen.lock().unwrap()[..]), (3, &[1, 2][..]));
    let data = DataSet::open(dir.path()).unwrap();
    assert!(data.dropped.is_dropped(part, 1) && data.manifest.totals.samples == 3);
    assert!(data.manifest.parts.file.ends_with("00000003.parts.parquet"));
}

#[test]
fn a_draft_that_changes_nothing_makes_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let folder = &Folder::from(dir.path());
    commit(folder, |old| Ok(draft(old, ""))).unwrap();
    std::fs::remove_file(dir.path().join("README.md")).unwrap();
    let again = commit(folder, |old| Ok(Draft::of(old.unwrap()))).unwrap();
    assert_eq!(again.snapshot, 1);
    assert!(dir.path().join("README.md").is_file(), "the README is made good");
}

#[test]
fn a_snapshot_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(DataSet::open_newest(dir.path()).unwrap().is_none());
    commit(&Folder::from(dir.path()), |old| Ok(draft(old, ""))).unwrap();
    let error = DataSet::open_at(dir.path(), Some(4)).unwrap_err().to_string();
    assert!(error.ends_with("has no snapshot 4, the newest is 1"), "{error}");
}
