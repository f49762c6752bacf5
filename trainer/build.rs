//! Compiles the shim, and tells the linker where the binaries find libtorch when they run.
//!
//! In: `LIBTORCH`, set by `.cargo/config.toml` to the folder that `make setup` fills. Out: two run
//! paths for our own binaries and tests, and the same two as `DEP_CATLIP_TRAINER_RUN_PATH` for the
//! build scripts of crates whose executables link us; the C++ half of `shim/` as a static library.
//! Never: links libtorch, that is torch-sys.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let compiled = || compile_shim().and_then(|()| compile_nccl());
    match run_path().and_then(|folders| compiled().map(|()| folders)) {
        Ok(folders) => {
            let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            let run_path = folders.join(":");
            // New tags: a RUNPATH stands behind LD_LIBRARY_PATH, the old RPATH before it.
            println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{run_path}");
            println!("cargo::metadata=RUN_PATH={run_path}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

/// The shim over c10d, against the headers of the libtorch that is linked.
fn compile_shim() -> Result<(), String> {
    println!("cargo::rerun-if-changed=shim");
    let gloo = gloo_headers().map_err(|error| format!("cannot write headers: {error}"))?;
    let include = Path::new(&env::var_os("LIBTORCH").unwrap_or_default()).join("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .file("shim/c10d.cpp")
        .file("shim/meter.cpp")
        .file("shim/ops.cpp")
        .define("USE_C10D_GLOO", None)
        .include("shim")
        .include(gloo)
        // Not ours: their warnings tell us nothing.
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        // Only calls pass through it; the optimiser would double the 20 seconds that it takes.
        .opt_level(1);
    build.try_compile("catlip_shim").map_err(|error| error.to_string())
}

/// The shim over NCCL as a library of its own, where the set-up has fetched NVIDIA's headers: the
/// program carries it, and opens it where there are CUDA devices.
fn compile_nccl() -> Result<(), String> {
    println!("cargo::rustc-check-cfg=cfg(catlip_nccl)");
    let libtorch = PathBuf::from(env::var_os("LIBTORCH").unwrap_or_default());
    let headers = libtorch.with_file_name("nccl");
    println!("cargo::rerun-if-changed={}", headers.join("version").display());
    if !headers.join("include").exists() {
        return Ok(());
    }
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(1).pic(true).define("USE_C10D_NCCL", None);
    let include = libtorch.join("include");
    let api = include.join("torch/csrc/api/include");
    for folder in [&include, &api, &headers.join("include"), &headers.join("include/cccl")] {
        build.flag("-isystem").flag(folder);
    }
    let compiler = build.include("shim/cuda").try_get_compiler();
    let mut command = compiler.map_err(|error| error.to_string())?.to_command();
    command.args(["-shared", "-o"]).arg(output.join("libcatlip_nccl.so")).arg("shim/nccl.cpp");
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if !status.success() {
        return Err(format!("shim/nccl.cpp does not compile: {command:?}"));
    }
    println!("cargo::rustc-cfg=catlip_nccl");
    Ok(())
}

/// c10d's header includes those of gloo, which torch's wheel lacks: under each of their names the
/// declarations of ours.
fn gloo_headers() -> std::io::Result<PathBuf> {
    let names =
        ["algorithm.h", "context.h", "common/error.h", "rendezvous/store.h", "transport/device.h"];
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("include");
    for name in names {
        let path = folder.join("gloo").join(name);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(path, "#pragma once\n#include <gloo.h>\n")?;
    }
    Ok(folder)
}

/// The folder that really holds libtorch, beside whose files the CUDA half is found; then our
/// folder of links, which also has the small CUDA libraries that libtorch_cpu.so needs.
fn run_path() -> Result<Vec<PathBuf>, String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let hint = "run `make setup`, which finds or installs libtorch 2.11";
    let Some(folder) = env::var_os("LIBTORCH") else {
        return Err(format!("LIBTORCH is not set, so .cargo/config.toml was not read; {hint}"));
    };
    // Rewritten by the set-up whenever the links change.
    println!("cargo::rerun-if-changed={}", Path::new(&folder).join("origin").display());
    let links = Path::new(&folder).join("lib");
    let library = links.join("libtorch_cpu.so");
    let library = library
        .canonicalize()
        .map_err(|error| format!("no libtorch at {}: {error}; {hint}", library.display()))?;
    let real = library.parent().unwrap_or(&links).to_path_buf();
    Ok(if real == links { vec![links] } else { vec![real, links] })
}
