"""Writes pickles.jsonl: values of Python, pickled with every protocol, and what they are in letters.

Run `python3 pickles.py > pickles.jsonl` after changing VALUES. `Pickle::read` must find what Python
put in; the test compares with Python itself where there is one.

`python3 pickles.py FILE` loads pickles instead, one in hex a line, and prints each in letters, or
the name of the exception. It imports nothing for them and has a limit of memory, since they may be
hostile.
"""

import io
import json
import pickle
import resource
import struct
import sys

MEMORY_BYTES_MAX = 2 << 30


def letters(value):
    """A value without doubt about its type: floats by their bits, texts by their bytes."""
    if value is None or value is True or value is False:
        return str(value)
    if type(value) is int:
        return f"i{value}"
    if type(value) is float:
        return f"f{struct.pack('>d', value).hex()}"
    if type(value) is str:
        return f"s{value.encode().hex()}"
    if type(value) is bytes:
        return f"b{value.hex()}"
    if type(value) is list:
        return "[" + ",".join(map(letters, value)) + "]"
    if type(value) is tuple:
        return "(" + ",".join(map(letters, value)) + ")"
    if type(value) is dict:
        return "{" + ",".join(letters(k) + ":" + letters(v) for k, v in value.items()) + "}"
    raise TypeError(type(value))


SHARED = ["a", ["b"]]
VALUES = [
    None,
    True,
    False,
    *[sign * (1 << bits) + more for sign in (1, -1) for bits in (0, 7, 8, 15, 16, 31, 32, 62)
      for more in (-1, 0, 1)],
    (1 << 63) - 1,
    -(1 << 63),
    0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("-inf"),
    "", "dog", "a\nb\\c\u0000\u001a\r", "caf\u00e9 \u0153 \U0001f415 \\u0041", "x" * 300,
    [], [1], [1, [2, [3, []]]], [7] * 1002,
    (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),)),
    {}, {"a": 1}, {"a": {"b": [None, (True, 2.5)]}, 7: "x", (1, "k"): [], None: 0, 1.5: 1},
    {f"n{i * 1009}": 1 << (i % 40) for i in range(41)},
    {i: None for i in range(1001)},
    [SHARED, SHARED, (SHARED, "a", "a")],
    {"total_tar_files": 2, "max_files_per_tar": 10, "tar_file_names": ["0.tar.gz", "1.tar.gz"]},
]
# Before protocol 3 bytes are a call of a codec, which is not read.
WITH_BYTES = [
    b"", b"\x00\xff", b"x" * 300,
    {"image": b"aGVsbG8=", "text": "a dog", "texts": ["a dog", "a cat"]},
]


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError("no imports")


def load(path):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    for line in open(path):
        try:
            print(letters(Unpickler(io.BytesIO(bytes.fromhex(line))).load()))
        except Exception as error:
            print("refused:", type(error).__name__)


def rows():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in VALUES + (WITH_BYTES if protocol >= 3 else []):
            yield protocol, value


def write():
    for protocol, value in rows():
        pickled = pickle.dumps(value, protocol)
        row = {"protocol": protocol, "pickle": pickled.hex(), "value": letters(value)}
        print(json.dumps(row))


if __name__ == "__main__":
    load(sys.argv[1]) if sys.argv[1:] else write()
