#!/usr/bin/env python3
"""Prints `src/caption/mojibake/charmaps.txt`. Needs `pip install ftfy==6.3.1`.

The characters of bytes 80 to FF in every table that ftfy tries, in its order. Tables with holes
give a byte without a character its own number, as browsers do; Latin-1 needs no table.
"""

import ftfy.bad_codecs  # noqa: F401, registers the codecs `sloppy-…`

WITH_HOLES = ["windows-1252", "windows-1251", "windows-1250"]
WITH_HOLES += ["windows-1253", "windows-1254", "windows-1257"]

print("# Characters of the bytes 80 to FF in hex, bytes without one as their own number; made by")
print("# tests/data/make_charmaps.py from Python's codecs.")
for name in WITH_HOLES + ["iso-8859-2", "macroman", "cp437"]:
    codec = f"sloppy-{name}" if name in WITH_HOLES else name
    print(name, *(f"{ord(c):x}" for c in bytes(range(0x80, 0x100)).decode(codec)))
