#!/usr/bin/env python3
"""Writes `html_entities.txt`: every named entity that ftfy 6 decodes, one a line.

Usage: make_html_entities.py > ../../src/caption/html_entities.txt

A line is the name without `&` and `;`, then the code points in hex. The names are HTML 5's that
end in a semicolon, and those all-capitals forms that HTML itself leaves undecoded: ftfy reads
`P&EACUTE;REZ` as it was meant. Python's standard library only.
"""

import html
import html.entities


def entities():
    for name, text in html.entities.html5.items():
        if name.endswith(";"):
            yield name[:-1], text
            shout = name.upper()
            if name == name.lower() and html.unescape("&" + shout) == "&" + shout:
                yield shout[:-1], text.upper()


for name, text in sorted(dict(entities()).items()):
    print(name, *(f"{ord(character):x}" for character in text))
