#!/usr/bin/env bash
# Makes the wheel, installs it into a fresh environment and runs its tests there.
#
# In: `wheel` or `test`; CARGO_SCOPE, as in the Makefile; CATLIP_PEERS, the programs of an
# environment with PyTorch, if there is one. Out: target/wheels/*.whl, a verdict. What tests need of
# other packages lies in `.deps/python-tests`, which setup.sh --tests fills; what is not there is
# skipped, and said.
set -Eeuo pipefail
trap 'echo "error: stopped in line $LINENO of scripts/python.sh" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly TARGET=${CARGO_TARGET_DIR:-$PWD/target}
readonly TOOLS=$PWD/.deps/python-tests
readonly FRESH=$TARGET/python/fresh
# 25 MB: what a wheel may weigh.
readonly WHEEL_BYTES_MAX=25000000

# site DIR: where the packages of an environment lie.
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

make_wheel() {
    local folder=$TARGET/python/wheel bytes
    rm -rf "$folder"
    CARGO=$PWD/scripts/cargo-of-workspace.sh "$TOOLS/bin/maturin" build --quiet \
        --manifest-path python/Cargo.toml --out "$folder"
    wheel=$(echo "$folder"/catlip-*.whl)
    bytes=$(stat -c %s "$wheel")
    echo "python: $(basename "$wheel"), $bytes bytes"
    [ "$bytes" -le "$WHEEL_BYTES_MAX" ] || {
        echo "error: the wheel has $bytes bytes, expected at most $WHEEL_BYTES_MAX" >&2
        exit 1
    }
    mkdir -p "$TARGET/wheels"
    cp "$wheel" "$TARGET/wheels/"
}

install_wheel() {
    rm -rf "$FRESH"
    python3 -m venv --without-pip "$FRESH"
    "$TOOLS/bin/python" -m pip --python "$FRESH/bin/python" install --quiet --no-index \
        --disable-pip-version-check "$wheel"
    # Alone, as on a machine that has nothing else.
    (cd "$FRESH" && bin/python -c '
import catlip
assert catlip.Labeler().keys(["a dog", None]) == [["n2084071"], None], "it does not label"
')
    # Then with the packages that tests compare with, below what was installed.
    site "$TOOLS" >"$(site "$FRESH")/tests.pth"
    if [ -x "${CATLIP_PEERS:-}/python" ]; then
        site "$(dirname "$CATLIP_PEERS")" >>"$(site "$FRESH")/tests.pth"
    fi
}

if [ ! -x "$TOOLS/bin/maturin" ]; then
    echo "python: skipped: no maturin in .deps/python-tests (scripts/setup.sh --tests)"
    exit 0
fi
make_wheel
[ "${1:-wheel}" = test ] || exit 0
install_wheel
shift
# The cache of pytest would lie in the checkout. `-rs` says what was skipped and why.
CATLIP_BIN=$TARGET/release exec "$FRESH/bin/python" -m pytest -q -rs -p no:cacheprovider \
    --doctest-glob='*.md' --doctest-continue-on-failure "${@:-python/tests}"
