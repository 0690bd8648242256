"""Work that runs left unfinished, because they failed or were canceled: tables that do not cover what lies upstream of them.

Read from the tables alone: each commit says which content of its upstream it covers.
"""

from collections.abc import Mapping

from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.delta import Table

UPSTREAM = {
    "cleaned_features": "raw_data",
    "rejected_rows": "raw_data",
    "drift_report": "cleaned_features",
    "tokenized_dataset": "cleaned_features",
    "eval_report": "tokenized_dataset",
}
"""What each table is made from, in the order of the flow; the model between the last two is covered by its evaluation."""


_NOT_NOTED = 0  # what a table covers that was made before this was noted; a content is 1 at least


def wanted(settings: PipelineSettings, *, has_model: bool) -> tuple[str, ...]:
    """The tables that all data is to reach: not the evaluation where there is a current model, and only drift is a reason to train."""
    left_out = {
        *(() if settings.drift.enabled else ("drift_report",)),
        *(("eval_report",) if settings.automation.retrain == "on_drift" and has_model else ()),
    }
    return ("raw_data", *(name for name in UPSTREAM if name not in left_out))


def unfinished(tables: Mapping[str, Table | None]) -> list[str]:
    """The names of those of `tables` that do not cover all of their upstream, in the order of the flow."""
    behind: list[str] = []
    for name, source in UPSTREAM.items():
        table, upstream = tables.get(name), tables.get(source)
        lags = upstream is not None and (table is None or not (table.covers(upstream) or table.upstream == _NOT_NOTED))
        if name in tables and (lags or source in behind):
            behind.append(name)
    return behind
