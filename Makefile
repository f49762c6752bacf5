# The commands of the README. Each does the set-up that it needs; what is done is not done again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# nasm, where the set-up had to fetch it.
export PATH := $(CURDIR)/.deps/bin:$(PATH)

# Every run says which commit its program was built from; only the binary is linked anew for it.
export CATLIP_COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)

# One profile and one set of packages and features for everything, so that nothing is compiled
# twice: what `build` made is what `test` runs. The binding to libtorch alone takes 3 minutes.
# AVIF is in it: its decoder takes 145 s of one core once, where tests of its own would compile
# arrow, parquet and the pipeline a second time. Without nasm it is left out.
CARGO_AVIF := $(if $(filter 1,$(CATLIP_NO_SIMD)),,--features catlip-pipeline/avif)
CARGO_SCOPE := --release --workspace --features catlip-tests/train $(CARGO_AVIF)
CARGO_OUT := $(or $(CARGO_TARGET_DIR),target)/release
# Makes the wheel from what the same scope has built.
PYTHON_SCRIPT := CARGO_SCOPE="$(CARGO_SCOPE)" scripts/python.sh

.PHONY: help
help: ## lists these targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/  \1\t\2/p' Makefile | expand -t 14

.PHONY: setup
setup: ## checks the tools, fetches nasm and libtorch into .deps
	@scripts/setup.sh

.PHONY: build
build: setup ## builds catlip-prep and catlip-train in target/release
	cargo build $(CARGO_SCOPE) --bins

.PHONY: python
python: ## makes the wheel of the Python package in target/wheels
	@scripts/setup.sh --tests
	$(PYTHON_SCRIPT) wheel

.PHONY: demo
demo: build ## draws scenes, prepares them, trains on them, writes demo/run/report.html
	@scripts/demo.sh $(CARGO_OUT) demo

.PHONY: test
test: ## formatting, lints, docs, all tests, every benchmark at a tiny size
	@scripts/setup.sh --tests
	cargo fmt --all --check
	cargo build $(CARGO_SCOPE) --bins
	cargo test $(CARGO_SCOPE) --no-fail-fast
	cargo clippy $(CARGO_SCOPE) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_SCOPE) --no-deps
	$(PYTHON_SCRIPT) test
	$(if $(HAS_BENCH),$(CARGO_OUT)/catlip-bench --tiny,@echo "benches: no catlip-bench yet")

# Whether the benchmarks' binary is in their manifest.
HAS_BENCH := $(shell grep -s 'name = "catlip-bench"' benches/Cargo.toml)

.PHONY: bench
bench: build ## measures every stage at its real size
	$(CARGO_OUT)/catlip-bench

.PHONY: gpu-check
gpu-check: ## measures the GPU's step beside timm's; needs torch 2.11, timm, what `build` made
	benches/gpu/check.sh --bin $(CARGO_OUT) --out gpu-check

.PHONY: robustness
robustness: build ## kills jobs 200 times, fills disks, fuzzes every parser: 75 minutes
	benches/robustness.sh

.PHONY: clean-demo
clean-demo: ## removes the demo's data and run
	rm -rf demo

.PHONY: clean
clean: ## removes what was built and the demo, keeps .deps
	rm -rf target demo
