"""Whatever happens in whatever order, the tables are those of one clean run over the final files."""

import shutil
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trainpipe_assets.storage.maintenance import maintain
from trainpipe_tests.data_plane import COMMITS, TABLES, DataPlane, put
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.unit.training_fixtures import write_tiny_base

FILES = st.sampled_from(["a.csv", "b.csv", "c.jsonl", "deep/d.csv"])
TEXTS = st.sampled_from(["w4 w5 w6", "w7", "W7 ", "w40 w41 w42 w43 w44", "w40  w41 w42 w43 w44", "w8 &amp; w9", "w50 w51", "", "w60"])
LONG = [f"w{number} w20 w21 w22 w23 w24 w25 w26 w27 w28 w29 w30 w31 w{number}" for number in (4, 5, 6)]  # nearly the same
TEXTS = st.one_of(TEXTS, st.sampled_from([*LONG, f"{LONG[0]} w9", f"{LONG[2]} w9 w9", LONG[1].upper()]))
LABELS = st.sampled_from(["negative", "positive", " Positive", "other", ""])
ROWS = st.lists(st.tuples(TEXTS, LABELS), max_size=8)
STARS = st.sampled_from([None, [3, 4], ["few", "many"], [None]])  # a column more, of one type or another, or without a type
SHORT = {"name": "wordy", "kind": "range", "column": "n_words", "min": 2}
RULES = [[SHORT], [{**SHORT, "severity": "block"}, {"name": "few", "kind": "range", "column": "stars", "max": 3}]]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "source": st.fixed_dictionaries(
            {"schema_drift": st.sampled_from(["accept", "quarantine", "quarantine"])},
            optional={"expected_columns": st.sampled_from([{"stars": "integer?"}, {"stars": "any"}])},
        ),
        "cleaning": st.fixed_dictionaries(
            {},
            optional={
                "min_chars": st.sampled_from([2, 6]),
                "drop_duplicates": st.booleans(),
                "near_duplicates": st.fixed_dictionaries({"action": st.sampled_from(["group", "drop", "off"])}),
            },
        ),
        "validation": st.fixed_dictionaries({"rules": st.sampled_from(RULES)}),
        "split": st.fixed_dictionaries(
            {"seed": st.sampled_from([0, 1])},
            optional={"test_files": st.sampled_from(["b.csv", "**/*.csv"]), "validation_files": st.just(["c.jsonl", "a*"])},
        ),
        "max_length": st.sampled_from([4, 32]),
    },
)


def _repeated(values: list[object], length: int) -> pl.Series:
    return pl.Series([values[row % len(values)] for row in range(length)])


class LandingFolder(RuleBasedStateMachine):
    """Files that come and go, and a data plane that is run, interrupted and maintained meanwhile."""

    def start(self, settings: dict[str, object]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        read_words(write_tiny_base(root / "base"))
        self.plane = DataPlane(str(root / "lake"), root / "landing", root / "base", settings)
        self.plane.landing.mkdir()
        self.clean_runs = 0
        self.whole = self.settled = False  # whether the tables are those of what has landed, and nobody touched them since

    def anything_landed(self) -> bool:
        return any(path.is_file() for path in self.plane.landing.rglob("*"))

    @rule(name=FILES)
    def withdraw(self, name: str) -> None:
        (self.plane.landing / name).unlink(missing_ok=True)
        self.whole = self.settled = False

    @rule(commits=st.integers(0, COMMITS - 1))
    def run_and_be_killed(self, commits: int) -> None:
        self.settled = False
        running = self.plane.commits()
        for _ in range(commits):
            next(running, None)

    @rule(retention_hours=st.sampled_from([0, 24]))
    def maintain(self, retention_hours: int) -> None:
        self.settled = False
        for name in TABLES:
            maintain(f"{self.plane.lake}/{name}", [], retention_hours)

    @rule(name=st.sampled_from(TABLES))
    def delete_a_table(self, name: str) -> None:
        self.whole = self.settled = False
        shutil.rmtree(f"{self.plane.lake}/{name}", ignore_errors=True)

    @precondition(lambda self: self.anything_landed() and not self.settled)
    @rule()
    def run(self) -> None:
        self.plane.run()
        self.whole = self.settled = True
        self.clean_runs += 1
        versions = [self.plane.table(name).version for name in ("raw_data", "cleaned_features", "tokenized_dataset")]
        self.plane.run()
        assert versions == [self.plane.table(name).version for name in ("raw_data", "cleaned_features", "tokenized_dataset")]
        clean = self.plane.elsewhere(f"{self.folder.name}/clean-{self.clean_runs}")
        clean.run()
        self.plane.check_equal(clean)
        self.plane.check_splits()

    @invariant()
    def rows_are_conserved(self) -> None:
        if self.whole:
            self.plane.check_conservation()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            try:
                if self.anything_landed():
                    self.run()
                    self.rows_are_conserved()
            finally:
                self.folder.cleanup()


class Increments(LandingFolder):
    """Rows, columns and settings of every kind."""

    @initialize()
    def set_up(self) -> None:
        self.start({})
        self.land_or_replace("a.csv", [("w61 w62", "positive")], [3])
        self.land_or_replace("deep/d.csv", [("w62 w63", "positive")], ["three"])

    @rule(name=FILES, rows=ROWS, stars=STARS)
    def land_or_replace(self, name: str, rows: list[tuple[str, str]], stars: list[object] | None) -> None:
        columns = {"text": pl.String, "label": pl.String}
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        if stars is not None:
            frame = frame.with_columns(stars=_repeated(stars, len(rows)))
        put(self.plane.landing / name, (frame.write_ndjson() if name.endswith("l") else frame.write_csv()).encode())
        self.whole = self.settled = False

    @rule(changed=SETTINGS)
    def set_otherwise(self, changed: dict[str, object]) -> None:
        self.plane = DataPlane(self.plane.lake, self.plane.landing, self.plane.base, changed)
        self.whole = self.settled = False

    @precondition(lambda self: self.anything_landed())
    @rule(drift=st.permutations(["accept", "quarantine"]))
    def decide_on_drift_and_otherwise(self, drift: list[str]) -> None:
        others = {name: value for name, value in self.plane.settings.items() if name != "source"}
        for decision in drift:
            self.set_otherwise({**others, "source": {"schema_drift": decision}})
            self.run()


@pytest.mark.parametrize("table", ["raw_data", "cleaned_features"])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_table_that_was_deleted_and_made_anew_is_another_one(tmp_path: Path, table: str, runs: int) -> None:
    read_words(write_tiny_base(tmp_path / "base"))
    plane = DataPlane(str(tmp_path / "lake"), tmp_path / "landing", tmp_path / "base")
    for number in range(runs):  # so many commits, with which the new table begins to count again
        put(tmp_path / "landing" / f"{number}.csv", f"text,label\nw4 w5 w{number},positive\nw6 w{number},negative\n".encode())
        plane.run()
    shutil.rmtree(tmp_path / "landing")
    shutil.rmtree(tmp_path / "lake" / table)
    for number in range(runs):
        put(tmp_path / "landing" / f"other-{number}.csv", f"text,label\nw40 w{number},positive\n".encode())
        plane.run()
        clean = plane.elsewhere(f"{tmp_path}/clean-{number}")
        clean.run()
        plane.check_equal(clean)
        plane.check_conservation()


Increments.TestCase.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
test_increments = Increments.TestCase
