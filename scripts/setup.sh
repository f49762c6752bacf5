#!/usr/bin/env bash
# Makes a clone ready to build: checks the tools, fetches nasm and libtorch into `.deps`.
#
# In: the machine's tools; `LIBTORCH` (a libtorch 2.11 to use), `CATLIP_NO_SIMD=1` (do without
# nasm); `--gpu` to build for machines with several GPUs, `--tests` for what only tests need,
# `--nasm` for nasm alone, which is what `pip install ./python` needs. Out:
# `.deps/libtorch` (what the build links against), `.deps/nccl`, `.deps/bin`, `.deps/env`, and one
# line for each thing found or done. Never: needs root, writes outside the checkout, asks.
# Run it as often as you like: what is there is kept.
set -Eeuo pipefail
trap 'echo "error: the set-up stopped in line $LINENO of scripts/setup.sh" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH=2.11                    # What tch 0.24.0 is written for.
readonly TORCH_WHEEL=torch==2.11.0
# All that libtorch_cpu.so itself needs of CUDA: 13 MB, where the whole is 3 GB.
readonly TORCH_SMALL=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
# Headers alone are taken of these: 20 MB of 210.
readonly NCCL=(nvidia-nccl-cu13==2.28.9 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88
    nvidia-cuda-cccl==13.0.85)
# NVIDIA's run-time compiler, as libtorch's CUDA half brings it along: 230 MB.
readonly NVRTC_WHEEL=nvidia-cuda-nvrtc==13.0.88
readonly PYARROW_WHEEL=pyarrow==26.0.1
# Maturin makes the wheel; the rest is what its tests compare with.
readonly PYTHON_TOOLS=(maturin==1.16.0 pytest==9.2.0 numpy==2.4.6 pyarrow==26.0.1 pandas==3.1.1
    polars==2.1.0 duckdb==2.0.1 mypy==2.4.1)
readonly MOTO_WHEELS=('moto[s3]==5.2.1' flask==3.1.3 flask-cors==6.0.5)
readonly AZURITE=azurite@3.35.0
readonly S3S_FS=0.14.1
readonly DEPS=$PWD/.deps
readonly LINKS=$DEPS/libtorch

say() { printf 'setup: %-9s %s\n' "$1" "$2"; }

# missing WHAT WHY COMMAND: the one message of a prerequisite that is not there.
missing() {
    printf 'error: %s\n  needed for: %s\nhint: %s\n' "$1" "$2" "$3" >&2
    exit 1
}

# at_least HAVE WANT: whether version HAVE is WANT or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

has() { command -v "$1" >/dev/null 2>&1; }

check_machine() {
    local machine
    machine=$(uname -sm)
    [ "$machine" = "Linux x86_64" ] || missing "this machine is $machine, not Linux x86_64" \
        "the libtorch that the trainer links against" "build on Linux on x86-64"
}

check_rust() {
    local want have
    local install='`apt-get install rustup && rustup default stable`, or see https://rustup.rs'
    want=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    has cargo && has rustc || missing "no Rust toolchain (cargo, rustc)" "everything" "$install"
    have=$(rustc --version | cut -d ' ' -f 2)
    at_least "$have" "$want" || missing "rustc is $have, expected $want or newer" "everything" \
        '`rustup update stable`; without rustup: '"$install"
    say rust "$have"
}

check_compiler() {
    local cxx=${CXX:-c++} cc=${CC:-cc}
    has "${cxx%% *}" || missing "no C++ compiler (\`$cxx\`)" "the binding to libtorch" \
        '`apt-get install g++`'
    has "${cc%% *}" || missing "no C compiler (\`$cc\`)" "the JPEG and Zstandard libraries" \
        '`apt-get install gcc`'
    has make || missing "no make" "the commands of the README" '`apt-get install make`'
    say compiler "$($cxx --version | head -n 1)"
}

check_python() {
    local have
    local install='`apt-get install python3 python3-pip`'
    has python3 || missing "no python3" "finding or installing libtorch" "$install"
    have=$(python3 -c 'import platform; print(platform.python_version())') ||
        missing "python3 does not run" "finding or installing libtorch" "$install"
    at_least "$have" 3.10 || missing "python3 is $have, expected 3.10 or newer" \
        "finding or installing libtorch" "$install"
    say python "$have"
}

