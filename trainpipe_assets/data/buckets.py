"""Who is compared with whom: texts that share a band lie in one bucket, in order of their numbers, and each is compared with the next ones.

Nothing here looks at a text. Whether two of them are alike is `alike.py`'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate

PAIRS = pl.Schema({"left": pl.UInt64, "right": pl.UInt64})  # numbers of two texts

Places = NDArray[np.int64]


def shared_buckets(bands: pl.DataFrame) -> pl.DataFrame:
    """`bands` (`number`, `band`) of the buckets that hold more than one text, in their order."""
    in_order = bands["band"].sort()  # which is quicker than to count them
    repeated = in_order.filter(in_order == in_order.shift()).unique()
    return bands.filter(pl.col("band").is_in(repeated.implode())).sort("band", "number")


def neighbours(band: NDArray[np.int64]) -> Iterator[tuple[int, Places]]:
    """Each distance at which texts in the order of their buckets are compared, and the places of those with another one so far behind."""
    for distance in range(1, COMPARED + 1):
        places = np.flatnonzero(band[distance:] == band[:-distance])
        if not len(places):
            return
        yield distance, places


@dataclass(frozen=True)
class Encounters:
    """Pairs of numbers (`PAIRS`): `met`, of a new and a known text to be compared; `parted`, of two known ones that no longer are."""

    met: pl.DataFrame
    parted: pl.DataFrame


def encounters(new: pl.DataFrame, known: pl.DataFrame) -> Encounters:
    """What becomes of the buckets of `known` texts when `new` ones come; both have `number` and `band`, each pair of them once."""
    together = pl.concat([frame.select("band", "number", new=pl.lit(frame is new)) for frame in (new, known)]).sort("band", "number")
    is_new, band, number = (together[name].to_numpy() for name in ("new", "band", "number"))
    known_band, known_number = band[~is_new], number[~is_new]
    following = np.cumsum(~is_new)[is_new]  # for each new text, which of the known ones comes next
    met = [pl.DataFrame(schema=PAIRS)]
    for distance in range(-COMPARED, COMPARED):
        place = following + distance
        there = (place >= 0) & (place < len(known_band))
        there[there] = known_band[place[there]] == band[is_new][there]
        met.append(_pairs(number[is_new][there], known_number[place[there]]))
    come_before = np.cumsum(is_new)[~is_new]
    parted = [pl.DataFrame(schema=PAIRS)]
    for distance, places in neighbours(known_band):
        between = come_before[places + distance] - come_before[places]
        apart = places[(between > 0) & (distance + between > COMPARED)]
        parted.append(_pairs(known_number[apart], known_number[apart + distance]))
    return Encounters(pl.concat(met).unique(), pl.concat(parted).unique())


def _pairs(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> pl.DataFrame:
    return pl.DataFrame({"left": left, "right": right}, schema=PAIRS).unique()
