"""Cleaning: normalisation, rules, duplicates, conflicts, splits, and the law that increments equal one clean run."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpipe_assets.data import alike, cleaning, deduplication, near_duplicates
from trainpipe_assets.data.class_labels import ClassLabels
from trainpipe_assets.data.cleaning import clean_changes
from trainpipe_assets.data.label_sets import LabelSets
from trainpipe_assets.schemas import CLEANED_FEATURES, RAW_DATA, REJECTED_ROWS
from trainpipe_assets.settings import CleaningSettings, SplitSettings
from trainpipe_assets.storage.delta import Table, commit, find
from trainpipe_assets.storage.increments import Upstream
from trainpipe_tests.corpora import examples
from trainpipe_tests.data_plane import Outcome, outcome

CLEANING = CleaningSettings(labels=("negative", "positive"), label_aliases={"pos": "positive"})
SPLIT = SplitSettings()
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Record = tuple[str | None, str | None]


def records(file: str, *content: Record, problem: str | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"row_id": f"{file}-{n:09d}", "file_id": file, "source_file": f"{file}.csv", "file_version": "1", "line_number": n + 1,
             "text": text, "label": label, "extra": "{}", "problem": problem, "ingested_at": NOW}
            for n, (text, label) in enumerate(content, 1)
        ],
        schema=RAW_DATA,
    )  # fmt: skip


def cleaned(*content: Record, using: CleaningSettings = CLEANING) -> Outcome:
    return outcome(records("f", *content), using, SPLIT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\t spaces \n and lines ", "two spaces and lines"),
        ("fish &amp; chips &lt;3 &#39;ok&#39;", "fish & chips <3 'ok'"),
        ("ﬁne Ｗｉｄｅ", "fine Wide"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff bell\u0007", "zerowidth bell"),
        ("non\u00a0breaking", "non breaking"),
        ("cafe\u200b\u0301", "café"),
        ("no &#" + "9" * 5000 + "; such", "no \ufffd such"),
        ("an &#" + "0" * 5000 + "65; is one", "an A is one"),
        ("&#99999999 &#x110000; &#65;&#0066;", "\ufffd \ufffd AB"),
    ],
)
def test_texts_are_normalised(text: str, expected: str) -> None:
    assert cleaned((text, "positive")).examples["text"].to_list() == [expected]


@pytest.mark.parametrize("label", ["positive", " Positive ", "POSITIVE", "pos", "Pos"])
def test_spellings_of_a_label_are_one_label(label: str) -> None:
    assert cleaned(("fine", label)).examples["label"].to_list() == ["positive"]


@pytest.mark.parametrize(
    ("listed", "labels"),
    [
        (None, ["1", "1", "-2", "1.5", "v1.0", "1"]),
        (("1", "-2", "1.5", "v1.0"), ["1", "1", "-2", "1.5", "v1.0", "1"]),
        (("1.0", "-2", "1.5", "v1.0"), ["1.0", "1.0", "-2", "1.5", "v1.0", "1.0"]),
        (("1.0", "1", "-2.0", "1.5", "v1.0"), ["1", "1.0", "-2.0", "1.5", "v1.0", "1.00"]),
    ],
)
def test_whole_numbers_are_the_same_classes_as_floats(listed: tuple[str, ...] | None, labels: list[str]) -> None:
    found = pl.DataFrame({"label": ["1", "1.0", "-2.0", "1.5", "v1.0", "1.00"]})
    classes = ClassLabels(CleaningSettings(labels=listed))
    assert found.select(classes.normalised(pl.col("label")))["label"].to_list() == labels


@pytest.mark.parametrize(
    ("record", "rule", "words"),
    [
        ((None, "positive"), "missing_text", "null"),
        (("fine", None), "missing_label", "null or empty"),
        (("fine", "  "), "missing_label", "null or empty"),
        (("fine", "meh"), "unknown_label", "'meh' is not one of: negative, positive"),
        ((" \t ", "positive"), "empty_text", "nothing is left"),
        (("x", "positive"), "too_short", "1 characters, at least 2"),
        (("x" * 20_001, "positive"), "too_long", "20001 characters, at most 20000"),
    ],
)
def test_a_rule_names_itself_and_its_reason(record: Record, rule: str, words: str) -> None:
    result = cleaned(record)
    assert result.examples.is_empty()
    row = result.rejected.row(0, named=True)
    assert row["rule"] == rule
    assert words in row["reason"]
    assert (row["text"], row["label"]) == record


def test_an_unparsed_record_keeps_its_problem_as_reason() -> None:
    result = outcome(records("f", ("raw line", None), problem="3 fields, the header has 2"), CLEANING, SPLIT)
    assert result.rejected.select("rule", "reason").row(0) == ("unreadable", "3 fields, the header has 2")


def test_the_first_of_equal_texts_stays_and_the_others_name_it() -> None:
    result = cleaned(("Good film", "positive"), ("good  FILM", "positive"), ("other", "negative"))
    assert result.examples["line_number"].to_list() == [2, 4]
    assert result.rejected["reason"].to_list() == ["repeats f.csv line 2 (row f-000000001)"]


def test_contradicting_labels_reject_all_and_name_each_other() -> None:
    result = cleaned(("same", "positive"), ("same", "negative"), ("same", "positive"))
    assert result.examples.is_empty()
    assert result.rejected["rule"].to_list() == ["conflicting_label"] * 3
    first, second, _ = result.rejected["reason"].to_list()
    assert "'positive' here and 'negative' at f.csv line 3" in first
    assert "'negative' here and 'positive' at f.csv line 2" in second


def test_duplicates_may_stay_but_share_group_and_split() -> None:
    result = cleaned(("same", "positive"), ("SAME", "positive"), using=CLEANING.model_copy(update={"drop_duplicates": False}))
    assert result.examples.height == 2
    assert result.examples.select("duplicate_group", "split").unique().height == 1


OWN_FILES = SplitSettings(test_files="t.csv", validation_files="v.csv")


def of_three_files(near: str, *, drop: bool = True) -> Outcome:
    """What becomes of a training file, read first by its name, that repeats a text of the test file and nearly repeats another."""
    alike = "a long enough text that says very nearly the same thing as another one of it does, only that"
    arrived = [
        records("a", ("same", "positive"), (f"{alike} it ends so", "negative"), *examples(100)),
        records("t", ("same", "positive"), ("same", "positive"), (f"{alike} it ends thus", "negative")),
        records("v", ("same", "positive"), ("own", "negative"), (f"{alike} it closes so", "negative")),
    ]
    using = {**CLEANING.model_dump(), "drop_duplicates": drop, "near_duplicates": {"action": near, "similarity": 0.7}}
    return outcome(pl.concat(arrived), CleaningSettings.model_validate(using), OWN_FILES)


@pytest.mark.parametrize("near", ["off", "group", "drop"])
def test_files_may_be_a_split_of_their_own_and_what_others_repeat_of_them_is_rejected(near: str) -> None:
    found = of_three_files(near)
    splits = found.examples.group_by("source_file").agg(pl.col("split").unique(), n=pl.len()).sort("source_file").rows()
    alike = near == "off"
    assert splits == [("a.csv", ["train"], 100 + alike), ("t.csv", ["test"], 2), ("v.csv", ["validation"], 1 + alike)]
    reasons = found.rejected.sort("row_id").select("row_id", "rule", "reason").rows()
    exact = "repeats t.csv line 2 (row t-000000001)"
    nearly = "nearly repeats t.csv line 4 (row t-000000003), itself or by way of others"
    assert reasons == [
        ("a-000000001", "duplicate", exact),
        *([] if alike else [("a-000000002", "near_duplicate", nearly)]),
        ("t-000000002", "duplicate", exact),
        ("v-000000001", "duplicate", exact),
        *([] if alike else [("v-000000003", "near_duplicate", nearly)]),
    ]


@pytest.mark.parametrize("drop", [True, False])
def test_a_contradiction_of_another_file_does_not_take_an_example_from_the_test_split(*, drop: bool) -> None:
    arrived = [
        records("a", ("fine", "negative"), ("well", "positive"), ("both", "positive"), ("both", "negative")),
        records("t", ("fine", "positive"), ("fine", "positive"), ("both", "positive"), ("both", "negative")),
    ]
    found = outcome(pl.concat(arrived), CLEANING.model_copy(update={"drop_duplicates": drop}), OWN_FILES)
    kept = [("a-000000002", "train"), ("t-000000001", "test"), *([] if drop else [("t-000000002", "test")])]
    assert found.examples.sort("row_id").select("row_id", "split").rows() == kept
    rejected = dict(found.rejected.select("row_id", "reason").rows())
    assert rejected["a-000000001"] == "labelled 'negative' here and 'positive' at t.csv line 2 (row t-000000001)"
    assert rejected["t-000000003"] == "labelled 'positive' here and 'negative' at t.csv line 5 (row t-000000004)"
    assert {row for row in rejected if row not in dict(kept)} == set(rejected)


@pytest.mark.parametrize("near", ["off", "group"])
def test_duplicates_that_may_stay_do_not_beside_files_that_are_a_split(near: str) -> None:
    found = of_three_files(near, drop=False)
    same = found.examples.filter(pl.col("text") == "same")
    assert same.select("source_file", "split").rows() == [("t.csv", "test")] * 2


def test_splits_have_their_shares_and_follow_the_seed() -> None:
    many = [(hashlib.sha256(str(n).encode()).hexdigest(), "positive") for n in range(20_000)]
    shares = dict(cleaned(*many).examples["split"].value_counts(normalize=True).iter_rows())
    assert shares["test"] == pytest.approx(0.1, abs=0.01)
    assert shares["validation"] == pytest.approx(0.1, abs=0.01)
    other = outcome(records("f", *many), CLEANING, SplitSettings(seed=1)).examples["split"]
    assert 0.2 < (other != cleaned(*many).examples["split"]).mean() < 0.5


texts = st.sampled_from(["good film", "Good  film", "bad film", "BAD film", "fine", "x", "", None, "a &amp; b", "a & b"])
labels = st.sampled_from(["positive", "negative", "pos", "meh", None])
files = st.lists(st.tuples(texts, labels), min_size=1, max_size=4)
landings = st.lists(st.dictionaries(st.sampled_from("abc"), files, min_size=1), min_size=1, max_size=4)


@given(files)
def test_every_record_ends_up_once(content: list[Record]) -> None:
    result = cleaned(*content)
    together = sorted([*result.examples["row_id"], *result.rejected["row_id"]])
    assert together == [f"f-{n:09d}" for n in range(1, len(content) + 1)]
    assert dict(result.examples.schema) == dict(CLEANED_FEATURES)
    assert dict(result.rejected.schema) == dict(REJECTED_ROWS)


@settings(max_examples=25, deadline=None)
@given(landings)
def test_increments_give_the_tables_of_one_clean_run(states: list[dict[str, list[Record]]]) -> None:
    with TemporaryDirectory() as folder:
        raw: Table | None = None
        for version, state in enumerate(states):
            frames = [records(f"{name}{hash(tuple(content)) & 0xFFFF}", *content) for name, content in sorted(state.items())]
            raw = _replace(f"{folder}/raw", raw, pl.concat(frames), version)
            _run_cleaning(raw, folder)
        assert raw is not None
        expected = outcome(raw.scan().collect(), CLEANING, SPLIT)
        for name, frame in (("cleaned_features", expected.examples), ("rejected_rows", expected.rejected)):
            table = find(f"{folder}/{name}")
            assert table is not None
            assert table.scan().collect().sort("row_id").equals(frame.sort("row_id"), null_equal=True)


def _replace(uri: str, raw: Table | None, now: pl.DataFrame, version: int) -> Table:
    """Bring the raw table to `now` the way ingestion does: rows that went are removed, rows that came are added."""
    if raw is None:
        return commit(uri, None, now.lazy(), None, fingerprint=1, upstream=0, note={}).table
    before = raw.scan().collect()
    removed = before.join(now, on="row_id", how="anti").select("row_id")
    added = now.join(before, on="row_id", how="anti")
    if removed.is_empty() and added.is_empty():
        return raw
    return commit(uri, raw, added.lazy(), removed, fingerprint=1, upstream=version, note={}).table


def _run_cleaning(raw: Table, folder: str) -> None:
    outputs = {name: f"{folder}/{name}" for name in ("cleaned_features", "rejected_rows")}
    changes = Upstream(raw, outputs).changes(version=cleaning.VERSION, cleaning=CLEANING, split=SPLIT)
    with TemporaryDirectory() as scratch:
        for increment in clean_changes(changes, CLEANING, SPLIT, Path(scratch)):
            increment.commit({})


def test_a_run_killed_between_the_two_commits_is_made_good(tmp_path: Path) -> None:
    raw = _replace(f"{tmp_path}/raw", None, records("a", ("one", "positive"), ("two", "negative")), 0)
    _run_cleaning(raw, str(tmp_path))
    raw = _replace(raw.uri, raw, pl.concat([raw.scan().collect(), records("b", ("one", "positive"), ("three", "negative"))]), 1)
    outputs = {name: f"{tmp_path}/{name}" for name in ("cleaned_features", "rejected_rows")}
    changes = Upstream(raw, outputs).changes(version=cleaning.VERSION, cleaning=CLEANING, split=SPLIT)
    with TemporaryDirectory() as scratch:
        clean_changes(changes, CLEANING, SPLIT, Path(scratch))[1].commit({})  # rejected_rows is committed, cleaned_features is not
    _run_cleaning(raw, str(tmp_path))
    expected = outcome(raw.scan().collect(), CLEANING, SPLIT)
    tables = {name: find(uri) for name, uri in outputs.items()}
    assert all(table is not None and table.upstream == raw.content for table in tables.values())
    assert tables["cleaned_features"].scan().collect().sort("row_id").equals(expected.examples.sort("row_id"))  # type: ignore[union-attr]
    assert tables["rejected_rows"].scan().collect().sort("row_id").equals(expected.rejected.sort("row_id"))  # type: ignore[union-attr]


@pytest.mark.parametrize("action", ["group", "drop", "off"])
def test_many_records_are_cleaned_in_parts_with_the_same_result(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = examples(300, seed=3)
    several = [(text + ending, label) for text, label in [*texts, *texts[:40]] for ending in ("", " again")]
    rows = pl.concat([records("f", *several), records("g", *texts[:20], ("", "positive"), (texts[5][0], "negative"))])
    rules = CleaningSettings.model_validate({"near_duplicates": {"action": action}})
    at_once = outcome(rows, rules, SPLIT)
    for module, name, few in [(deduplication, "PART_ROWS", 50), (near_duplicates, "PART_BANDS", 900), (alike, "TOGETHER_LETTERS", 900)]:
        monkeypatch.setattr(module, name, few)
    monkeypatch.setattr(alike, "COMPARED_LETTERS", 400)
    monkeypatch.setattr(cleaning, "BATCH_ROWS", 11)
    in_parts = outcome(rows, rules, SPLIT)
    assert {"duplicate", "conflicting_label", "empty_text"} <= set(at_once.rejected["rule"])
    assert in_parts.examples.equals(at_once.examples)
    assert in_parts.rejected.equals(at_once.rejected)


def test_other_settings_build_the_tables_anew(tmp_path: Path) -> None:
    raw = _replace(f"{tmp_path}/raw", None, records("a", ("one", "positive")), 0)
    outputs = {name: f"{tmp_path}/{name}" for name in ("cleaned_features", "rejected_rows")}
    _run_cleaning(raw, str(tmp_path))
    assert Upstream(raw, outputs).changes(version=cleaning.VERSION, cleaning=CLEANING, split=SPLIT).empty
    assert Upstream(raw, outputs).changes(version=cleaning.VERSION, cleaning=CLEANING, split=SplitSettings(seed=5)).rebuild


@pytest.mark.parametrize("labels", [ClassLabels, LabelSets])
def test_what_aliases_lead_to_is_canonical_whatever_its_case(labels: type[ClassLabels | LabelSets]) -> None:
    spelled = labels(CleaningSettings(label_aliases={"pos": "Positive"})).normalised(pl.col("label"))
    found = pl.DataFrame({"label": ["pos", "Positive", " POSITIVE ", "positive", "other"]}).select(spelled)["label"]
    assert found.str.strip_chars('[]"').to_list() == ["Positive"] * 4 + ["other"]


def test_labels_differ_in_more_than_case() -> None:
    with pytest.raises(ValueError, match="differ in more than case"):
        CleaningSettings(labels=("Yes", "yes"))