# nasm assembles the SIMD half of the JPEG library, which is else left out without a word.
find_nasm() {
    if [ "${CATLIP_NO_SIMD:-}" = 1 ]; then
        say nasm "not wanted (CATLIP_NO_SIMD=1): JPEG runs without SIMD"
        return
    fi
    if [ -x "$DEPS/bin/nasm" ]; then
        say nasm ".deps/bin/nasm"
    elif has nasm; then
        say nasm "$(command -v nasm)"
    else
        fetch_nasm
        say nasm ".deps/bin/nasm, unpacked from the system's package"
    fi
}

fetch_nasm() {
    local hint='`apt-get install nasm` (`dnf install nasm`), or set CATLIP_NO_SIMD=1'
    local why="JPEG with SIMD, several times as fast as without" folder log
    has apt-get && has dpkg || missing "no nasm" "$why" "$hint"
    # Outside the checkout, because apt-get fetches as user _apt, who may not enter a home.
    folder=$(mktemp -d)
    log=$folder/log
    chmod 755 "$folder"
    if ! (cd "$folder" && apt-get download nasm) >"$log" 2>&1; then
        # The lists of packages may be empty or old; only root can renew them.
        if [ "$(id -u)" != 0 ] || ! apt-get update >>"$log" 2>&1 ||
            ! (cd "$folder" && apt-get download nasm) >>"$log" 2>&1; then
            tail -n 5 "$log" >&2
            rm -rf "$folder"
            missing "no nasm, and \`apt-get download nasm\` failed" "$why" \
                "\`apt-get update\` and run this again; else $hint"
        fi
    fi
    rm -rf "$DEPS/nasm"
    dpkg -x "$folder"/nasm_*.deb "$DEPS/nasm"
    rm -rf "$folder"
    mkdir -p "$DEPS/bin"
    ln -sfn ../nasm/usr/bin/nasm "$DEPS/bin/nasm"
}

# A JPEG library that was built before nasm came is not built again by cargo of itself.
drop_stale_jpeg() {
    local target=${CARGO_TARGET_DIR:-target} config stale=
    [ "${CATLIP_NO_SIMD:-}" = 1 ] && return
    for config in "$target"/release/build/mozjpeg-sys-*/out/include/jconfig.h; do
        [ -e "$config" ] && ! grep -q WITH_SIMD "$config" && stale=1
    done
    if [ -n "$stale" ]; then
        cargo clean --quiet --release -p mozjpeg-sys
        say jpeg "was built without SIMD: will be built again"
    fi
}

has_gpu() { [ -e /dev/nvidia0 ] || has nvidia-smi; }

# version_of DIR: the version of the libtorch in DIR, or nothing.
version_of() {
    local header=$1/include/torch/headeronly/version.h
    [ -e "$header" ] || header=$1/include/torch/csrc/api/include/torch/version.h
    if [ -e "$1/build-version" ]; then
        head -n 1 "$1/build-version"
    elif [ -e "$1/version.py" ]; then
        sed -n "s/^__version__ = '\(.*\)'\$/\1/p" "$1/version.py"
    elif [ -e "$header" ]; then
        sed -n 's/^.*"\([0-9][0-9.]*\)".*$/\1/p' "$header" | head -n 1
    fi
}

is_wanted() { [[ "$1" == "$TORCH" || "$1" == "$TORCH".* ]]; }

# python_torch: the folder of the installed Python torch, which is not imported (that takes 2 s).
python_torch() {
    python3 -c '
import importlib.util
spec = importlib.util.find_spec("torch")
for folder in (spec.submodule_search_locations or []) if spec else []:
    print(folder)
    break
'
}

# pip_into DIR PACKAGE...: pip installs packages into a folder of ours.
pip_into() {
    local target=$1 pip
    shift
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    elif python3 -m venv "$DEPS/tmp/venv" >/dev/null 2>&1; then
        pip=("$DEPS/tmp/venv/bin/python" -m pip)
    else
        missing "python3 has no pip" "installing libtorch" \
            "\`apt-get install python3-pip\`, or set LIBTORCH to a libtorch $TORCH"
    fi
    # --target: Debian guards its own Python against pip, and a folder of ours is not its own.
    # TMPDIR: 1.3 GB are unpacked there first, too much for a /tmp in memory.
    TMPDIR=$DEPS/tmp "${pip[@]}" install --quiet --disable-pip-version-check --no-compile \
        --root-user-action=ignore --target "$target" "$@"
}

