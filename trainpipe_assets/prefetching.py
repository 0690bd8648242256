"""Making the next item in a thread while the consumer is at work on this one: of files and of batches to train on alike."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in order, each made by a thread of its own while the consumer is at work on the one before."""
    coming, nothing = iter(items), object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="one-ahead") as pool:
        pending = pool.submit(next, coming, nothing)
        while (item := pending.result()) is not nothing:
            pending = pool.submit(next, coming, nothing)
            yield cast(Item, item)
