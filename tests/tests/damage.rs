//! A data set that lost a file or a bit: found, never passed on, made again.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::fs;
use std::path::PathBuf;

use catlip_tests::{Place, files_of, samples};

/// A data set of two parts in `out`.
fn whole() -> Place {
    let place = Place::new();
    place.shard("a.tar", &samples(0, 5, 24));
    place.shard("b.tar", &samples(5, 5, 24));
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    place
}

fn file_of(place: &Place, set: &str, part: &str) -> PathBuf {
    let names = fs::read_dir(place.path("out").join(set)).unwrap();
    let mut paths = names.map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_str().unwrap().contains(part)).unwrap()
}

/// Flips a bit of the first row group.
fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    bytes[40] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_is_not_copied_into_files_with_checksums_of_their_own() {
    let place = whole();
    flip(&file_of(&place, "captions", "part-000001"));
    let out = place.text("out");
    let (code, _, err) = place.run(&["relabel", "--rule", "nouns", &out]);
    assert!(code == 7 && err.contains("CRC-32C of row group 0"), "{code} {err}");
    let (code, _, err) = place.run(&["reshuffle", &out, "--output", &place.text("new")]);
    assert!(code == 7 && err.contains("captions/part-000001"), "{code} {err}");
    assert!(!place.path("new/manifest").exists());
}

/// Labels decide what is learned, and `meta` which rows are held out: a bit of either is found by
/// whoever reads them, wherever it is.
#[test]
fn a_flipped_bit_of_labels_or_ids_is_never_passed_on() {
    let place = whole();
    let out = place.text("out");
    let synsets = file_of(&place, "synsets.corenet-1", "part-000001");
    let meta = file_of(&place, "meta", "part-000001");
    for (path, command) in [(&synsets, "vocab"), (&meta, "drop")] {
        let before = fs::read(path).unwrap();
        for at in (4..before.len()).step_by(before.len() / 7) {
            let mut bytes = before.clone();
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
            place.write("ids", b"00007\n");
            let (vocab, ids) = (place.text("v.parquet"), place.text("ids"));
            let words: &[&str] = match command {
                "vocab" => &["vocab", "--input", &out, "--output", &vocab],
                _ => &["drop", &out, "--keys", &ids],
            };
            let (code, _, err) = place.run(words);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(code == 7 && err.contains(name), "{command}, byte {at}: {code} {err}");
            assert!(err.contains("SHA-256") && err.contains("redo_lost"), "{err}");
        }
        fs::write(path, before).unwrap();
    }
}

#[test]
fn all_damaged_files_are_named_and_made_again_to_the_same_bytes() {
    let place = whole();
    let before = files_of(&place.path("out"));
    fs::remove_file(file_of(&place, "images", "part-000000")).unwrap();
    let meta = file_of(&place, "meta", "part-000001");
    fs::write(&meta, &fs::read(&meta).unwrap()[..100]).unwrap();
    let out = place.text("out");
    let (code, _, err) = place.run(&["verify", &out]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("2 files are not what the manifest says"), "{err}");
    assert!(err.contains("file is none, expected one of"), "{err}");
    assert!(err.contains("size in bytes is 100, expected"), "{err}");
    assert!(err.contains("runtime.redo_lost=true"), "{err}");
    // A reader that needs one of them says which.
    let ids = place.text("ids");
    place.write("ids", b"00001\n");
    let (code, _, err) = place.run(&["drop", &out, "--keys", &ids]);
    assert!(code == 7 && err.contains("meta/part-000001"), "{code} {err}");
    let (code, told, err) = place.prep("*.tar", "out", &["--set", "runtime.redo_lost=true"]);
    assert_eq!(code, 0, "{err}");
    assert!(told.contains("snapshot 1,"), "{told}");
    assert!(files_of(&place.path("out")) == before);
}

#[test]
fn a_path_without_a_data_set_is_missing_input() {
    let place = Place::new();
    for command in ["verify", "inspect", "commit"] {
        let words: &[&str] = if command == "commit" { &["--output"] } else { &[] };
        let nowhere = place.text("nowhere");
        let (code, _, err) = place.run(&[&[command], words, &[&nowhere]].concat());
        assert_eq!(code, 5, "{command}: {err}");
        assert!(err.contains("there is no data set at"), "{command}: {err}");
    }
}

#[test]
fn a_shuffle_writes_neither_into_its_source_nor_over_foreign_files() {
    let place = whole();
    let (source, inside) = (place.text("out"), place.text("out/images"));
    let (code, _, err) = place.run(&["reshuffle", &source, "--output", &inside]);
    assert!(code == 6 && err.contains("lies in the data set"), "{code} {err}");
    fs::create_dir(place.path("home")).unwrap();
    place.write("home/thesis.tex", b"");
    let (code, _, err) = place.run(&["reshuffle", &source, "--output", &place.text("home")]);
    assert!(code == 6 && err.contains("holds `thesis.tex`"), "{code} {err}");
    let output = place.text("tiny");
    let (code, _, err) =
        place.run(&["reshuffle", &source, "--output", &output, "--part-bytes", "0"]);
    assert!(code == 3 && err.contains("the data set has 10 rows"), "{code} {err}");
}