# find_pyarrow: for the test in which an engine that is not ours reads our files; 150 MB.
find_pyarrow() {
    if python3 -c 'import pyarrow' 2>/dev/null || [ -d "$DEPS/pyarrow" ]; then
        say pyarrow "is there"
        return
    fi
    mkdir -p "$DEPS/tmp"
    if pip_into "$DEPS/tmp/pyarrow" --no-deps "$PYARROW_WHEEL"; then
        mv "$DEPS/tmp/pyarrow" "$DEPS/pyarrow"
        say pyarrow "installed into .deps/pyarrow"
    else
        say pyarrow "could not be installed: the test that needs it will say that it is skipped"
    fi
}

# find_python_tools: maturin, pytest and the libraries of the Python package's tests; 400 MB.
find_python_tools() {
    local have=$DEPS/python-tests
    if [ "$(cat "$have/versions" 2>/dev/null)" = "${PYTHON_TOOLS[*]}" ]; then
        say python "tools are there"
        return
    fi
    rm -rf "$have"
    # Not moved when it is whole, as an environment knows its own place; `versions` comes last.
    if python3 -m venv "$have" >/dev/null 2>&1 && TMPDIR=$have "$have/bin/python" -m pip install \
        --quiet --disable-pip-version-check "${PYTHON_TOOLS[@]}"; then
        printf '%s\n' "${PYTHON_TOOLS[*]}" >"$have/versions"
        say python "installed ${PYTHON_TOOLS[0]} and others into .deps/python-tests"
    else
        rm -rf "$have"
        say python "could not install its tools: tests of the package will be skipped"
    fi
}

# find_nccl: NVIDIA's headers, with which sums of several GPUs are compiled, on any machine.
find_nccl() {
    local new=$DEPS/tmp/nccl
    if [ "$(cat "$DEPS/nccl/version" 2>/dev/null)" = "${NCCL[*]}" ]; then
        say nccl "headers are there"
        return
    fi
    mkdir -p "$DEPS/tmp"
    if pip_into "$new" --no-deps "${NCCL[@]}"; then
        rm -rf "$DEPS/nccl"
        mkdir -p "$DEPS/nccl"
        cp -r "$new"/nvidia/cu13/include "$DEPS/nccl/include"
        cp "$new"/nvidia/nccl/include/nccl.h "$DEPS/nccl/include/"
        printf '%s\n' "${NCCL[*]}" >"$DEPS/nccl/version"
        say nccl "headers of ${NCCL[0]} copied into .deps/nccl"
    else
        say nccl "could not fetch ${NCCL[0]}: several GPUs will sum through the host"
    fi
}

# find_nvrtc: NVIDIA's run-time compiler, for the test that every kernel compiles, on any machine.
find_nvrtc() {
    local new=$DEPS/tmp/nvrtc
    if [ "$(cat "$DEPS/nvrtc/version" 2>/dev/null)" = "$NVRTC_WHEEL" ]; then
        say nvrtc "is there"
        return
    fi
    mkdir -p "$DEPS/tmp"
    if pip_into "$new" --no-deps "$NVRTC_WHEEL"; then
        rm -rf "$DEPS/nvrtc"
        mkdir -p "$DEPS/nvrtc/lib"
        # Its variants with another set of passes, half of the wheel, are not used.
        mv "$new"/nvidia/cu13/lib/libnvrtc{.so.13,-builtins.so.13.0} "$DEPS/nvrtc/lib/"
        printf '%s\n' "$NVRTC_WHEEL" >"$DEPS/nvrtc/version"
        say nvrtc "$NVRTC_WHEEL installed into .deps/nvrtc"
    else
        say nvrtc "could not fetch $NVRTC_WHEEL: the tests of the kernels' text will be skipped"
    fi
}

