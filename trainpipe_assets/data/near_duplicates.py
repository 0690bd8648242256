"""Groups of texts that say nearly the same, and what new texts change about the groups of known ones.

Which texts are compared is `buckets.py`'s, whether they are alike `alike.py`'s, and which records count at all `deduplication.py`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.data.alike import alike, components, linked, numbers_in, sketches_leave
from trainpipe_assets.data.batches import concurrently, count_rows, from_batches
from trainpipe_assets.data.buckets import PAIRS, Places, encounters, neighbours, shared_buckets
from trainpipe_assets.data.content_hash import with_number
from trainpipe_assets.data.minhash import bands_and_rows
from trainpipe_assets.data.spilling import in_parts, spilled

Numbers = NDArray[np.uint64]

PART_BANDS = 2_000_000  # bands, and pairs of texts that may be alike, that are looked at together: they bound the memory
PART_PAIRS = 2_000_000
PART_BYTES = 256 << 20  # of the texts of those pairs, where they are long

_TEXTS = "texts.parquet"


@dataclass(frozen=True)
class Standing:
    """What is known where only some texts are compared again.

    `groups`, `content_hash, duplicate_group`, are those whose links with each other are as they were. `bands`, `content_hash, band`, are of
    the texts beside those that are compared, which count as neighbours and no more.
    """

    groups: pl.DataFrame
    bands: pl.DataFrame

    @cached_property
    def _numbers(self) -> tuple[Numbers, Numbers]:
        beside, settled = (with_number(frame)["number"].unique().to_numpy() for frame in (self.bands, self.groups))
        return beside, settled

    def needs_comparison(self, number: Numbers) -> Callable[[Places, Places], NDArray[np.bool_]]:
        """Which pairs of places in `number` have to be compared."""
        beside, settled = (np.isin(number, known) for known in self._numbers)
        return lambda left, right: ~(beside[left] | beside[right] | (settled[left] & settled[right]))


def find_groups(
    texts: pl.LazyFrame, similarity: float, scratch: Path, standing: Standing | None = None, row_bytes: float | None = None
) -> pl.DataFrame:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    A group is named by its smallest content hash, so that it does not depend on the order in which texts arrived. In memory are parts of
    the texts, and what is found.

    Args:
        texts: all texts there are but for those `standing`: `content_hash`, `clean_text`, `near_bands`, `near_sketch`, one row a text.
        similarity: from which Jaccard index on two texts are linked.
        scratch: a folder for files.
        standing: what is known already, where not all texts are compared.
        row_bytes: bytes of a text, about, where that is known.

    Returns:
        `content_hash`, `duplicate_group`.
    """
    numbered = with_number(texts)
    known = spilled(numbered.select("number", "content_hash", "clean_text", "near_sketch"), scratch / _TEXTS, row_bytes)
    pairs = _spill_candidates(numbered.select("number", band="near_bands").explode("band"), known, similarity, scratch, standing)
    links = pl.DataFrame(schema=PAIRS)
    for part in pairs:
        links = pl.concat([links, _link(_apart(part.collect().unique(), links), known, similarity)])
    hashes = _read(known.select("number", "content_hash"), numbers_in(links))
    named = links.join(hashes, left_on="left", right_on="number").join(hashes, left_on="right", right_on="number", suffix="_right")
    links = named.select(left="content_hash", right="content_hash_right")
    if standing is not None:
        links = pl.concat([links, standing.groups.select(left="content_hash", right="duplicate_group")])
    return _components(links).rename({"name": "content_hash", "component": "duplicate_group"})


@dataclass(frozen=True)
class Links:
    """Content hashes of known texts: `gained` of those that are linked to a new one, `lost` of those that may not be to each other."""

    gained: pl.Series
    lost: pl.Series


def changed_links(bands: pl.DataFrame, texts: pl.DataFrame, known: pl.DataFrame, similarity: float) -> Links:
    """What new texts change about the `known` ones: whom they are linked to, and whom they come between where only neighbours are compared.

    Known texts without a text to compare are taken for `lost`.

    Args:
        bands: `number`, `band` of the new texts.
        texts: their `number`, `clean_text`, one row a text.
        known: `content_hash`, `clean_text`, `band` of the texts that share a band with them.
        similarity: from which on two texts are linked.
    """
    without = known.filter(pl.col("clean_text").is_null())["content_hash"].unique()
    numbered = with_number(known)
    found = encounters(bands.unique(), numbered.select("number", "band").unique())
    involved = numbers_in(pl.concat([found.met, found.parted]))
    others = numbered.filter(pl.col("clean_text").is_not_null()).unique("number").join(involved, on="number", how="semi")
    compared = pl.concat([texts.select("number", "clean_text"), others.select("number", "clean_text")])
    gained, lost = (numbers_in(alike(pairs, compared, similarity)) for pairs in (found.met, found.parted))
    hashes = [others.join(numbers, on="number", how="semi")["content_hash"] for numbers in (gained, lost)]
    return Links(hashes[0], pl.concat([hashes[1], without]))


