"""What the tests of the graph share."""

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance of the test's own, in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