# find_stores: servers that speak the protocols of object stores, for the tests of data sets there;
# 140 MB for S3 (and, but for a header, Google), 190 MB for Azure, 10 MB for a quick S3, which is
# compiled in 3 minutes.
find_stores() {
    local what
    if [ -x "$DEPS/moto/bin/moto_server" ] || has moto_server; then
        say moto "is there"
    else
        what="${MOTO_WHEELS[0]} into .deps/moto"
        rm -rf "$DEPS/moto"
        if python3 -m venv "$DEPS/moto" >/dev/null 2>&1 && "$DEPS/moto/bin/python" -m pip \
            install --quiet --disable-pip-version-check "${MOTO_WHEELS[@]}"; then
            say moto "installed $what"
        else
            rm -rf "$DEPS/moto"
            say moto "could not install $what: its tests will say that they are skipped"
        fi
    fi
    if [ -x "$DEPS/s3s-fs/bin/s3s-fs" ] || has s3s-fs; then
        say s3s-fs "is there"
    else
        what="s3s-fs $S3S_FS into .deps/s3s-fs"
        say s3s-fs "cargo compiles $what"
        # On PATH, or cargo advises to put it there.
        if PATH=$DEPS/s3s-fs/bin:$PATH cargo install --quiet --locked s3s-fs --version "$S3S_FS" \
            --features binary --root "$DEPS/s3s-fs" --target-dir "$DEPS/tmp/s3s-fs"; then
            say s3s-fs "installed"
        else
            say s3s-fs "could not install $what: its test will say that it is skipped"
        fi
        rm -rf "$DEPS/tmp/s3s-fs"
    fi
    if [ -x "$DEPS/azurite/node_modules/.bin/azurite-blob" ] || has azurite-blob; then
        say azurite "is there"
    elif has npm && has node; then
        what="$AZURITE into .deps/azurite"
        mkdir -p "$DEPS/tmp/azurite"
        if npm install --silent --no-fund --no-audit --prefix "$DEPS/tmp/azurite" "$AZURITE" \
            >/dev/null; then
            rm -rf "$DEPS/azurite"
            mv "$DEPS/tmp/azurite" "$DEPS/azurite"
            say azurite "installed $what"
        else
            say azurite "could not install $what: its tests will say that they are skipped"
        fi
    else
        say azurite "no npm: its tests will say that they are skipped"
    fi
}

# install_torch: pip installs libtorch into .deps/python, whole or not at all.
install_torch() {
    local new=$DEPS/tmp/python want what
    if has_gpu; then
        want=("$TORCH_WHEEL") what="3 GB with CUDA"
    else
        want=(--no-deps "$TORCH_WHEEL" "${TORCH_SMALL[@]}") what="0.5 GB without CUDA"
    fi
    rm -rf "$DEPS/tmp"
    mkdir -p "$DEPS/tmp"
    say libtorch "pip installs $TORCH_WHEEL into .deps/python ($what)"
    pip_into "$new" "${want[@]}" ||
        missing "pip could not install $TORCH_WHEEL" "the trainer" \
            "see pip's message above; or set LIBTORCH to a libtorch $TORCH"
    rm -rf "$DEPS/python"
    mv "$new" "$DEPS/python"
}

# link_libtorch DIR FROM: makes .deps/libtorch out of the libtorch in DIR.
#
# It holds what torch-sys looks for: without libtorch_cuda.so in sight and with an empty
# libtorch.so it links torch_cpu and c10 only, so that one binary runs with and without CUDA
# (see trainer/src/device.rs).
link_libtorch() {
    local dir=$1 new=$DEPS/libtorch.new lib need found absent
    lib=$(dirname "$(readlink -f "$dir/lib/libtorch_cpu.so")")
    rm -rf "$new"
    mkdir -p "$new/lib"
    ln -s "$(readlink -f "$dir/include")" "$new/include"
    ln -s "$lib/libtorch_cpu.so" "$lib/libc10.so" "$new/lib/"
    # The small libraries of its own, by the names that it asks for.
    for need in $(needs "$lib/libtorch_cpu.so"); do
        for found in "$lib/$need" "$lib"/../../nvidia/*/lib/"$need" "$dir/lib/$need"; do
            if [ -e "$found" ] && [ ! -e "$new/lib/$need" ]; then
                ln -s "$(readlink -f "$found")" "$new/lib/$need"
            fi
        done
    done
    # Empty by a here-string: some containers have an ordinary file as /dev/null, with text in it.
    "${CC:-cc}" -shared -Wl,-soname,libtorch.so -o "$new/lib/libtorch.so" -x c - <<<''
    absent=$(LD_LIBRARY_PATH=$new/lib ldd "$new/lib/libtorch_cpu.so" |
        sed -n 's/^\s*\(\S*\) => not found$/\1/p' | sort -u | tr '\n' ' ')
    [ -z "$absent" ] || missing "$lib/libtorch_cpu.so does not load: not found: $absent" \
        "the trainer" "\`python3 -m pip install ${TORCH_SMALL[*]}\` beside that torch"
    version_of "$dir" >"$new/build-version"
    printf '%s\n' "$2" >"$new/origin"
    rm -rf "$LINKS"
    mv "$new" "$LINKS"
}

# needs FILE: the shared libraries that FILE asks for, except the system's own.
needs() {
    objdump -p "$1" | sed -n 's/^ *NEEDED *//p' | grep -E '^lib(gomp|cud|cup|nv|cu)' || true
}

