"""Drift on texts that people wrote: every pair of domains is told apart, a resample of the same domain is not, whatever its size."""

import io
import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from trainpipe_assets.evaluation import drift
from trainpipe_assets.evaluation.drift import DriftComparison, compare
from trainpipe_assets.evaluation.drift_plot import drift_plot
from trainpipe_assets.evaluation.figures import DARK, LIGHT, edges_of
from trainpipe_assets.evaluation.profile import profile
from trainpipe_assets.settings import DriftSettings, PipelineSettings
from trainpipe_tests.sample_corpora import read_corpora

DEFAULT = DriftSettings()
NAMES = ("movies", "amazon", "tweets", "editorials")


@pytest.fixture(scope="module")
def corpora() -> dict[str, pl.DataFrame]:
    return {name: rows.with_columns(n_chars=pl.col("text").str.len_chars()) for name, rows in read_corpora().items()}


def statistics(comparison: DriftComparison) -> dict[str, float]:
    return {shift.name: shift.statistic for shift in comparison.shifts}


def samples(texts: list[str], labels: list[str | None]) -> pl.DataFrame:
    lengths = pl.Series([len(text) for text in texts], dtype=pl.Int64)
    return pl.DataFrame({"text": texts, "label": pl.Series(labels[: len(texts)], dtype=pl.String), "n_chars": lengths})


@pytest.mark.parametrize(("reference", "arrival"), combinations(NAMES, 2))
def test_another_domain_is_drift_by_words_and_by_classifier(corpora, reference, arrival):
    comparison = compare(corpora[reference][:1000], corpora[arrival][:300], DEFAULT)
    said = {shift.name for shift in comparison.shifts if shift.drifted}
    assert said >= {"vocabulary_shift", "domain_auc"}
    assert statistics(comparison)["domain_auc"] > 0.85


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [DEFAULT.min_rows, 1500])
def test_a_resample_of_the_same_domain_is_no_drift(corpora, name, size):
    comparison = compare(corpora[name][:1500], corpora[name][1500 : 1500 + size], DEFAULT)
    assert not comparison.drifted, comparison.shifts


def test_each_test_answers_to_its_own_shift_alone(corpora):
    movies = corpora["movies"]
    reference, same = movies[:1500], movies[1500:3000]
    positive = pl.concat([same.filter(pl.col("label") == "positive"), same.filter(pl.col("label") == "negative")[:100]])
    relabelled = same.with_columns(label=pl.Series(np.where(np.arange(1500) % 4 == 0, "negative", "positive")))
    cut = same.with_columns(n_chars=pl.col("n_chars") // 2)
    assert {shift.name for shift in compare(reference, relabelled, DEFAULT).shifts if shift.drifted} == {"label_shift"}
    assert {shift.name for shift in compare(reference, cut, DEFAULT).shifts if shift.drifted} == {"length_shift"}
    assert "label_shift" in {shift.name for shift in compare(reference, positive, DEFAULT).shifts if shift.drifted}


def test_the_words_that_changed_are_named_with_their_frequencies(corpora):
    comparison = compare(corpora["movies"][:1000], corpora["amazon"][:1000], DEFAULT)
    changed = {word.word: word for word in comparison.changed_words}
    assert changed["phone"].arrival > 10 * changed["phone"].reference
    assert changed["movie"].reference > changed["movie"].arrival if "movie" in changed else len(changed) == drift.CHANGED_WORDS
    assert 0.0 < comparison.vocabulary_coverage < 1.0


def test_the_same_samples_are_judged_the_same(corpora):
    first, second = (compare(corpora["tweets"][:300], corpora["tweets"][300:600], DEFAULT) for _ in range(2))
    assert first.shifts == second.shifts


def test_a_test_is_left_out_and_a_threshold_decides(corpora):
    movies, tweets = corpora["movies"][:300], corpora["tweets"][:300]
    only = {"length_shift": None, "vocabulary_shift": None, "domain_auc": None}
    strict, lenient = (compare(movies, tweets, DriftSettings(label_shift=at, **only)) for at in (0.05, 0.9))
    assert [shift.name for shift in strict.shifts] == ["label_shift"]
    assert strict.drifted
    assert not lenient.drifted


def test_a_large_shift_that_chance_explains_is_no_drift():
    """Ten of twenty against fourteen of twenty: the shares differ by 0.2, as they do by chance in every fifth pair of such samples."""
    texts = [f"a word {index}" for index in range(20)]
    sides = [samples(texts, ["positive"] * n + ["negative"] * (20 - n)) for n in (10, 14)]
    (shift,) = compare(*sides, DriftSettings(length_shift=None, vocabulary_shift=None, domain_auc=None)).shifts
    assert shift.statistic == pytest.approx(0.2)
    assert shift.p_value == pytest.approx(0.197, abs=0.001)  # chi-squared of 1.667 with one degree of freedom
    assert not shift.drifted


def test_the_divergence_is_that_of_the_definition():
    """Two samples without a common word diverge by one bit; chance is what random halves of all texts do."""
    reference, arrival = pl.Series(["a b"] * 50), pl.Series(["c d"] * 50)
    words = drift.Words(reference, arrival)
    above_chance, p_value = words.shift()
    assert 0.9 < above_chance <= 1.0
    assert p_value == pytest.approx(1 / (1 + drift.PERMUTATIONS))
    assert words.coverage() == 0.0


@pytest.mark.parametrize(("auc", "n", "expected"), [(0.8, 50, 0.0870), (0.5, 100, 0.0804)])
def test_the_interval_of_an_auc_is_hanley_and_mcneils(auc, n, expected):
    low, high = drift.auc_interval(auc, n, n)
    assert (high - low) / 2 == pytest.approx(expected, abs=0.001)


TEXTS = st.lists(st.text(max_size=30), min_size=20, max_size=30)


@settings(max_examples=10, deadline=None)
@given(TEXTS, TEXTS, st.lists(st.sampled_from(["a", "b", None]), min_size=30, max_size=30))
def test_texts_of_any_kind_can_be_compared(reference, arrival, labels):
    shifts = compare(samples(reference, labels), samples(arrival, labels[::-1]), DEFAULT).shifts
    assert all(0.0 <= shift.statistic <= 1.0 and 0.0 <= shift.p_value <= 1.0 for shift in shifts)


def test_samples_of_any_kind_can_be_drawn():
    empty, odd = samples([""] * 20, ["$\\frac{1}{0$"] * 20), samples(["\U0001f600"] * 20, [f"{number}" for number in range(20)])
    documents = samples([f"a document {number}" for number in range(20)], [None] * 20)
    assert "label_shift" not in statistics(compare(documents, documents, DEFAULT))
    for sides in ((documents, documents), (empty, empty), (empty, odd), (odd, odd)):
        assert drift_plot(compare(*sides, DEFAULT)).startswith(b"\x89PNG")


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_picture_is_drawn_on_the_surface_of_its_theme(corpora, theme):
    png = drift_plot(compare(corpora["movies"][:300], corpora["tweets"][:300], DEFAULT), theme)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 2))) == theme.surface
    assert len(image.getcolors(maxcolors=1_000_000)) > 20


