"""Five assets that do nothing, one after the other: what Dagster itself costs, the yardstick for a run with nothing to do."""

import dagster as dg


@dg.asset
def first() -> None:
    """Nothing."""


@dg.asset(deps=[first])
def second() -> None:
    """Nothing."""


@dg.asset(deps=[second])
def third() -> None:
    """Nothing."""


@dg.asset(deps=[third])
def fourth() -> None:
    """Nothing."""


@dg.asset(deps=[fourth])
def fifth() -> None:
    """Nothing."""


defs = dg.Definitions(assets=[first, second, third, fourth, fifth], executor=dg.in_process_executor)
