"""Texts that are nearly the same: found where planted, never split apart, dropped only where asked."""

import random
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpipe_assets.data import alike as compared
from trainpipe_assets.data import near_duplicates
from trainpipe_assets.data.alike import FINE_SKETCH
from trainpipe_assets.data.buckets import COMPARED, PAIRS
from trainpipe_assets.data.content_hash import content_hash, with_number
from trainpipe_assets.data.minhash import (
    LARGEST_SIGNATURE,
    SKETCH_WORDS,
    bands_and_rows,
    bands_and_sketches,
    may_be_alike,
    shingles_of,
    sketches,
)
from trainpipe_assets.data.near_duplicates import changed_links, find_groups
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import CleaningSettings, NearDuplicateSettings, SplitSettings
from trainpipe_tests.data_plane import Outcome, outcome

TEXT = "a text of some length that others nearly repeat, and some do not"
WORDS = [f"{first}{second}{third}" for first in "bdfgklmnprst" for second in ("a", "e", "io", "ou") for third in "lmnrstx"]


def sentence(source: random.Random, words: int = 20) -> str:
    return " ".join(source.choice(WORDS) for _ in range(words))


def with_one_word_changed(text: str, source: random.Random) -> str:
    words = text.split(" ")
    place = source.randrange(len(words))
    words[place] = source.choice([word for word in WORDS if word != words[place]])
    return " ".join(words)


def with_letters_changed(text: str, source: random.Random, times: int) -> str:
    letters = list(text)
    for _ in range(times):
        letters[source.randrange(len(letters))] = source.choice("abcdefghij")
    return "".join(letters)


def shingles(text: str) -> set[str]:
    filled = text.lower().ljust(5, "\0")
    return {filled[start : start + 5] for start in range(len(filled) - 4)}


def jaccard(left: str, right: str) -> float:
    return len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))


def band_hashes(texts: pl.Series, similarity: float) -> pl.Series:
    return bands_and_sketches(texts, similarity)["near_bands"]


def groups_of(texts: list[str], similarity: float = 0.8) -> list[set[int]]:
    """Groups as sets of positions in `texts`, which must differ from each other."""
    names = [f"{number:06d}" for number in range(len(texts))]
    nodes = pl.DataFrame({"content_hash": names, "clean_text": texts}).with_columns(bands_and_sketches(pl.Series(texts), similarity))
    with TemporaryDirectory() as scratch:
        groups = find_groups(nodes.lazy(), similarity, Path(scratch))
    found: dict[str, set[int]] = {}
    for name, group in groups.iter_rows():
        found.setdefault(group, set()).add(int(name))
    return sorted(found.values(), key=min)


def cleaned(*texts: str, action: str = "group", labels: list[str] | None = None) -> Outcome:
    rows = [
        {"row_id": f"f-{n:06d}", "file_id": "f", "source_file": "f.csv", "file_version": "1", "line_number": n, "text": text,
         "label": labels[n] if labels else "positive", "extra": "{}", "problem": None, "ingested_at": datetime(2026, 1, 1, tzinfo=UTC)}
        for n, text in enumerate(texts)
    ]  # fmt: skip
    rules = CleaningSettings(near_duplicates=NearDuplicateSettings.model_validate({"action": action}))
    return outcome(pl.DataFrame(rows, schema=RAW_DATA), rules, SplitSettings(validation=0.3, test=0.3))


def test_planted_pairs_are_found_and_no_others() -> None:
    source = random.Random(4)
    originals = [sentence(source) for _ in range(1500)]
    copies = [with_one_word_changed(text, source) for text in originals]
    texts = [*originals, *copies]
    planted = {(n, n + 1500) for n in range(1500) if jaccard(originals[n], copies[n]) >= 0.8}
    found = {(min(group), max(group)) for group in groups_of(texts)}
    assert len(planted) > 1000
    assert len(found & planted) / len(planted) >= 0.99  # recall
    assert found <= planted  # precision is 1: each pair's similarity is computed, not estimated


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_a_signature_finds_pairs_at_the_threshold_and_stays_small(similarity: float) -> None:
    bands, rows = bands_and_rows(similarity)
    assert bands * rows <= LARGEST_SIGNATURE
    assert 1.0 - (1.0 - similarity**rows) ** bands >= 0.99


