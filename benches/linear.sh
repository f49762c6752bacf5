#!/usr/bin/env bash
# Counts the instructions of hostile captions of N and 2 N bytes: no caption may cost more than
# linear work, so their ratio stays at or below 2.1.
#
# Usage: benches/linear.sh [N [UNIT...]]. Needs valgrind. All units of catlip-linear at the default
# of 32768 bytes take minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind > /dev/null || { echo "skipped: no valgrind"; exit 0; }
cargo build --release -p catlip-benches --bin catlip-linear
counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT

# One dump a call of `measured`, numbered in the order of the lines that the program prints.
work=catlip_linear::measured
valgrind --tool=callgrind --toggle-collect=$work --dump-after=$work \
    --callgrind-out-file="$counts/count" --log-file="$counts/log" \
    "${CARGO_TARGET_DIR:-target}/release/catlip-linear" "$@" > "$counts/calls"

num_calls=$(wc -l < "$counts/calls")
for call in $(seq "$num_calls"); do
    sed -n 's/^summary: //p' "$counts/count.$call"
done | paste "$counts/calls" - | awk -F '\t' '
    NR % 2 == 1 { bytes = $2; smaller = $4; next }
    {
        # A caption that is refused at its first bytes costs nothing that could grow.
        ratio = smaller > 10000 ? $4 / smaller : 1
        printf "%-14s %-16s %10.1f instructions a byte, ratio %.3f\n", \
            $1, $3, smaller / bytes, ratio
        if (ratio > 2.1) { bad++ }
    }
    END { printf "%d above 2.1\n", bad; exit bad > 0 }
'
