"""Near-duplicates that arrive one file after another where only neighbours are compared: the tables are those of one clean run."""

import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from trainpipe_assets.data import buckets, touched
from trainpipe_tests.data_plane import DataPlane, put
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.unit.test_increment_laws import LandingFolder
from trainpipe_tests.unit.training_fixtures import write_tiny_base

_SOURCE = random.Random(0)
WORDS = ["".join(_SOURCE.choices("abcdefghijklmnopqrstuvwxyz", k=_SOURCE.randint(2, 8))) for _ in range(60)]
NAMES, SIZES, SEEDS = st.sampled_from(["a.csv", "b.csv", "deep/d.csv"]), st.sampled_from([40, 100]), st.integers(0, 2**16)
HEADS = [" ".join(_SOURCE.choices(WORDS, k=18)) for _ in range(6)]


def land(plane: DataPlane, name: str, n_rows: int, seed: int) -> None:
    """Texts that begin alike, so that their buckets are full, and end in ways that make only some of them nearly the same."""
    source = random.Random(seed)
    texts = [f"{source.choice(HEADS)} {' '.join(source.choices(WORDS, k=source.randint(1, 7)))}" for _ in range(n_rows)]
    labels = ["negative" if source.random() < 0.02 else "positive" for _ in texts]
    put(plane.landing / name, pl.DataFrame({"text": texts, "label": labels}).write_csv().encode())


@pytest.mark.parametrize("action", ["group", "drop"])
def test_files_one_after_another_come_to_the_tables_of_one_clean_run(action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "COMPARED", 2)
    monkeypatch.setattr(touched, "PART_BANDS", 700)
    read_words(write_tiny_base(tmp_path / "base"))
    settings = {"cleaning": {"near_duplicates": {"action": action}}}
    plane = DataPlane(str(tmp_path / "lake"), tmp_path / "landing", tmp_path / "base", settings)
    plane.landing.mkdir()
    land(plane, "b.csv", 800, seed=0)
    plane.run()
    for step, (name, n_rows) in enumerate([("c.csv", 100), ("a.csv", 100), ("b.csv", 700)]):
        land(plane, name, n_rows, seed=1 + step)
        plane.run()
        clean = plane.elsewhere(str(tmp_path / f"clean-{step}"))
        clean.run()
        plane.check_equal(clean)


class FullBuckets(LandingFolder):
    """The laws of the increments for texts that have more neighbours than each is compared with."""

    @initialize(action=st.sampled_from(["group", "drop"]))
    def set_up(self, action: str) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(buckets, "COMPARED", 2)
        self.patch.setattr(touched, "PART_BANDS", 700)
        self.start({"cleaning": {"near_duplicates": {"action": action}}})
        self.land_or_replace("standing.csv", 600, 0)
        self.run()

    @rule(name=NAMES, n_rows=SIZES, seed=SEEDS)
    def land_or_replace(self, name: str, n_rows: int, seed: int) -> None:
        land(self.plane, name, n_rows, seed)
        self.whole = self.settled = False

    @rule(name=NAMES, n_rows=SIZES, seed=SEEDS)
    def land_and_run(self, name: str, n_rows: int, seed: int) -> None:
        self.land_or_replace(name, n_rows, seed)
        self.run()

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


FullBuckets.TestCase.settings = settings(
    max_examples=5, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_full_buckets = FullBuckets.TestCase
