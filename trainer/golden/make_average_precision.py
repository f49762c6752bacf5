"""Makes average_precision.json: scikit-learn's average precision of fixed scores, ties included.

Needs scikit-learn (made with 1.9):   python trainer/golden/make_average_precision.py
"""

import json
import pathlib

import numpy as np
from sklearn.metrics import average_precision_score


def case(name, scores, positives):
    scores = np.asarray(scores, dtype=np.float32)
    value = average_precision_score(np.asarray(positives, dtype=int), scores)
    return {
        "name": name,
        "scores": scores.tolist(),
        "positives": [bool(p) for p in positives],
        "value": float(value),
    }


def main():
    draw = np.random.default_rng(0)
    cases = [
        case("perfect", [0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]),
        case("reversed", [0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]),
        case("one value for all", [0.5] * 7, [0, 1, 0, 0, 1, 0, 0]),
        case("a tie over the border", [3, 2, 2, 2, 1], [1, 0, 1, 0, 1]),
        case("ties at the top", [2, 2, 2, 1, 0], [0, 1, 0, 1, 0]),
        case("negative scores", [-1, -5, -2, -5, -9], [0, 1, 1, 0, 1]),
        case("all positive", [1, 2, 2], [1, 1, 1]),
    ]
    for rows, levels in [(50, 5), (200, 1000), (200, 12)]:
        scores = draw.integers(0, levels, rows) / levels
        positives = draw.random(rows) < 0.1 + 0.3 * scores
        cases.append(case(f"{rows} rows on {levels} levels", scores, positives))
    path = pathlib.Path(__file__).with_name("average_precision.json")
    path.write_text(json.dumps(cases) + "\n")


main()