# is_ready FROM: whether .deps/libtorch was made from FROM and is whole.
is_ready() {
    [ -e "$LINKS/lib/libtorch_cpu.so" ] && [ -e "$LINKS/lib/libtorch.so" ] &&
        [ -e "$LINKS/include/torch" ] && [ "$(cat "$LINKS/origin")" = "$1" ]
}

find_libtorch() {
    local dir version
    if [ -n "${LIBTORCH:-}" ] && [ "$(readlink -f "$LIBTORCH")" != "$LINKS" ]; then
        dir=$(readlink -f "$LIBTORCH")
        [ -e "$dir/lib/libtorch_cpu.so" ] && [ -d "$dir/include" ] || missing \
            "LIBTORCH is $LIBTORCH, which has no lib/libtorch_cpu.so and include" \
            "the trainer" "set it to a libtorch $TORCH, or unset it and one is installed"
        version=$(version_of "$dir")
        is_wanted "$version" || missing \
            "LIBTORCH is $LIBTORCH with libtorch ${version:-of unknown version}, expected $TORCH" \
            "tch 0.24.0" "set it to a libtorch $TORCH, or unset it and one is installed"
        use_libtorch "$dir" "$dir (LIBTORCH)"
        return
    fi
    dir=$(cat "$LINKS/origin" 2>/dev/null || true)
    if [ -n "$dir" ] && is_ready "$dir" && ! lacks_cuda "$dir"; then
        say libtorch "$(cat "$LINKS/build-version"), from $dir"
        return
    fi
    dir=$(python_torch)
    version=
    [ -z "$dir" ] || version=$(version_of "$dir")
    if is_wanted "$version" && [ -e "$dir/lib/libtorch_cpu.so" ]; then
        use_libtorch "$dir" "$dir (python3)"
        return
    fi
    [ -z "$version" ] || say libtorch "python3 has torch $version, not $TORCH: not used"
    if [ ! -e "$DEPS/python/torch/lib/libtorch_cpu.so" ] || lacks_cuda "$DEPS/python/torch"; then
        install_torch
    fi
    use_libtorch "$DEPS/python/torch" "$DEPS/python/torch"
}

# lacks_cuda DIR: whether DIR is what we installed without CUDA, and a GPU came since.
lacks_cuda() {
    has_gpu && [ "$1" = "$DEPS/python/torch" ] && [ ! -e "$DEPS/python/nvidia/cudnn" ]
}

use_libtorch() {
    is_ready "$2" || link_libtorch "$1" "$2"
    say libtorch "$(cat "$LINKS/build-version"), from $2"
}

write_env() {
    local text="# For those who call cargo by hand: \`. .deps/env\`.
case \":\$PATH:\" in *\":$DEPS/bin:\"*) ;; *) export PATH=\"$DEPS/bin:\$PATH\" ;; esac"
    [ "$(cat "$DEPS/env" 2>/dev/null || true)" = "$text" ] || printf '%s\n' "$text" >"$DEPS/env"
}

mkdir -p "$DEPS"
# Two at once wait for each other.
if has flock; then
    exec 9>"$DEPS/lock"
    flock 9
fi
trap 'rm -rf "$DEPS/tmp"' EXIT
check_machine
check_rust
check_compiler
check_python
find_nasm
[ "${1:-}" != --nasm ] || exit 0
drop_stale_jpeg
find_libtorch
if [ "${1:-}" = --gpu ] || [ "${1:-}" = --tests ] || has_gpu; then
    find_nccl
elif [ ! -e "$DEPS/nccl/version" ]; then
    # The build watches this file, and runs again each time where there is none.
    mkdir -p "$DEPS/nccl"
    : >"$DEPS/nccl/version"
fi
write_env
if [ "${1:-}" = --tests ]; then
    find_pyarrow
    find_nvrtc
    find_python_tools
    find_stores
fi