@pytest.mark.parametrize("words", [5, 20, 40])
def test_pairs_near_the_threshold_are_found_as_often_as_banding_promises(words: int) -> None:
    """The formula is that of independent hashes; those of one permutation are not quite, above all where a text has few shingles."""
    source = random.Random(words)
    bands, rows = bands_and_rows(0.8)
    texts = [sentence(source, words) for _ in range(3000)]
    pairs = [(text, with_letters_changed(text, source, max(1, words // 8))) for text in texts]
    similar = [pair for pair in pairs if 0.7 <= jaccard(*pair) <= 0.87]
    ones, others = (band_hashes(pl.Series([pair[side] for pair in similar]), 0.8) for side in (0, 1))
    found = (ones.list.set_intersection(others).list.len() > 0).mean()
    promised = sum(1.0 - (1.0 - jaccard(*pair) ** rows) ** bands for pair in similar) / len(similar)
    assert len(similar) > 400
    assert found == pytest.approx(promised, abs=0.03)


@given(st.lists(st.text(max_size=80), min_size=2, max_size=40), st.floats(0.5, 1.0), st.sampled_from([SKETCH_WORDS, FINE_SKETCH]))
@settings(deadline=None, max_examples=100)
def test_sketches_never_rule_out_what_is_alike(texts: list[str], similarity: float, words: int) -> None:
    texts = texts + [text + "x" for text in texts]
    sketched = sketches(shingles_of(pl.Series(texts, dtype=pl.String)), words)
    for left, text in enumerate(texts):
        possible = may_be_alike(sketched[[left] * len(texts)], sketched, similarity)
        assert all(possible[right] for right, other in enumerate(texts) if jaccard(text, other) >= similarity)


def forms(count: int, letters: int, seed: int) -> list[str]:
    """Long texts that share long beginnings, so that each has many neighbours; of some the rest is nearly the same, too."""
    source = random.Random(seed)
    beginnings = [sentence(source, letters // 8) for _ in range(4)]
    return [f"{source.choice(beginnings)} {sentence(source, source.choice([letters // 200, letters // 20]))}" for _ in range(count)]


@pytest.mark.parametrize("letters", [400, 4000])
def test_long_texts_with_the_same_boilerplate_are_compared_exactly_and_in_portions(letters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "TOGETHER_LETTERS", 40 * letters)
    monkeypatch.setattr(compared, "SKETCHED_WORDS", 3000)
    texts = forms(100, letters, seed=1)
    known = pl.DataFrame({"number": range(100), "clean_text": texts}, schema_overrides={"number": pl.UInt64})
    pairs = pl.DataFrame([(left, right) for left in range(100) for right in range(left + 1, 100)], schema=PAIRS, orient="row")
    similar = {(left, right) for left, right in pairs.iter_rows() if jaccard(texts[left], texts[right]) >= 0.85}
    assert 200 < len(similar) < pairs.height / 2
    assert set(compared.alike(pairs, known, 0.85).iter_rows()) == similar
    fewer = set(compared.linked(pairs, known, 0.85).iter_rows())
    assert fewer < similar
    assert components(fewer) == components(similar)


def test_what_hangs_together_already_is_not_compared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = sentence(random.Random(2), 600)
    texts = pl.Series("clean_text", [f"{head} {number:04d}" for number in range(60)])
    frame = texts.to_frame().with_columns(bands_and_sketches(texts, 0.85), content_hash=content_hash(pl.col("clean_text")))
    expected = find_groups(frame.lazy(), 0.85, tmp_path / "at once").sort("content_hash")
    taken_apart = []
    take_apart = compared.shingle_sets

    def counted(part: pl.Series) -> pl.Series:
        taken_apart.append(len(part))
        return take_apart(part)

    monkeypatch.setattr(compared, "shingle_sets", counted)
    monkeypatch.setattr(compared, "TOGETHER_LETTERS", 5 * 4000)
    monkeypatch.setattr(near_duplicates, "PART_PAIRS", 30)
    assert find_groups(frame.lazy(), 0.85, tmp_path / "in parts").sort("content_hash").equals(expected)
    assert (expected["duplicate_group"].n_unique(), expected.height) == (1, 60)
    assert sum(taken_apart) < 4 * 60, "texts of one group were taken apart again and again"


def components(pairs: set[tuple[int, int]]) -> set[frozenset[int]]:
    """What hangs together by `pairs`."""
    found: set[frozenset[int]] = set()
    for pair in pairs:
        met = {component for component in found if component & set(pair)}
        found = (found - met) | {frozenset(pair).union(*met)}
    return found


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20, unique_by=lambda text: text.lower()))
@settings(deadline=None, max_examples=50)
def test_any_text_has_bands_and_groups_hold_what_is_alike(texts: list[str]) -> None:
    bands = band_hashes(pl.Series(texts, dtype=pl.String), 0.8)
    assert bands.list.len().unique().to_list() == [16]
    for group in groups_of(texts):
        for member in group:
            assert any(jaccard(texts[member], texts[other]) >= 0.8 for other in group - {member})


def test_bands_do_not_depend_on_case_or_on_the_texts_around() -> None:
    alone = band_hashes(pl.Series(["The same text, twice"]), 0.8)[0].to_list()
    among = band_hashes(pl.Series(["short", "the SAME text, twice", ""]), 0.8)[1].to_list()
    assert alone == among
    assert len(band_hashes(pl.Series([], dtype=pl.String), 0.8)) == 0


def test_a_chain_is_one_group_and_shares_a_split() -> None:
    source = random.Random(7)
    chain = [sentence(source, 30)]
    while jaccard(chain[0], chain[-1]) >= 0.6:
        chain.append(with_one_word_changed(chain[-1], source))
    others = [sentence(source, 30) for _ in range(30)]
    examples = cleaned(*chain, *others).examples.sort("row_id")
    assert examples["duplicate_group"].head(len(chain)).n_unique() == 1
    assert examples["split"].head(len(chain)).n_unique() == 1
    assert examples["duplicate_group"].n_unique() == 31
    assert set(examples["split"]) == {"train", "validation", "test"}


def test_thousands_with_the_same_boilerplate_are_one_group() -> None:
    source = random.Random(1)
    head = sentence(source, 40)
    groups = groups_of([f"{head} {number:04d}" for number in range(2000)])
    assert [len(group) for group in groups] == [2000]


def changed(known: list[str | None], before: int = 0) -> tuple[set[int], set[int]]:
    """Positions of those `known` texts that a text new to their bucket is linked to, and of those that it may come between.

    In the order of the bucket the new one has `before` known ones before it.
    """
    text = pl.Series([TEXT])
    hashes = [f"{2 * place:016x}" for place in range(len(known))]
    coming = with_number(pl.DataFrame({"content_hash": [f"{2 * before - 1:016x}"], "clean_text": text}))
    links = changed_links(
        coming.select("number", band=pl.lit(7, pl.Int64)),
        coming,
        pl.DataFrame({"content_hash": hashes, "clean_text": pl.Series(known, dtype=pl.String)}).with_columns(band=pl.lit(7, pl.Int64)),
        0.8,
    )
    gained, lost = ({int(one, 16) // 2 for one in found} for found in (links.gained, links.lost))
    return gained, lost


def test_of_the_texts_that_share_a_band_only_similar_ones_are_decided_again() -> None:
    source = random.Random(6)
    assert changed([TEXT + "!", sentence(source), None, sentence(source)], before=2) == ({0}, {2})


def test_in_a_full_bucket_similar_texts_that_a_new_one_comes_between_lose_each_other() -> None:
    source = random.Random(6)
    known: list[str | None] = [sentence(source) for _ in range(COMPARED + 4)]
    text = sentence(source)
    known[1], known[COMPARED + 1] = text, f"{text}!"
    assert changed(known, before=5) == (set(), {1, COMPARED + 1})
    assert changed(known, before=1) == (set(), set())
    assert changed(known[1 : COMPARED + 2], before=4) == (set(), {0, COMPARED})
    assert changed([*known[1:5], *known[6 : COMPARED + 2]], before=4) == (set(), set())


def test_texts_out_of_reach_of_a_new_one_are_not_linked_to_it() -> None:
    source = random.Random(6)
    known: list[str | None] = [TEXT + "!", *(sentence(source) for _ in range(COMPARED))]
    assert changed(known, before=COMPARED) == ({0}, set())
    assert changed(known, before=COMPARED + 1) == (set(), set())


def test_dropped_ones_name_the_first_of_their_group() -> None:
    source = random.Random(2)
    text = sentence(source)
    near = next(other for other in (with_one_word_changed(text, source) for _ in range(50)) if 0.8 <= jaccard(text, other) < 1.0)
    result = cleaned(text, near, text, sentence(source), action="drop")
    assert result.examples["row_id"].sort().to_list() == ["f-000000", "f-000003"]
    reasons = dict(result.rejected.select("row_id", "reason").iter_rows())
    assert reasons == {
        "f-000001": "nearly repeats f.csv line 0 (row f-000000), itself or by way of others",
        "f-000002": "repeats f.csv line 0 (row f-000000)",
    }
    assert result.rejected["duplicate_group"].n_unique() == 1


def test_a_contradicted_text_links_nothing() -> None:
    source = random.Random(2)
    text = sentence(source)
    near = next(other for other in (with_one_word_changed(text, source) for _ in range(50)) if 0.8 <= jaccard(text, other) < 1.0)
    result = cleaned(text, near, text, action="drop", labels=["positive", "positive", "negative"])
    assert result.examples["row_id"].to_list() == ["f-000001"]
    assert result.rejected["rule"].to_list() == ["conflicting_label"] * 2


def test_off_neither_looks_nor_groups() -> None:
    result = cleaned("a text that is long enough to compare", "a text that is long enough to compare!", action="off")
    assert result.examples["near_bands"].null_count() == 2
    assert (result.examples["duplicate_group"] == result.examples["content_hash"]).all()
    assert (
        cleaned("a text that is long enough to compare", "a text that is long enough to compare!").examples["duplicate_group"].n_unique()
        == 1
    )


def test_bands_stay_what_they_are() -> None:
    found = band_hashes(pl.Series(["A fixed text whose signature is stored in tables."]), 0.8)[0]
    assert np.asarray(found)[:3].tolist() == BANDS


BANDS = [-732384782863181907, 1678591553083093958, 8431604916217930535]
