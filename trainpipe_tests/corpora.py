"""Made-up corpora that a tiny model can learn. Imports little, so that many processes can start with it."""

import csv
import io

import numpy as np


def examples(count: int, seed: int = 0, labels: tuple[str, str] = ("negative", "positive")) -> list[tuple[str, str]]:
    """Texts of words w4 to w63 and their labels: positive where words of the upper half prevail."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = int(random.integers(0, 2))
        upper = random.random(int(random.integers(4, 24))) < (0.8 if label else 0.2)
        words = np.where(upper, random.integers(34, 64, len(upper)), random.integers(4, 34, len(upper)))
        found.append((" ".join(f"w{word}" for word in words), labels[label]))
    return found


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    """Rows as a CSV file with the header text,label."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "label"), *rows])
    return buffer.getvalue().encode()
