//! Every kernel compiles for the cards that we know, without a card or a driver.
//!
//! `scripts/setup.sh --tests` fetches the compiler; without it these tests say that they are
//! skipped.

use std::path::{Path, PathBuf};

use super::super::cache::compiled_by;
use super::super::nvrtc::Nvrtc;
use super::super::{FILES, File, KernelError};

/// A100, H100 and H200.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90"];

/// Kernels whose blocks have 1024 threads.
const WHOLE_BLOCKS: [&str; 2] = ["sum_partials", "verdict"];

/// Where the set-up puts the compiler.
fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/nvrtc/lib/libnvrtc.so.13")
}

/// The compiler, or none after a word of it.
fn compiler() -> Option<Nvrtc> {
    let library = library();
    if !library.exists() {
        eprintln!("skipped: no NVRTC at {}: run scripts/setup.sh --tests", library.display());
        return None;
    }
    Some(Nvrtc::open(&library).unwrap())
}

/// No warning, no register spilled to memory, and no block that asks for more registers than there
/// are: a multiprocessor has 65,536, so 640 threads of a norm may have 102 each, the 1024 of a
/// block that adds up partial sums 64.
#[test]
fn every_kernel_compiles_for_every_card_within_its_registers() {
    let Some(nvrtc) = compiler() else { return };
    for (file, architecture) in FILES.iter().flat_map(|f| ARCHITECTURES.map(|a| (f, a))) {
        let compiled = nvrtc.compile(file, architecture, &["--ptxas-options=-v"]).unwrap();
        assert_eq!(&compiled.cubin[..4], b"\x7fELF");
        let told = compiled.log;
        assert!(!told.contains("warning") && !told.contains("error"), "{}: {told}", file.name);
        for kernel in file.kernels {
            let entry = format!("Compiling entry function '{kernel}' for '{architecture}'");
            let (_, of_it) = told.split_once(&entry).unwrap_or_else(|| panic!("{entry}: {told}"));
            let (spills, of_it) = of_it.split_once("bytes spill stores").unwrap();
            assert!(spills.ends_with(" 0 "), "{kernel} for {architecture} spills: {spills}");
            let (_, used) = of_it.split_once("Used ").unwrap();
            let used: u32 = used.split_once(" registers").unwrap().0.parse().unwrap();
            let most = if WHOLE_BLOCKS.contains(kernel) { 64 } else { 102 };
            assert!(used <= most, "{kernel} for {architecture}: {used} registers");
        }
    }
}

#[test]
fn a_text_that_is_wrong_is_refused_with_file_line_and_what_is_wrong() {
    let Some(nvrtc) = compiler() else { return };
    let file = File { name: "wrong.cu", text: "__global__ void a() {\n  b();\n}\n", kernels: &[] };
    let error = nvrtc.compile(&file, "sm_90", &[]).unwrap_err();
    assert!(matches!(error, KernelError::Compile { file: "wrong.cu", .. }));
    let text = error.to_string();
    assert!(text.contains("wrong.cu(2)") && text.contains("\"b\" is undefined"), "{text}");
    assert!(!error.hint().is_empty());
    let error = nvrtc.compile(&FILES[0], "sm_1", &[]).unwrap_err().to_string();
    assert!(error.contains("norm.cu does not compile for sm_1"), "{error}");
}

#[test]
fn what_was_compiled_is_taken_from_the_folder_the_next_time() {
    let Some(nvrtc) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let first = compiled_by(nvrtc, Some(folder.path()), "sm_80").unwrap();
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let kept = names();
    assert_eq!(kept.len(), FILES.len());
    let written = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    let times: Vec<_> = kept.iter().map(written).collect();
    // One is cut: it alone is compiled again.
    let whole = std::fs::read(&kept[0]).unwrap();
    std::fs::write(&kept[0], &whole[..whole.len() / 2]).unwrap();
    let second = compiled_by(nvrtc, Some(folder.path()), "sm_80").unwrap();
    assert!(first.iter().zip(&second).all(|(a, b)| a.cubin == b.cubin));
    assert_eq!(std::fs::read(&kept[0]).unwrap(), whole);
    assert_eq!(names(), kept);
    assert!(kept[1..].iter().map(written).eq(times[1..].iter().copied()));
}
