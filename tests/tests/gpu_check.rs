//! `benches/gpu/check.sh` and `selftest` at toy sizes on the CPU: what they write on a day with a
//! GPU has this shape, and every part of the command really runs.

#![expect(clippy::unwrap_used, reason = "a command that cannot run fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use catlip_tests::{Place, peer, program, root, run, told};
use serde_json::Value;

const TOP: [&str; 8] =
    ["card", "ceiling_tflops", "commit", "copy_tb_s", "driver", "parts", "rows", "torch"];
const ROW: [&str; 11] = [
    "batch",
    "data_wait",
    "images_per_s",
    "impl",
    "mfu_ceiling",
    "mfu_datasheet",
    "model",
    "note",
    "part",
    "peak_gb",
    "size",
];
const PARTS: [&str; 6] = ["ceiling", "feed", "peers", "selftest", "step-b16", "step-lh"];

fn check(place: &Place, more: &[&str]) -> (i32, String, String) {
    let python = peer("python").unwrap_or_else(|| PathBuf::from("python3"));
    let bin = PathBuf::from(program("catlip-train").get_program()).parent().unwrap().to_path_buf();
    let mut command = Command::new(root().join("benches/gpu/check.sh"));
    // Much time for a machine that is busy with other tests.
    command.args(["--tiny", "--secs", "0", "--sustained", "0", "--budget", "3600"]).args(more);
    command.arg("--python").arg(python).arg("--bin").arg(bin).arg("--out").arg(place.path("out"));
    told(&command.output().unwrap())
}

fn written(place: &Place) -> Value {
    serde_json::from_slice(&fs::read(place.path("out/gpu-check.json")).unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Whether a row was measured; else its note says why not.
fn is_measured(row: &Value) -> bool {
    let rate = row["images_per_s"].as_f64();
    let note = row["note"].as_str().unwrap();
    assert_eq!(rate.is_none(), note.contains("skipped: "), "{row}");
    rate.is_some_and(|rate| rate > 0.0)
}

#[test]
fn a_tiny_check_runs_every_part_and_writes_rows_of_one_shape() {
    let (place, has_torch) = (Place::new(), peer("python").is_some());
    let (code, out, err) = check(&place, &[]);
    assert_eq!(code, 0, "{out}{err}");
    let found = written(&place);
    assert_eq!(keys(&found), TOP);
    let parts: BTreeSet<_> =
        found["parts"].as_array().unwrap().iter().map(|p| p["part"].as_str().unwrap()).collect();
    assert_eq!(parts.into_iter().collect::<Vec<_>>(), PARTS);
    for part in found["parts"].as_array().unwrap() {
        assert_eq!(part["card_uuid"], "none", "{part}");
        assert_eq!(part["binary_sha256"].as_str().unwrap().len(), 64, "{part}");
        assert!(!part["boot"].as_str().unwrap().is_empty(), "{part}");
    }

    let rows = found["rows"].as_array().unwrap();
    let mut measured = BTreeSet::new();
    for row in rows {
        assert_eq!(keys(row), ROW, "{row}");
        let (part, kind) = (row["part"].as_str().unwrap(), row["impl"].as_str().unwrap());
        let is_peer = kind.starts_with("timm");
        assert_eq!(is_measured(row), has_torch || !is_peer, "{row}");
        if is_measured(row) {
            measured.insert(format!("{part} {kind}"));
            assert_eq!(row["mfu_ceiling"].is_number(), has_torch, "{row}");
        }
        assert_eq!(row["data_wait"].is_number(), kind == "feed", "{row}");
    }
    let ours = [
        "feed catlip-fused",
        "feed feed",
        "step-b16 catlip-fused",
        "step-b16 catlip-plain",
        "step-lh catlip-fused",
    ];
    let peers = [
        "peers timm-compiled",
        "peers timm-eager",
        "step-b16 timm-compiled",
        "step-b16 timm-eager",
        "step-lh timm-compiled",
        "step-lh timm-eager",
    ];
    let expected = ours.into_iter().chain(peers.into_iter().filter(|_| has_torch));
    assert_eq!(measured, expected.map(str::to_owned).collect(), "{out}{err}");
    assert_eq!(found["ceiling_tflops"].is_number(), has_torch);

    // In turns: ours, the peer, ours, the peer.
    if has_torch {
        let raw = fs::read_to_string(place.path("out/step-b16.raw.jsonl")).unwrap();
        let lines: Vec<Value> =
            raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let order: Vec<_> = lines
            .iter()
            .filter(|line| line["batch"] == 8 && line["model"] == "B/16" && line["size"] == "32")
            .map(|line| line["impl"].as_str().unwrap())
            .take_while(|kind| *kind != "catlip-plain")
            .collect();
        let turn = ["catlip-fused", "timm-compiled", "timm-eager"];
        assert_eq!(order, [turn, turn].concat());
    }
    another_binary_begins_a_file_of_its_own(&place);
}

/// A table never mixes binaries: what another one wrote is moved aside, and no table takes both.
fn another_binary_begins_a_file_of_its_own(place: &Place) {
    let path = place.path("out/gpu-check.json");
    let mut other = written(place);
    for part in other["parts"].as_array_mut().unwrap() {
        part["binary_sha256"] = "0".repeat(64).into();
    }
    fs::write(&path, other.to_string()).unwrap();
    let (code, out, err) = check(place, &["--only", "selftest"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("moved to gpu-check.before-1.json"), "{out}");
    assert_eq!(written(place)["rows"].as_array().unwrap().len(), 0);

    let both = [path, place.path("out/gpu-check.before-1.json")];
    let table = Command::new("python3")
        .arg(root().join("benches/gpu/record.py"))
        .args(&both)
        .output()
        .unwrap();
    let (code, _, err) = told(&table);
    assert!(code != 0 && err.contains("of 2 binary_sha256"), "{err}");
}

#[test]
fn the_program_tests_itself_on_the_cpu() {
    let (code, out, err) = told(&run("catlip-train", &["selftest", "--device", "cpu"]));
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<_> = out.lines().collect();
    let count = |kind: &str| lines.iter().filter(|line| line.starts_with(kind)).count();
    let last = format!("{} ok, 0 failed, {} skipped", count("ok  "), count("skipped  "));
    assert_eq!(lines.last(), Some(&last.as_str()));
    // Locked pages, NCCL, kernels and augmentation have nothing to show on a CPU.
    assert_eq!((count("ok  "), count("skipped  ")), (13, 4), "{out}");
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_that_says_why() {
    let (code, out, err) = told(&run("catlip-train", &["selftest", "--device", "cuda:77"]));
    assert!(code != 0 && out.is_empty(), "{out}");
    assert!(err.contains("device `cuda:77` was asked for"), "{err}");
}
