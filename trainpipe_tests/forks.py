"""Processes that have imported everything: forks of one server, so that a short run is not spent on imports.

The server is one for each process that asks for it, and imports for all who do.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext

IMPORTED = [
    "s3fs",
    "trainpipe_tests.conftest",
    "trainpipe_tests.data_plane",
    "trainpipe_tests.mutations",
    "trainpipe_tests.pipelines",
    "trainpipe_tests.s3.faulty_proxy",
]


def forks() -> ForkServerContext:
    """The context of these processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context
