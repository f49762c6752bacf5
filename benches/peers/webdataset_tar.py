"""webdataset (`pip install webdataset`) over the shards that are named: tar to samples, one thread.

Prints what `catlip-bench-tar` prints: files, bytes, seconds, GB/s, the sum of all payload bytes.
"""

import sys
import time

import numpy as np
import webdataset as wds


def run(shards):
    files = total = checksum = 0
    start = time.perf_counter()
    for sample in wds.WebDataset(shards, shardshuffle=False):
        for name, data in sample.items():
            if not name.startswith("__"):
                files += 1
                total += len(data)
                checksum += int(np.frombuffer(data, np.uint8).sum(dtype=np.uint64))
    return files, total, time.perf_counter() - start, checksum


if __name__ == "__main__":
    run(sys.argv[1:])
    for _ in range(5):
        files, total, secs, checksum = run(sys.argv[1:])
        print(f"{'webdataset':<12} {files:>9} {total:>14} {secs:>9.4f} "
              f"{total / secs / 1e9:>7.2f}   {checksum}")
