//! Refuses a JPEG library without SIMD, which mozjpeg-sys builds silently if there is no nasm.
//!
//! In: the configuration that mozjpeg-sys wrote when it was built, and `CATLIP_NO_SIMD`. Out: an
//! error that says what to do. Never: looks for nasm itself, because a library that was built
//! before nasm came is still slow, and one that was built with it is still fast.

use std::env;
use std::fs;
use std::process::ExitCode;

const MESSAGE: &[&str] = &[
    "the JPEG library was built without SIMD, because nasm was not on PATH; images would be \
     decoded and encoded several times slower",
    "hint: run `make setup && . .deps/env && cargo clean -p mozjpeg-sys --release` and build \
     again, or set CATLIP_NO_SIMD=1 to do without",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CATLIP_NO_SIMD");
    if env::var_os("CATLIP_NO_SIMD").is_some_and(|value| value == "1") || has_simd() {
        return ExitCode::SUCCESS;
    }
    for line in MESSAGE {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

/// Whether mozjpeg-sys was built with SIMD. It tells its include folders, and cargo runs us again
/// whenever it was built again.
fn has_simd() -> bool {
    let Some(folders) = env::var_os("DEP_JPEG_INCLUDE") else { return false };
    env::split_paths(&folders)
        .filter_map(|folder| fs::read_to_string(folder.join("jconfig.h")).ok())
        .any(|config| config.contains("#define WITH_SIMD"))
}