def _spill_candidates(
    bands: pl.LazyFrame, known: pl.LazyFrame, similarity: float, scratch: Path, standing: Standing | None
) -> Sequence[pl.LazyFrame]:
    """Pairs of numbers that may be alike, in parts; each pair is in one of them, maybe repeatedly."""
    n_texts = count_rows(known)
    n_bands = n_texts * bands_and_rows(similarity)[0]
    if standing is not None:
        bands = pl.concat([bands, with_number(standing.bands.lazy()).select("number", "band")])
        n_bands += standing.bands.height
    by_band = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "by-band")

    def candidates(part: pl.LazyFrame) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=PAIRS), *_candidates_in(part.collect(), known, similarity, standing)])

    pairs = spilled(from_batches(lambda: concurrently(candidates, by_band), PAIRS), scratch / "pairs.parquet")
    n_bytes = (scratch / _TEXTS).stat().st_size
    fitting = PART_PAIRS if n_bytes <= PART_BYTES else PART_BYTES * n_texts // (2 * n_bytes)
    part_pairs = max(1, min(PART_PAIRS, fitting))
    return in_parts(pairs, pl.col("left"), count_rows(pairs), part_pairs, scratch / "by-left")


def _candidates_in(bands: pl.DataFrame, known: pl.LazyFrame, similarity: float, standing: Standing | None) -> Iterator[pl.DataFrame]:
    """Pairs of neighbours in the buckets of `bands`, as far as the sketches of the texts leave them; some of them repeatedly."""
    buckets = shared_buckets(bands)
    band, number = (buckets[name].to_numpy() for name in ("band", "number"))
    sketched = _read(known.select("number", "near_sketch"), buckets.select("number").unique()).sort("number")
    if sketched.is_empty():
        return
    place = np.searchsorted(sketched["number"].to_numpy(), number)
    found = sketched["near_sketch"].to_numpy()[np.minimum(place, len(sketched) - 1)]  # any for texts beside, which are passed over
    needs_comparison = None if standing is None else standing.needs_comparison(number)
    for distance, left in neighbours(band):
        if needs_comparison is not None:
            left = left[needs_comparison(left, left + distance)]
        for one, other in sketches_leave(found, left, left + distance, similarity):
            yield pl.DataFrame({"left": number[one], "right": number[other]}, schema=PAIRS)


def _apart(pairs: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """Those of `pairs` whose texts do not hang together by `links` yet."""
    hanging = _components(links)
    both = pairs.join(hanging, left_on="left", right_on="name", how="left")
    both = both.join(hanging, left_on="right", right_on="name", how="left", suffix="_right")
    return both.filter((pl.col("component") != pl.col("component_right")).fill_null(True)).select(pairs.columns)


def _link(pairs: pl.DataFrame, known: pl.LazyFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs`, each of which comes once, by which texts that are alike hang together."""
    if pairs.is_empty():
        return pairs
    return linked(pairs.sort("left", "right"), _read(known.select("number", "clean_text"), numbers_in(pairs)), similarity)


def _read(known: pl.LazyFrame, numbers: pl.DataFrame) -> pl.DataFrame:
    """What is `known` of the texts of these numbers. As a filter, not as a join, it reaches the reader, which then reads little ahead."""
    return known.filter(pl.col("number").is_in(numbers["number"].implode())).collect(engine="streaming")


def _components(links: pl.DataFrame) -> pl.DataFrame:
    """Each `name` in `links`, and the smallest one in its connected `component`."""
    names = pl.concat([links["left"], links["right"]]).unique().sort().alias("name")
    numbers = names.to_frame().with_row_index("number")
    left, right = (links.select(name=side).join(numbers, on="name", maintain_order="left")["number"].to_numpy() for side in links.columns)
    _, first, of_each = np.unique(components(left, right, len(names)), return_index=True, return_inverse=True)
    return pl.DataFrame({"name": names, "component": names.gather(first[of_each])})
