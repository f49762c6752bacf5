#!/usr/bin/env python3
"""Compiles the nouns of WordNet 3.0 into `nouns.bin`, the table that catlip embeds.

Usage: compile.py [FOLDER] [--output FILE]

FOLDER holds Princeton's `index.noun`, `data.noun` and `noun.exc`. Without it Debian's package
`wordnet-base` is fetched with `apt-get download` and unpacked into a temporary folder.

The output depends on the nouns alone: glosses, verbs and adjectives are left out, so Princeton's
own files and Debian's rebuilt ones give the same bytes. Python 3.10, standard library only.
"""

import argparse
import hashlib
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

MAGIC = b"catlipWN"
VERSION = 1

# What WordNet 3.0 has; anything else is another version, whose offsets mean other synsets.
NUM_LEMMAS = 117_798
NUM_SYNSETS = 82_115

# SHA-256 of the inputs that are known to be WordNet 3.0. `data.noun` differs between Princeton
# and Debian (pointers to verbs moved), so a file unknown by hash is judged by its contents.
KNOWN_SHA256 = {
    "index.noun": {"a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04"},
    "data.noun": {"fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2"},
    "noun.exc": {"2b5d675c380b39ecf595af9fa9d4e7feb1d58c643b0bff08c40ed5bfe41fab7a"},
}


def fail(message):
    sys.exit(f"compile.py: {message}")


def fetch_debian(folder):
    """Downloads and unpacks `wordnet-base`; returns the folder of its database files."""
    subprocess.run(["apt-get", "download", "wordnet-base"], cwd=folder, check=True)
    packages = sorted(folder.glob("wordnet-base_*.deb"))
    if len(packages) != 1:
        fail(f"expected one wordnet-base package, found {len(packages)}")
    subprocess.run(["dpkg", "-x", packages[0], folder / "root"], check=True)
    return folder / "root/usr/share/wordnet"


def read_known(folder, name):
    """Reads one input and says whether its hash is a known one."""
    data = (folder / name).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    verdict = "known" if found in KNOWN_SHA256[name] else "NOT KNOWN, judged by its contents"
    print(f"{name}: sha256 {found}: {verdict}")
    return data.decode("ascii")


def read_index(text):
    """Lemma -> offsets of its senses, first sense first: the order of `index.noun`."""
    senses = {}
    for line in text.splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split()
        lemma, num_synsets, num_pointers = fields[0], int(fields[2]), int(fields[3])
        offsets = [int(field) for field in fields[6 + num_pointers :]]
        if len(offsets) != num_synsets or lemma in senses:
            fail(f"index.noun: wrong line for `{lemma}`")
        senses[lemma] = offsets
    return senses


def read_data(text):
    """Offset -> (lemmas in file order, offsets of hypernyms in file order)."""
    synsets = {}
    for line in text.splitlines():
        if line.startswith(" "):
            continue
        fields = line.split(" | ")[0].split()
        num_words = int(fields[3], 16)
        words = [word.lower() for word in fields[4 : 4 + 2 * num_words : 2]]
        pointers = fields[5 + 2 * num_words :]
        hypernyms = [
            int(pointers[i + 1])
            for i in range(0, 4 * int(fields[4 + 2 * num_words]), 4)
            if pointers[i] in ("@", "@i") and pointers[i + 2] == "n"
        ]
        synsets[int(fields[0])] = (words, hypernyms)
    return synsets


def read_exceptions(text):
    """Inflected form -> its lemmas; of a form that comes twice the last line wins, as in NLTK."""
    exceptions = {}
    for line in text.splitlines():
        form, *lemmas = line.split()
        exceptions[form] = lemmas
    return exceptions


def planes(numbers):
    """u24 numbers as three byte planes, low bytes first: deflates better than words."""
    return b"".join(bytes((n >> shift) & 0xFF for n in numbers) for shift in (0, 8, 16))


def lines(texts):
    """A text section: its length in bytes, then one text a line."""
    section = "".join(text + "\n" for text in texts).encode("ascii")
    return struct.pack("<I", len(section)) + section


def compile_tables(senses, synsets, exceptions):
    """The sections of README.md, before compression."""
    lemmas = sorted(senses)
    offsets = sorted(synsets)
    row_of = {offset: row for row, offset in enumerate(offsets)}
    members = {offset: [] for offset in offsets}
    for lemma in lemmas:
        for offset in senses[lemma]:
            members[offset].append(lemma)
    for offset in offsets:
        if sorted(set(synsets[offset][0])) != members[offset]:
            fail(f"synset {offset:08d}: data.noun and index.noun name different lemmas")
    hypernyms = [[row_of[h] for h in synsets[offset][1]] for offset in offsets]
    sense_rows = [row_of[offset] for lemma in lemmas for offset in senses[lemma]]
    edges = [row for rows in hypernyms for row in rows]
    counts = (len(lemmas), len(offsets), len(sense_rows), len(edges), len(exceptions))
    steps = [offset - before for before, offset in zip([0] + offsets, offsets)]
    heads = [members[offset].index(synsets[offset][0][0]) for offset in offsets]
    return b"".join(
        [
            struct.pack("<5I", *counts),
            lines(lemmas),
            bytes(len(senses[lemma]) for lemma in lemmas),
            planes(sense_rows),
            planes(steps),
            bytes(heads),
            bytes(len(rows) for rows in hypernyms),
            planes(edges),
            lines(" ".join([form, *exceptions[form]]) for form in sorted(exceptions)),
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--output", type=pathlib.Path, default=here / "nouns.bin")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or fetch_debian(pathlib.Path(temporary))
        senses = read_index(read_known(folder, "index.noun"))
        synsets = read_data(read_known(folder, "data.noun"))
        exceptions = read_exceptions(read_known(folder, "noun.exc"))
    if (len(senses), len(synsets)) != (NUM_LEMMAS, NUM_SYNSETS):
        fail(
            f"not WordNet 3.0: {len(senses)} lemmas and {len(synsets)} synsets, "
            f"expected {NUM_LEMMAS} and {NUM_SYNSETS}"
        )
    raw = compile_tables(senses, synsets, exceptions)
    header = MAGIC + struct.pack("<II", VERSION, len(raw))
    data = header + zlib.compress(raw, 9)
    arguments.output.write_bytes(data)
    # Only the inflated bytes are the same whatever zlib deflates them.
    print(f"{arguments.output.name}: {len(data)} bytes")
    print(f"inflated: {len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}")


if __name__ == "__main__":
    main()
