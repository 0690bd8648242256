"""How assets are kept: tables as Delta, models as sealed folders.

An input is read at the version that the same run committed, else at the version that stands when the step starts; an output is
committed at once, with what it was made from. The mechanics are `storage`'s.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets.pipeline.descriptions import PRIVATE
from trainpipe_assets.pipeline.failures import explained
from trainpipe_assets.pipeline.metadata import PREVIEW, column_schema, preview
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.storage.artifacts import Artifact, list_artifacts, publish, read_manifest, seal, verify
from trainpipe_assets.storage.delta import Commit, Table, find
from trainpipe_assets.storage.identity import as_hex
from trainpipe_assets.storage.increments import Increment, Upstream
from trainpipe_assets.storage.mirror import discard
from trainpipe_assets.storage.uris import join

_HIDDEN = dg.MetadataValue.md("Not shown: this table holds texts as they arrived, and `cleaning.redact` is set.")
VERSION_KEY, MODEL_KEY = "table_version", "model_uri"
DATA_VERSION = "dagster/data_version"  # the tag by which Dagster knows a materialization's version


def upstream(key: dg.AssetKey, **outputs: dg.AssetKey) -> dg.AssetIn:
    """An input that can tell what its asset's own outputs (name → key) have not processed yet."""
    return dg.AssetIn(key=key, metadata={"outputs": {name: output.to_user_string() for name, output in outputs.items()}})


def _logged(context: dg.InputContext, name: str, *, this_run: bool = True) -> Any | None:
    """Metadata `name` of the newest materialization of the input, by default only if it belongs to this very run."""
    run_id = context.step_context.run_id
    records = context.instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=context.asset_key), limit=20).records
    for record in records:
        if (record.run_id == run_id or not this_run) and record.asset_materialization is not None:
            value = record.asset_materialization.metadata.get(name)
            return None if value is None else value.value
    return None


def _never_materialized(context: dg.InputContext) -> str:
    return f"{context.asset_key.to_user_string()} has never been materialized: materialize it first, or everything at once"


class DeltaIOManager(dg.ConfigurableIOManager):
    """Tables. An input annotated `Upstream` gives changes, `Table` a pinned version, `pl.LazyFrame` or `pl.DataFrame` all its rows."""

    lake: Lake

    def load_input(self, context: dg.InputContext) -> Upstream | Table | pl.LazyFrame | pl.DataFrame:
        """The input at its pinned version.

        Raises:
            dagster.Failure: the table has never been materialized.
        """
        table = self._pinned(context)
        context.log.info(f"reads {context.asset_key.to_user_string()} at version {table.version}: {table.rows:,} rows")
        wanted = context.dagster_type.typing_type
        if wanted is Upstream:
            outputs: Mapping[str, str] = (context.definition_metadata or {})["outputs"]
            return Upstream(table, {name: self.lake.table_uri(dg.AssetKey.from_user_string(key)) for name, key in outputs.items()})
        if wanted is pl.DataFrame:
            return table.scan().collect()
        return table.scan() if wanted is pl.LazyFrame else table

    def _pinned(self, context: dg.InputContext) -> Table:
        with explained():
            table = find(self.lake.table_uri(context.asset_key), _logged(context, VERSION_KEY))
            if table is None:
                raise ValueError(_never_materialized(context))
            return table

    def handle_output(self, context: dg.OutputContext, obj: Increment) -> None:
        """Commit the increment and log what became of the table."""
        hidden = bool((context.definition_metadata or {}).get(PRIVATE))
        context.add_output_metadata(keep(obj, context.asset_key, context.run_id, context.log, hidden=hidden))


def keep(increment: Increment, key: dg.AssetKey, run_id: str, log: dg.DagsterLogManager, *, hidden: bool) -> dict[str, Any]:
    """Commit what a run made of the table `key`, and say what became of it; `hidden` rows are not shown.

    Raises:
        dagster.Failure: another run moved the table meanwhile, or it cannot be written.
    """
    name = key.to_user_string()
    note = {"run_id": run_id, "asset": name, "fingerprint": as_hex(increment.fingerprint), "upstream_version": str(increment.upstream)}
    with explained():
        done = increment.commit(note)
    table, update = done.table, _kind_of(increment, done)
    log.info(f"{name} is at version {table.version}: {table.rows:,} rows, {done.added:,} added, {done.removed:,} removed ({update})")
    return {
        VERSION_KEY: table.version,
        "dagster/row_count": table.rows,
        "dagster/uri": table.uri,
        "dagster/column_schema": column_schema(table.schema),
        "rows_added": done.added,
        "rows_removed": done.removed,
        "size_bytes": table.size_bytes,
        "update": update,
        "fingerprint": as_hex(increment.fingerprint),
        PREVIEW: _HIDDEN if hidden else preview(table),
    }


