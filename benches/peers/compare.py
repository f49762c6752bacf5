"""Ours and the peers by turns, one thread each, and the medians of their ratios as Markdown.

compare.py PROGRAMS FOLDER… [--rounds 5] [--passes 2] [--without dali]

PROGRAMS is the folder of `catlip-bench-images`; each FOLDER holds JPEGs. Runs `images.py` and
`feed.py dali` beside it with the same Python. Images a second of CPU time: other work on the
machine counts little, and what is left of it is in both sides of a ratio.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
LINE = re.compile(r"^(.*?):?\s+(\d+) images/s")
# Ours, and the peers that do the same.
PAIRS = [
    ("prepare, bilinear", ["prep: img2dataset, area (its default)", "prep: Pillow, bilinear"]),
    ("prepare, lanczos3", ["prep: img2dataset, lanczos"]),
    ("random crop to 224 px", ["crop: simplejpeg, scaled, OpenCV", "crop: OpenCV", "crop: Pillow",
                               "DALI"]),
]


def rates(command):
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = dict(match.groups() for match in map(LINE.match, text.splitlines()) if match)
    found = {name.strip(): float(rate) for name, rate in found.items()}
    return {"DALI" if name.startswith("DALI") else name: rate for name, rate in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    print("| images | work | ours | peer | its rate | ratios | median |")
    print("|---" * 7 + "|")
    for folder in arguments.folders:
        of_folder = [str(folder), str(arguments.passes)]
        commands = [[str(arguments.programs / "catlip-bench-images"), *of_folder],
                    [sys.executable, str(HERE / "images.py"), *of_folder]]
        if "dali" not in arguments.without:
            commands.append([sys.executable, str(HERE / "feed.py"), "dali", *of_folder])
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append({name: rate for command in commands
                           for name, rate in rates(command).items()})
        for work, peers in PAIRS:
            for peer in peers:
                if peer not in rounds[0]:
                    continue
                ours, its = ([one[name] for one in rounds] for name in (work, peer))
                ratios = [a / b for a, b in zip(ours, its)]
                print(f"| {folder.name} | {work} | {statistics.median(ours):,.0f} | {peer} | "
                      f"{statistics.median(its):,.0f} | "
                      f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} | "
                      f"{statistics.median(ratios):.2f} |", flush=True)


main()
