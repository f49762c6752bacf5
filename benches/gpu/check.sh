#!/usr/bin/env bash
# Measures the trainer on this machine's GPU beside timm on the same card, in one command.
#
# In: catlip-train and catlip-prep built elsewhere, a Python with torch 2.11 and timm. Out:
# OUT/gpu-check.json, OUT/gpu-check.md and the raw times beside them. Never: needs Rust or a
# network; changes a setting of the card; takes longer than --budget seconds a part.
#
# Usage: benches/gpu/check.sh [--only PART,...] [--bin DIR] [--python PY] [--out DIR] [...]
# `benches/gpu/check.sh --help` and benches/gpu/README.md say the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${CATLIP_PYTHON:-python3}
for at in $(seq $#); do
    if [ "${!at}" = --python ]; then
        next=$((at + 1))
        python=${!next:?--python needs a program}
    fi
done

# Our binaries link the libtorch of that Python, where it has one, and then its CUDA half.
torch=$("$python" -c '
import importlib.util, pathlib
spec = importlib.util.find_spec("torch")
print(pathlib.Path(spec.origin).parent / "lib" if spec else "")')
if [ -n "$torch" ]; then
    export LD_LIBRARY_PATH=$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# What cuBLAS needs to give the same bits twice; read once, when the first product runs.
export CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG:-:4096:8}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "$python" benches/gpu/check.py "$@"