def test_a_profile_counts_labels_and_orders_lengths():
    found = profile(pl.LazyFrame({"label": ["a", "b", "b", None], "n_chars": [1, 2, 3, 100]}))
    assert (found.rows, dict(found.labels)) == (4, {"b": 2, "": 1, "a": 1})
    assert found.lengths == {0.05: 1, 0.25: 1, 0.5: 2, 0.75: 3, 0.95: 100}
    assert profile(pl.LazyFrame(schema={"label": pl.String, "n_chars": pl.Int64})).rows == 0


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match=r"drift\.min_rows \(500\) is larger than drift.sample_rows"):
        DriftSettings(min_rows=500, sample_rows=400)
    with pytest.raises(ValidationError, match="nothing would ever be trained"):
        PipelineSettings.model_validate({"automation": {"retrain": "on_drift"}, "drift": {"enabled": False}})


def test_numbers_that_moved_are_drift_of_the_labels() -> None:
    random = np.random.default_rng(0)
    texts = {"text": ["some words of a text"] * 400, "n_chars": [20] * 400}
    sides = [pl.DataFrame({**texts, "label": (random.normal(mean, 1.0, 400)).astype(str)}) for mean in (0.0, 0.0, 0.8)]
    same, moved = (compare(sides[0], arrival, DEFAULT, "text-regression") for arrival in sides[1:])
    assert statistics(same)["label_shift"] < DEFAULT.label_shift
    assert [shift.name for shift in moved.shifts if shift.drifted] == ["label_shift"]
    assert drift_plot(moved).startswith(b"\x89PNG")


def test_labels_that_more_texts_have_are_drift_too() -> None:
    random = np.random.default_rng(0)
    texts = {"text": ["some words of a text"] * 400, "n_chars": [20] * 400}

    def labelled(share: float) -> pl.DataFrame:
        sets = [[name for name, chance in (("a", 0.5), ("b", share)) if random.random() < chance] for _ in range(400)]
        return pl.DataFrame({**texts, "label": [json.dumps(names) for names in sets]})

    sides = [labelled(share) for share in (0.3, 0.3, 0.9)]
    same, moved = (compare(sides[0], arrival, DEFAULT, "multi-label-classification") for arrival in sides[1:])
    assert not same.drifted
    assert [shift.name for shift in moved.shifts if shift.drifted] == ["label_shift"]
    assert drift_plot(moved).startswith(b"\x89PNG")


def test_texts_without_labels_are_a_label_of_their_own():
    def side(*labels: str) -> pl.DataFrame:
        rows = [label for label in labels for _ in range(100)]
        texts = [f"text {number % 50} of many" for number in range(len(rows))]
        return pl.DataFrame({"text": texts, "label": rows, "n_chars": [len(text) for text in texts]})

    settings = DriftSettings(min_rows=20)
    for reference, arrival, expected in ((('["a"]', "[]"), ('["a"]', '["a"]'), 0.5), (('["a"]',), ("[]",), 1.0), (("[]",), ("[]",), 0.0)):
        found = compare(side(*reference), side(*arrival), settings, "multi-label-classification")
        (shift,) = [one for one in found.shifts if one.name == "label_shift"]
        assert shift.statistic == pytest.approx(expected)
        drift_plot(found)


def test_numbers_that_lie_too_close_for_bins_are_one() -> None:
    assert len(edges_of(np.array([0.3, 0.1 + 0.2]), 20)) == 2
    assert len(edges_of(np.array([0.3, 0.4]), 20)) == 21
