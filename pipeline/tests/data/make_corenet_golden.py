#!/usr/bin/env python3
"""Writes the expected keys of `corenet-golden.jsonl` from the reference itself.

Usage: make_corenet_golden.py WORDNET_FOLDER [GOLDEN_FILE]

WORDNET_FOLDER holds the WordNet 3.0 database (`index.*`, `data.*`, `*.exc`), for instance
Debian's `wordnet-base`. Needs `pip install nltk==3.8.1 ftfy==6.3.1`. Each line of GOLDEN_FILE
is a json object; only its `caption` is read, `norm`, `tokens` and `synsets` are written anew.

The reference is corenet's chain: `caption_preprocessing`, then NLTK's `word_tokenize`,
`WordNetLemmatizer`, `wn.synset(f"{word}.n.01")` and the name check. Punkt's trained model is
replaced by its abbreviations alone (`punkt_abbreviations.txt`): collocations and orthographic
contexts decide only about initials and numbers, which give no label.
"""

import json
import pathlib
import re
import sys
import tempfile
import urllib.parse

import ftfy
from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

HERE = pathlib.Path(__file__).resolve().parent
ABBREVIATIONS = HERE / "../../src/caption/punkt_abbreviations.txt"
# NLTK reads a 45-line `lexnames` that the database files do not carry; no label depends on it.
LEXNAMES = "".join(f"{i:02d}\tunused\t1\n" for i in range(45))


def open_wordnet(folder):
    """NLTK's reader over `folder`, completed by the small files that only NLTK wants."""
    corpus = pathlib.Path(tempfile.mkdtemp(prefix="wordnet-"))
    for path in pathlib.Path(folder).iterdir():
        (corpus / path.name).symlink_to(path.resolve())
    if not (corpus / "lexnames").exists():
        (corpus / "lexnames").write_text(LEXNAMES)
    return WordNetCorpusReader(str(corpus), None)


def clean(caption, **ftfy_options):
    """corenet `caption_preprocessing`."""
    text = urllib.parse.unquote(str(caption))
    text = text.replace("+", " ")
    text = re.sub(r"<.*?>", "", text)
    text = text.strip("\n")
    text = re.sub(" +", " ", text)
    text = ftfy.fix_text(text, **ftfy_options)
    return text.strip().lower()


class Reference:
    """Caption to keys as corenet computes them."""

    def __init__(self, wordnet_folder):
        self.wordnet = open_wordnet(wordnet_folder)
        parameters = PunktParameters()
        parameters.abbrev_types = set(ABBREVIATIONS.read_text("utf-8").split())
        self.sentences = PunktSentenceTokenizer(parameters)
        self.words = NLTKWordTokenizer()

    def tokens(self, text):
        return [t for s in self.sentences.tokenize(text) for t in self.words.tokenize(s)]

    def key(self, token):
        lemmas = self.wordnet._morphy(token, "n")
        name = f"{min(lemmas, key=len) if lemmas else token}.n.01"
        try:
            synset = self.wordnet.synset(name)
        except (WordNetError, ValueError):
            return None
        return f"n{synset.offset():08d}" if synset.name() == name else None

    def row(self, caption):
        norm = clean(caption)
        tokens = self.tokens(norm)
        keys = [key for key in map(self.key, tokens) if key]
        return {"caption": caption, "norm": norm, "tokens": tokens, "synsets": keys}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    golden = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else HERE / "corenet-golden.jsonl"
    reference = Reference(sys.argv[1])
    captions = [json.loads(line)["caption"] for line in golden.read_text("utf-8").splitlines()]
    if len(set(captions)) != len(captions):
        sys.exit("a caption stands twice in the golden file")
    with golden.open("w", encoding="utf-8", newline="\n") as out:
        for caption in captions:
            # Escaped, so that control characters and look-alikes survive every editor.
            out.write(json.dumps(reference.row(caption), ensure_ascii=True) + "\n")
    print(f"{len(captions)} captions written to {golden.name}")


if __name__ == "__main__":
    main()
