"""How pip builds the package: by maturin, with nasm on PATH.

In: pip's calls (PEP 517). Out: what maturin makes of them. Without nasm the JPEG library is built
without SIMD and several times slower, so it is looked for first: the build takes minutes.
"""

import os
import pathlib
import shutil
import subprocess

import maturin
from maturin import (  # noqa: F401
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parents[1]


def build_wheel(*args, **named):
    find_nasm()
    return maturin.build_wheel(*args, **named)


def build_editable(*args, **named):
    find_nasm()
    return maturin.build_editable(*args, **named)


def find_nasm():
    """Puts the nasm of the set-up on PATH, where there is no other."""
    if os.environ.get("CATLIP_NO_SIMD") == "1" or shutil.which("nasm"):
        return
    # Not in a source distribution, whose parent folder is anybody's.
    if HERE == ROOT / "python" / "build_backend.py":
        subprocess.run([ROOT / "scripts" / "setup.sh", "--nasm"], check=False)
        ours = ROOT / ".deps" / "bin"
        os.environ["PATH"] = f"{ours}{os.pathsep}{os.environ['PATH']}"
    if not shutil.which("nasm"):
        raise SystemExit(
            "error: no nasm, without which images are decoded several times slower\n"
            "hint: install it (`apt-get install nasm`), or do without by CATLIP_NO_SIMD=1")
