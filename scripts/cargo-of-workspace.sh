#!/usr/bin/env bash
# Stands in for cargo when maturin makes the wheel from what the workspace has built.
#
# In: what maturin gives cargo; CARGO_SCOPE, the packages and features of the Makefile. Out: for
# `cargo rustc` the messages of `cargo build` with that scope; all else is passed on. Maturin asks
# for one package, whose dependencies then get other features than in the workspace (those of serde,
# half, zstd-sys, …), so that arrow, parquet and the pipeline would be compiled once more.
set -euo pipefail
# What maturin tells the build script of pyo3; it would be run again at each change between the two.
unset PYO3_PYTHON PYTHON_SYS_EXECUTABLE PYO3_NO_PYTHON PYO3_BUILD_EXTENSION_MODULE \
    PYO3_CONFIG_FILE PYO3_ENVIRONMENT_SIGNATURE CARGO
if [ "${1:-}" = rustc ]; then
    read -ra scope <<<"$CARGO_SCOPE"
    exec cargo build "${scope[@]}" --lib --message-format json-render-diagnostics
fi
exec cargo "$@"