def _kind_of(increment: Increment, done: Commit) -> str:
    """What became of the table, for the metadata `update`."""
    if increment.base is None:
        return "created"
    if increment.rebuild:
        return "rebuilt"
    return "incremental" if done.added or done.removed else "nothing new"


def kept_together(context: dg.AssetExecutionContext, *outputs: dg.Output[Increment]) -> Iterator[dg.Output[Increment]]:
    """Those of the outputs of one step that were selected. The others are kept here, for without them the tables would not add up."""
    for output in outputs:
        if output.output_name in context.selected_output_names:
            yield output
            continue
        key = context.asset_key_for_output(output.output_name)
        hidden = bool(context.assets_def.metadata_by_key[key].get(PRIVATE))
        metadata = {**output.metadata, **keep(output.value, key, context.run_id, context.log, hidden=hidden)}
        version = {DATA_VERSION: output.data_version.value} if output.data_version else {}
        context.log_event(dg.AssetMaterialization(key, metadata=metadata, tags=version))


def _require_lake(manifest: Mapping[str, Any]) -> None:
    """A lake whose tables are gone, such as a disk that is mounted no more, would get a model that nobody finds again."""
    for table in manifest["lake"].values():
        if find(table["uri"]) is None:
            raise ValueError(
                f"{table['uri']}, which the model was trained on, is not there any more, so the model was not published; it is in the "
                "scratch folder. Bring the lake back, or mount it, and run again"
            )


@dataclass(frozen=True)
class TrainedModel:
    """A finished model folder on local disk, what its manifest is to say of it, and the scratch to remove once it is published."""

    folder: Path
    manifest: Mapping[str, Any]
    scratch: Path


class ModelIOManager(dg.ConfigurableIOManager):
    """Models: published whole under their fingerprint, verified by hash whenever they are read."""

    lake: Lake

    def load_input(self, context: dg.InputContext) -> Artifact:
        """The model of this run, else the one that was materialized last.

        Raises:
            dagster.Failure: there is none, or its files are not those of its manifest.
        """
        with explained():
            uri = _logged(context, MODEL_KEY) or self._latest(context)
            artifact = read_manifest(uri) if uri else None
            if artifact is None:
                raise ValueError(_never_materialized(context))
            verify(artifact)
        return artifact

    def _latest(self, context: dg.InputContext) -> str | None:
        """The model materialized last; where Dagster's memory of it is gone, the one trained last."""
        models, logged = self.lake.models_uri(context.asset_key), _logged(context, MODEL_KEY, this_run=False)
        uri = None if logged is None else join(models, str(logged).rpartition("/")[2])  # in this lake, wherever that was then
        if uri is not None and read_manifest(uri) is not None:
            return uri
        artifacts = list_artifacts(models)
        return max(artifacts, key=lambda artifact: str(artifact.manifest["trained_at"])).uri if artifacts else None

    def handle_output(self, context: dg.OutputContext, obj: TrainedModel | Artifact) -> None:
        """Seal and publish a trained model; one that is there already is only verified."""
        with explained():
            if isinstance(obj, Artifact):
                verify(obj)
                artifact = obj
            else:
                _require_lake(obj.manifest)
                seal(obj.folder, obj.manifest)
                artifact = publish(obj.folder, join(self.lake.models_uri(context.asset_key), obj.manifest["fingerprint"]))
                shutil.rmtree(obj.scratch, ignore_errors=True)
            if checkpoints := self.lake.checkpoints_uri(context.asset_key, artifact.fingerprint):
                discard(checkpoints)
        size = sum(file["bytes"] for file in artifact.manifest["files"].values())
        context.log.info(f"{context.asset_key.to_user_string()} is {artifact.uri}: {size / 2**20:,.1f} MiB")
        context.add_output_metadata({MODEL_KEY: artifact.uri, "fingerprint": artifact.fingerprint, "size_bytes": size})
