"""The next item is made while the one before is in use; nothing is lost, and nothing swallowed."""

from collections.abc import Iterator
from threading import Event

import pytest

from trainpipe_assets.prefetching import one_ahead

PATIENCE_SECONDS = 30.0


def test_the_next_item_is_made_while_the_consumer_is_at_work_and_no_further_one() -> None:
    made, second = list[int](), Event()

    def items() -> Iterator[int]:
        for item in range(5):
            made.append(item)
            if item == 1:
                second.set()
            yield item

    coming = one_ahead(items())
    assert next(coming) == 0
    assert second.wait(PATIENCE_SECONDS)
    assert made == [0, 1]
    assert list(coming) == [1, 2, 3, 4]


def test_what_was_made_before_a_failure_is_delivered() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the file breaks off")

    coming = one_ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="breaks off"):
        next(coming)


def test_of_nothing_comes_nothing() -> None:
    assert list(one_ahead([])) == []
