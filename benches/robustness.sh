#!/usr/bin/env bash
# The long proof of robustness: kills, full disks, hostile bytes. `make robustness` builds what it
# runs and calls it, 75 minutes; by itself:
#
#     benches/robustness.sh [OUT.json [PART…]]
#
# In: KILLS, DISKS, FUZZ_SECS, SEED of the environment (200, 20, 600, 1). Out: counts, seed and
# commit of each part, merged into OUT.json (benches/runs/robustness.json), which the README
# quotes. PART is one of fuzz-tar, fuzz-pax, fuzz-pickle, fuzz-image, fuzz-manifest, faults; left
# out: all of them. It ends at the first promise that is broken. `make test` does all of it small.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly out=${1:-benches/runs/robustness.json}
shift || true
readonly parts=("${@:-all}")
readonly kills=${KILLS:-200} disks=${DISKS:-20} secs=${FUZZ_SECS:-600} seed=${SEED:-1}
readonly release=${CARGO_TARGET_DIR:-target}/release

has_part() { [[ " ${parts[*]} " == *" all "* || " ${parts[*]} " == *" $1 "* ]]; }

# keep PART JSON: puts the result of a part, with the commit, into the file.
keep() {
    local commit
    commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
    [ -z "$(git status --porcelain -- schemas pipeline tests 2>/dev/null)" ] || commit+=", changed"
    PART=$1 RESULT=$2 COMMIT=$commit OUT=$out python3 -c '
import json, os, pathlib
out = pathlib.Path(os.environ["OUT"])
kept = json.loads(out.read_text()) if out.exists() else {}
kept[os.environ["PART"]] = json.loads(os.environ["RESULT"]) | {"commit": os.environ["COMMIT"]}
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")'
    echo "robustness: $1: $2"
}

for target in tar pax pickle image manifest; do
    has_part "fuzz-$target" || continue
    # A header that lies about a length would show here as memory that is not there.
    result=$(ulimit -v 4194304 && "$release/$target" "$secs" "$seed")
    keep "fuzz-$target" "$result"
done

if has_part faults; then
    keep faults "$("$release/catlip-faults" "$kills" "$disks" "$seed")"
fi
