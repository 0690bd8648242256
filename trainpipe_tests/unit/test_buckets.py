"""Who is compared with whom, against counting neighbours by hand; and where a bucket is large."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpipe_assets.data.buckets import COMPARED, PAIRS, encounters, neighbours, shared_buckets

BANDS = pl.Schema({"number": pl.UInt64, "band": pl.Int64})

Pairs = set[tuple[int, int]]


def bands(texts: set[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(sorted(texts), schema=BANDS, orient="row")


def pairs(frame: pl.DataFrame) -> Pairs:
    assert frame.schema == PAIRS
    assert frame.is_unique().all()
    return set(frame.iter_rows())


def compared(texts: set[tuple[int, int]]) -> Pairs:
    """The definition: in order of their numbers, each text of a bucket is compared with the next `COMPARED`."""
    return {pair for band in {band for _, band in texts} for pair in _of_bucket(sorted(number for number, of in texts if of == band))}


def _of_bucket(numbers: list[int]) -> Iterator[tuple[int, int]]:
    for place, left in enumerate(numbers):
        yield from ((left, right) for right in numbers[place + 1 : place + 1 + COMPARED])


texts = st.sets(st.tuples(st.integers(0, 60), st.sampled_from([-5, 0, 9])), max_size=120)


@given(texts)
@settings(deadline=None)
def test_neighbours_are_those_of_the_definition(held: set[tuple[int, int]]) -> None:
    buckets = shared_buckets(bands(held))
    number = buckets["number"].to_numpy()
    found = {
        (int(number[place]), int(number[place + distance]))
        for distance, places in neighbours(buckets["band"].to_numpy())
        for place in places
    }
    assert found == compared(held)


@given(texts, st.sets(st.integers(0, 60)))
@settings(deadline=None)
def test_new_texts_meet_and_part_those_that_the_definition_says(held: set[tuple[int, int]], come: set[int]) -> None:
    new = {(number, band) for number, band in held if number in come}
    known = held - new
    found = encounters(bands(new), bands(known))
    met = {(left, right) if left in come else (right, left) for left, right in compared(held) if (left in come) != (right in come)}
    assert met <= pairs(found.met)  # with some that others come between
    assert all(left in come and right not in come for left, right in found.met.iter_rows())
    gone = compared(known) - compared(held)
    assert gone <= pairs(found.parted) <= compared(known)  # with some that another bucket still compares
    if len({band for _, band in held}) <= 1:
        assert pairs(found.parted) == gone


def test_a_large_bucket_costs_what_its_texts_cost_and_not_their_product() -> None:
    numbers = np.arange(400_000, dtype=np.uint64)
    new, known = (pl.DataFrame({"number": numbers[start::2], "band": np.zeros(200_000, np.int64)}) for start in (0, 1))
    found = encounters(new, known)  # the product would be 40 billion pairs
    assert found.met.height < 200_000 * 2 * COMPARED
    assert found.parted.height < 200_000 * COMPARED
