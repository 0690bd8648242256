"""Work that runs left undone, because they failed or were canceled: tables that do not cover what lies upstream of them.

Read from the tables alone: each commit says which content of its upstream it covers.
"""

from collections.abc import Mapping

from trainpipe_assets.storage.delta import Table

UPSTREAM = {
    "cleaned_features": "raw_data",
    "rejected_rows": "raw_data",
    "drift_report": "cleaned_features",
    "tokenized_dataset": "cleaned_features",
    "eval_report": "tokenized_dataset",
}
"""What each table is made from, in the order of the flow; the model between the last two is covered by its evaluation."""


def undone(tables: Mapping[str, Table | None]) -> list[str]:
    """The names of those of `tables` that do not cover all of their upstream, in the order of the flow."""
    behind: list[str] = []
    for name, source in UPSTREAM.items():
        table, upstream = tables.get(name), tables.get(source)
        lags = upstream is not None and (table is None or table.upstream != upstream.content)
        if name in tables and (lags or source in behind):
            behind.append(name)
    return behind
