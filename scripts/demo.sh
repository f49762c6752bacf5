#!/usr/bin/env bash
# The whole line on data that it draws itself: shards, data set, training, report.
#
# In: the folder of the binaries, the folder to work in. Out: DIR/run/report.html, and as the last
# line the held-out mAP beside its baseline. What is whole is kept: a second run evaluates again,
# one that was interrupted goes on, `make clean-demo` starts afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BIN=$1 DIR=$2

step() { printf '\n== %s\n' "$1"; }

step "scenes: draw shards of images with captions"
if [ -d "$DIR/shards" ]; then
    echo "$DIR/shards is there"
else
    # Whole or not at all: drawn beside, then renamed.
    rm -rf "$DIR/shards.new"
    "$BIN/catlip-prep" demo-data --output "$DIR/shards.new"
    mv "$DIR/shards.new" "$DIR/shards"
fi

for part in train heldout; do
    step "prepare: $part shards to a data set"
    # A log of a run that found nothing to do would hide how long the work took.
    log=()
    [ -e "$DIR/$part.prep.json" ] || log=(--log "$DIR/$part.prep.json")
    "$BIN/catlip-prep" run --input "$DIR/shards/$part-*.tar" --output "$DIR/$part" "${log[@]}"
done

step "train: a small ViT on the CPU"
if [ -e "$DIR/run/report.html" ]; then
    echo "$DIR/run is complete; \`make clean-demo\` starts afresh"
    step "evaluate on the held-out scenes"
    "$BIN/catlip-train" eval --run "$DIR/run" --data "$DIR/heldout"
else
    resume=()
    [ ! -d "$DIR/run" ] || resume=(--resume)
    "$BIN/catlip-train" fit --data "$DIR/train" --val "$DIR/heldout" \
        --recipe trainer/recipes/demo.toml --prep-log "$DIR/train.prep.json" \
        --out "$DIR/run" "${resume[@]}"
fi
