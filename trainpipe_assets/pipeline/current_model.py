"""Which model is the current one, and what it was trained on; read from the history of evaluations and from manifests.

There is no registry: the current model is the newest one whose gate passed and whose folder is there.
"""

from collections.abc import Iterator

import polars as pl

from trainpipe_assets.pipeline.provenance import dataset_digest
from trainpipe_assets.settings import Task
from trainpipe_assets.storage.artifacts import Artifact, read_manifest
from trainpipe_assets.storage.delta import FIRST_COMMIT, MissingTable, Table, find
from trainpipe_assets.storage.identity import as_hex
from trainpipe_assets.storage.uris import lake_of, relocated


def history_of(table: Table) -> pl.DataFrame:
    """All rows of a history, of evaluations or of comparisons, with the URIs that they name as they are in the lake of `table`."""
    root = lake_of(table.uri)
    uris = pl.selectors.string() & pl.selectors.ends_with("_uri")
    return table.scan().collect().with_columns(uris.map_elements(lambda uri: relocated(uri, root), return_dtype=pl.String))


def current_model(history: Table | None, task: Task, *, before_run: str | None = None) -> Artifact | None:
    """The current model of `task` by the `history` of evaluations; None where none has passed the gate, or all their folders were deleted.

    With `before_run` the one that was current before the run of that id, whichever of its steps come first.
    """
    models = (model for model in passed_models(history_of(history)) if model.task == task) if history else iter(())
    return next((model for model in models if before_run is None or model.manifest["run_id"] != before_run), None)


def passed_models(evaluations: pl.DataFrame) -> Iterator[Artifact]:
    """The models whose gate passed and whose folders are there, the one evaluated last first."""
    passed = evaluations.filter("gate_passed").sort("evaluated_at", descending=True)
    for uri in passed["model_uri"].unique(maintain_order=True):
        model = read_manifest(uri)
        if model is not None:
            yield model


def trained_version(model: Artifact) -> int:
    """The version of cleaned_features that a model was trained on."""
    return int(model.manifest["lake"]["cleaned_features"]["version"])


def version_in(model: Artifact, examples: Table) -> int | None:
    """The version of `examples` (cleaned_features) that a model was trained on, by its manifest or by its content; None where it has none.

    A table that was deleted and made anew of the same files has that content in its first commit, and the model is not trained again.
    """
    noted = model.manifest["lake"]["cleaned_features"].get("table")  # which an older version does not say
    if noted in (None, as_hex(examples.identity)):
        return trained_version(model)
    try:
        first = find(examples.uri, FIRST_COMMIT)
    except MissingTable:
        return None
    return FIRST_COMMIT if first is not None and dataset_digest(first) == model.manifest["dataset"]["digest"] else None


def newest_evaluated(evaluations: Table | None) -> Artifact | None:
    """The model that was evaluated last, whatever its gate said; None where there is none any more."""
    newest = history_of(evaluations).sort("evaluated_at").select("model_uri").tail(1) if evaluations else pl.DataFrame()
    return read_manifest(newest.item()) if newest.height else None
