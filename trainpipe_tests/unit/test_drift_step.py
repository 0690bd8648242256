"""Which examples are compared: those that came since the last comparison with the model, by the versions of the table."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from trainpipe_assets.data.content_hash import content_hash
from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.drift import CHECK, DriftStep, compare_with_model, sample, unanswered_drift
from trainpipe_assets.pipeline.provenance import dataset_digest
from trainpipe_assets.schemas import CLEANED_FEATURES, EVAL_REPORT
from trainpipe_assets.settings import DriftSettings, PipelineSettings, SplitSettings
from trainpipe_assets.storage.artifacts import Artifact, read_manifest, seal
from trainpipe_assets.storage.delta import Table, commit, find
from trainpipe_assets.storage.identity import as_hex
from trainpipe_assets.storage.maintenance import maintain
from trainpipe_tests.corpora import examples

OWN_FILES = SplitSettings(test_files="test*")
SETTINGS = DriftSettings(min_rows=20, sample_rows=100, label_shift=None, length_shift=None, vocabulary_shift=None)
START = datetime(2026, 1, 1, tzinfo=UTC)
SAME = [text for text, _ in examples(200, seed=1)]
OTHER = [text.replace("w", "v") for text, _ in examples(100, seed=2)]


class Place:
    """Tables in a folder: examples as `cleaned_features`, a history of comparisons, and one of evaluations."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, START

    def put(self, prefix: str, texts: Sequence[str], removed: Sequence[str] = ()) -> Table:
        """Add examples with the keys `prefix`-0 and so on, and remove those of the given prefixes."""
        base = find(str(self.root / "cleaned_features"))
        rows = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("index").select(
            row_id=pl.format("{}-{}", pl.lit(prefix), "index"), text="text", label=pl.lit("a"), split=pl.lit("train"),
            source_file=pl.lit(f"{prefix}.csv"), content_hash=content_hash(pl.col("text")), n_chars=pl.col("text").str.len_chars(),
        )  # fmt: skip
        whole = pl.concat([pl.DataFrame(schema=CLEANED_FEATURES), rows], how="diagonal_relaxed").cast(CLEANED_FEATURES)
        old = base.scan().select("row_id").collect() if base and removed else pl.DataFrame(schema={"row_id": pl.String})
        gone = old.filter(pl.any_horizontal([pl.col("row_id").str.starts_with(f"{name}-") for name in removed] or [pl.lit(False)]))
        uri = str(self.root / "cleaned_features")
        return commit(uri, base, whole.lazy(), gone, fingerprint=1, upstream=0, note={}).table

    def model(self, name: str, version: int, *, passed: bool = True, run_id: str = "run") -> Artifact:
        """A model that was trained on `version` and evaluated after those before it."""
        folder = self.root / "models" / name
        folder.mkdir(parents=True)
        noted: dict[str, Any] = {"uri": "", "version": version}
        manifest: dict[str, Any] = {"fingerprint": name, "run_id": run_id, "lake": {"cleaned_features": noted}}
        table = find(str(self.root / "cleaned_features"))
        if table is not None and version <= table.version:
            made_of = find(table.uri, version)
            assert made_of is not None
            noted["table"] = as_hex(table.identity)
            manifest["dataset"] = {"digest": dataset_digest(made_of)}
        seal(folder, manifest)
        self.now += timedelta(minutes=1)
        row = {"evaluation_id": name, "evaluated_at": self.now, "model_uri": str(folder), "model_fingerprint": name, "gate_passed": passed}
        frame = pl.DataFrame([row], schema={column: EVAL_REPORT[column] for column in row})
        whole = pl.concat([pl.DataFrame(schema=EVAL_REPORT), frame], how="diagonal").lazy()
        nothing = pl.DataFrame(schema={"row_id": pl.String})
        uri = str(self.root / "eval_report")
        commit(uri, self.evaluations, whole, nothing, fingerprint=1, upstream=0, note={})
        model = read_manifest(str(folder))
        assert model is not None
        return model

    @property
    def evaluations(self) -> Table | None:
        """The history of evaluations."""
        return find(str(self.root / "eval_report"))

    def compare(self, model: Artifact | None, table: Table, settings: DriftSettings = SETTINGS) -> DriftStep:
        """A comparison, committed."""
        self.now += timedelta(minutes=1)
        uri = str(self.root / "drift_report")
        step = compare_with_model(history_uri=uri, model=model, examples=table, settings=settings, split=OWN_FILES, now=self.now)
        step.increment.commit({})
        return step

    def history(self) -> list[dict[str, Any]]:
        """All comparisons, the oldest first."""
        table = find(str(self.root / "drift_report"))
        assert table is not None
        return table.scan().sort("compared_at").collect().to_dicts()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_arrival_is_compared_once_and_by_itself(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    assert "nothing has arrived" in place.compare(model, place.put("none", [])).metadata["reason"]
    place.put("same", SAME[80:140])
    drifted = place.put("other", OTHER[:40])
    both = place.compare(model, drifted)
    assert (both.metadata["compared"], place.history()[-1]["n_arrived"]) == (True, 100)
    assert not both.check.passed
    same = place.put("more", SAME[140:170])
    alone = place.compare(model, same)
    assert place.history()[-1]["n_arrived"] == 30
    assert place.history()[-1]["since_version"] == drifted.version
    assert not place.history()[-1]["drifted"]
    assert not alone.check.passed  # what drifted before still waits for a model
    again = place.compare(model, same)
    assert not again.metadata["compared"]
    assert len(place.history()) == 2


def made_anew(place: Place, texts: Sequence[str]) -> Table:
    """`cleaned_features` deleted, and made once more of other files."""
    shutil.rmtree(place.root / "cleaned_features")
    return place.put("first", texts)


def test_a_table_that_was_made_anew_is_a_check_that_warns_until_a_model_is_trained_on_it(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    made_anew(place, SAME[:79])
    anew = place.put("other", OTHER[:40])
    blind = place.compare(model, anew).check
    assert (blind.passed, blind.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "once a model is trained on the new table" in str(blind.description)
    assert told(place, model, anew) is None
    assert place.compare(place.model("newer", anew.version), anew).check.passed


def test_arrivals_are_compared_on_where_a_table_was_made_anew_of_the_same_files(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    before = place.put("gone", OTHER[:40])
    assert not place.compare(model, before).check.passed
    first = made_anew(place, SAME[:80])
    step = place.compare(model, first)
    assert step.check.passed  # what was compared before is of another table
    assert "nothing has arrived" in step.metadata["reason"]
    drifted = place.put("other", OTHER[40:80])
    assert not place.compare(model, drifted).check.passed
    assert [place.history()[-1][name] for name in ("reference_version", "since_version", "n_arrived")] == [first.version] * 2 + [40]
    assert told(place, model, drifted) == place.history()[-1]["comparison_id"]
    place.model("newer", drifted.version, passed=False)
    assert told(place, model, drifted) is None


def test_what_is_too_little_waits_for_more(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    few = place.compare(model, place.put("few", OTHER[:19]))
    assert "19 new example(s), 20 are needed" in few.metadata["reason"]
    assert place.history() == []
    assert place.compare(model, place.put("one", OTHER[19:20])).check.check_name == CHECK
    assert [row["n_arrived"] for row in place.history()] == [20]


def test_of_a_file_that_grew_only_the_new_texts_arrive(place: Place) -> None:
    model = place.model("m", place.put("v1", SAME[:80]).version)
    grown = place.put("v2", [*SAME[:80], *OTHER[:25]], removed=["v1"])
    assert not place.compare(model, grown).check.passed
    assert place.history()[-1]["n_arrived"] == 25


@pytest.mark.parametrize("kept", [True, False])
def test_compaction_is_no_arrival(place: Place, kept: bool) -> None:
    first = place.put("first", SAME[:80])
    model = place.model("m", first.version)
    second = place.put("second", SAME[80:110])
    place.compare(model, second)
    maintain(first.uri, {first.version, second.version} if kept else {first.version}, 0)
    compacted = find(first.uri)
    assert compacted is not None
    assert compacted.version > second.version
    assert place.compare(model, compacted).metadata["compared"] is False
    third = place.put("third", SAME[110:140])
    assert place.compare(model, third).metadata["compared"] is True
    assert place.history()[-1]["n_arrived"] == 30


def test_where_the_last_comparison_cannot_be_read_all_since_the_training_is_compared(place: Place) -> None:
    first = place.put("first", SAME[:80])
    model = place.model("m", first.version)
    place.compare(model, place.put("second", SAME[80:110]))
    place.put("third", SAME[110:120])
    maintain(first.uri, {first.version}, 0)
    now = find(first.uri)
    assert now is not None
    assert place.compare(model, now).metadata["compared"] is True
    assert place.history()[-1]["since_version"] == first.version
    assert place.history()[-1]["n_arrived"] == 40


def test_other_thresholds_judge_all_that_the_model_has_not_seen_anew(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    table = place.put("other", OTHER[:40])
    assert not place.compare(model, table).check.passed
    lenient = SETTINGS.model_copy(update={"domain_auc": 1.0, "significance": 1e-300})
    assert place.compare(model, table, lenient).check.passed
    assert place.compare(model, table).metadata["compared"] is False  # nor is it judged a third time by the first


def test_without_a_model_or_its_data_nothing_is_compared(place: Place) -> None:
    table = place.put("first", SAME)
    assert "no model of this task has passed the gate yet" in place.compare(None, table).metadata["reason"]
    assert place.compare(None, table).check.passed
    ahead = place.compare(place.model("ahead", table.version + 7), table)
    assert "cannot be read" in ahead.metadata["reason"]


def test_the_current_model_is_the_newest_that_passed_before_the_run(place: Place) -> None:
    assert current_model(place.evaluations, "text-classification") is None
    for name, passed, run_id in (("a", True, "1"), ("b", True, "2"), ("c", False, "3")):
        place.model(name, 1, passed=passed, run_id=run_id)
    assert getattr(current_model(place.evaluations, "text-classification"), "fingerprint", None) == "b"
    assert getattr(current_model(place.evaluations, "text-classification", before_run="2"), "fingerprint", None) == "a"
    assert current_model(place.evaluations, "text-regression") is None  # what answers in numbers has nothing to be compared with


def test_what_files_bring_that_are_a_test_split_is_no_drift(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    step = place.compare(model, place.put("test-1", OTHER[:40]))
    assert (step.metadata["compared"], step.metadata["reason"]) == (False, "nothing has arrived that was not trained on or compared before")
    assert place.compare(model, place.put("train-1", OTHER[40:70])).increment.added.collect()["n_arrived"].to_list() == [30]
    gone = place.put("more", [], removed=["test-1"])
    assert told(place, model, gone)  # of the arrival itself nothing is gone


def told(place: Place, model: Artifact, table: Table | None) -> str | None:
    """The comparison for which a training is asked for."""
    return unanswered_drift(
        find(str(place.root / "drift_report")), place.evaluations, model, PipelineSettings(drift=SETTINGS, split=OWN_FILES), table
    )


def test_drift_is_answered_by_a_model_trained_on_it_whether_it_passes_or_not(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    drifted = place.put("other", OTHER[:40])
    place.compare(model, drifted)
    assert told(place, model, drifted) == place.history()[-1]["comparison_id"]
    place.model("older", drifted.version - 1, passed=False)
    assert told(place, model, drifted) is not None
    place.model("newer", drifted.version, passed=False)
    assert told(place, model, drifted) is None
    assert told(place, model, place.put("one more", SAME[80:81])) is None


def test_drift_is_told_of_until_most_of_what_drifted_is_withdrawn(place: Place) -> None:
    model = place.model("m", place.put("first", SAME[:80]).version)
    place.compare(model, place.put("other", OTHER[:40]))
    found = place.history()[-1]["comparison_id"]
    assert told(place, model, place.put("same", SAME[80:130])) == found
    assert not place.compare(model, place.put("more", SAME[130:160])).check.passed
    regrown = place.put("grown", OTHER[:40], removed=["other"])  # the same texts under other keys
    assert told(place, model, regrown) == found
    withdrawn = place.put("none", [], removed=["grown"])
    assert told(place, model, withdrawn) is None
    assert place.compare(model, withdrawn).check.passed


def test_a_sample_is_the_same_for_any_order_and_is_spread_over_all_rows(place: Place) -> None:
    table = place.put("many", [f"text {number}" for number in range(5000)])
    rows = table.scan()
    first = sample(rows, table.rows, 500)
    assert first.height == 500
    assert first.equals(sample(rows.reverse(), table.rows, 500))
    numbers = first["text"].str.slice(5).cast(pl.Int64)
    assert 2200 < (numbers.mean() or 0) < 2800  # 2,500 give or take four standard errors


def test_a_sample_of_texts_that_repeat_is_as_large_as_asked_for() -> None:
    hashes = [f"{number:02x}" * 32 for number in range(100, 110)]  # beyond any bound that so many rows suggest
    rows = pl.LazyFrame({"content_hash": hashes * 500, "text": ["x"] * 5000, "label": ["a"] * 5000, "n_chars": [1] * 5000})
    assert sample(rows, 5000, 100).height == 100
