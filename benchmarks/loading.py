"""How long the definitions take to load in a fresh process, against Dagster alone."""

import os
from pathlib import Path
from statistics import median

from benchmarks.measurement import Measurement, Section, paired
from benchmarks.processes import run_python

PAIRS = 3
TIMEOUT = 120.0
DEFINITIONS = "from trainpipe_assets.definitions import defs; defs().get_repository_def()"
DAGSTER = "import dagster"


def measure(models: Path) -> Section:
    """Pairs of fresh processes, after one of each that does not count: it writes the byte code that later ones read."""
    environment = {**os.environ, "TRAINPIPE_MODELS": str(models.absolute())}
    programs = (DEFINITIONS, DAGSTER)
    pairs = [[run_python(["-c", program], environment, TIMEOUT).seconds for program in programs] for _ in range(PAIRS + 1)][1:]
    ours, bare = ([pair[side] for pair in pairs] for side in (0, 1))
    beyond = median(one - other for one, other in zip(ours, bare, strict=True))
    rows = [[str(number + 1), f"{one:.2f}", f"{other:.2f}"] for number, (one, other) in enumerate(zip(ours, bare, strict=True))]
    return Section(
        "Loading the definitions",
        f"A fresh process that runs `{DEFINITIONS}`, in turn with one that runs `{DAGSTER}`. Both include the start of Python. "
        "The ratio is the median of the pairs' ratios.",
        [
            paired("load_definitions", "loading the definitions against importing Dagster alone", ours, bare, "s"),
            Measurement("load_definitions_beyond_dagster", "what loading takes beyond importing Dagster, median of the pairs", beyond, "s"),
        ],
        [["pair", "definitions, s", "dagster alone, s"], *rows],
    )
