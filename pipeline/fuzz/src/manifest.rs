//! Hostile receipts, manifests, lists of sources, job configs, tables of parts and tombstones.

use std::path::Path;

use bytes::Bytes;
use catlip_pipeline::prep::Folder;
use catlip_pipeline::prep::parts_table::read_parts;
use catlip_pipeline::prep::tombstones::{Tombstones, read_tombstones, write_tombstones};
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{JobConfig, Manifest, PartName, Receipt, SchemaError, SourceList};

use crate::drive::{Random, mutate};

/// Bytes of a file that is mutated further.
const BYTES_MAX: usize = 1 << 15;

/// How a Parquet file begins.
const PARQUET: &[u8] = b"PAR1";

/// What the files turn on.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e99",
    b"18446744073709551616",
    b"\"format_version\": 1",
    b"\"format_version\": 3",
    b"\"part\": \"000000.1\"",
    b"\\u0000",
    b"\"rejects_of\": 1",
    b"../../",
    b"PAR1",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0",
    b"\x15\x00",
    b"\x19\x1c",
    b"\xff\xff\xff\xff\x0f",
    b"\x80",
];

/// A list of sources and a job's config as a job writes them.
const TEXTS: [&str; 2] = [
    r#"{"format_version": 2, "first": 3, "sources": [{"shard": "a.tar", "bytes": 10,
        "etag": "blake3-00"}, {"shard": "b.tar", "bytes": 7, "etag": "x",
        "samples": {"rejects_of": 1}}]}"#,
    r#"{"format_version": 2, "config_hash": "1a2b3c4d", "config": {"image": {"quality": 90}},
        "column_sets": [{"name": "meta", "schema": "meta-1"}]}"#,
];

/// What is read must read again after it was written, and be of a version that we know.
fn again<T: serde::Serialize + PartialEq + std::fmt::Debug>(
    found: Result<T, SchemaError>,
    version: fn(&T) -> u32,
    read: fn(&[u8]) -> Result<T, SchemaError>,
) -> bool {
    match found {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
        Ok(found) => {
            assert!(version(&found) <= FORMAT_VERSION, "a version that is not ours was read");
            let text = serde_json::to_vec(&found).expect("what was read is written");
            assert_eq!(read(&text).expect("what was written is read"), found);
            true
        }
    }
}

/// Reads the bytes as each of our files.
///
/// # Panics
///
/// If a promise is broken.
pub fn check(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(PARQUET) {
        let bytes = Bytes::copy_from_slice(bytes);
        let parts = read_parts(Path::new("parts.parquet"), bytes.clone());
        let dropped = read_tombstones(Path::new("tombstones.parquet"), bytes);
        assert!(parts.is_err() || dropped.is_err(), "one file is two tables");
        return match (parts, dropped) {
            (Ok(_), _) => "a table of parts",
            (_, Ok(found)) => {
                assert!(found.count() < u64::MAX);
                "tombstones"
            }
            (Err(error), Err(_)) => {
                assert!(!error.to_string().is_empty());
                "no table"
            }
        };
    }
    let read = [
        again(Receipt::from_json(bytes), |r| r.format_version, Receipt::from_json),
        again(Manifest::from_json(bytes), |m| m.format_version, Manifest::from_json),
        again(SourceList::from_json(bytes), |s| s.format_version, SourceList::from_json),
        again(JobConfig::from_json(bytes), |c| c.format_version, JobConfig::from_json),
    ];
    match read.iter().any(|&is_read| is_read) {
        true => "json that is read",
        false => "json refused",
    }
}

/// Makes one file after another out of those of a data set.
///
/// # Panics
///
/// If the data set of the tests is not there.
pub fn maker() -> impl FnMut(&mut Random, &mut Vec<u8>) {
    let folder = format!("{}/../../tests/data/format-1", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read(format!("{folder}/{name}")).expect("a file of the tests");
    let mut tombstones = Tombstones::default();
    for (shard, row) in [(0, 3), (0, 5), (7, 0)] {
        tombstones.drop_row(PartName { shard, cut: 0 }, 20, row);
    }
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let written = write_tombstones(&Folder::from(scratch.path()), "t.parquet", &tombstones);
    written.expect("the scratch file is writable").keep().expect("the scratch file is writable");
    let mut seeds = vec![
        read("manifest/00000001.json"),
        read("receipts/part-000000-4b9efa0f.json"),
        read("manifest/00000001.parts.parquet"),
        std::fs::read(scratch.path().join("t.parquet")).expect("it was written just now"),
    ];
    seeds.extend(TEXTS.map(|text| text.as_bytes().to_vec()));
    move |random, file| {
        if file.is_empty() || file.len() > BYTES_MAX || random.below(4) == 0 {
            file.clone_from(&seeds[random.below(seeds.len())]);
        }
        for _ in 0..=random.below(3) {
            mutate(file, random, &WORDS, &seeds);
        }
    }
}
