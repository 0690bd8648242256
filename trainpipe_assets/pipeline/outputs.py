"""Asset values on their way out: with the data version that keeps unchanged downstream assets fresh, and with metadata."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets.data.ingestion import first_of
from trainpipe_assets.data.sources import LandedFile
from trainpipe_assets.data.splitting import named_like_splits, own_split
from trainpipe_assets.evaluation.intervals import rounded
from trainpipe_assets.evaluation.plots import loss_curves, phases_plot
from trainpipe_assets.evaluation.profile import by_label, profile, target_quantiles
from trainpipe_assets.pipeline.io_managers import TrainedModel
from trainpipe_assets.pipeline.launcher import read_training_record
from trainpipe_assets.pipeline.metadata import PREVIEW, bullets, markdown_table, picture
from trainpipe_assets.settings import SplitSettings, Task
from trainpipe_assets.storage.artifacts import Artifact
from trainpipe_assets.storage.increments import Increment
from trainpipe_assets.storage.uris import matches

SHOWN_DRIFTS = 50
LOOKED_AT = 10  # of the newest materializations, whether they show the same
SHOWN_FILES = 5
PROFILED_LABELS = 20  # shown of an arrival, the most frequent ones
VALIDATED = ("accuracy", "macro_f1", "micro_f1", "rmse", "mae")  # metrics of a validation


def versioned(increment: Increment, metadata: Mapping[str, Any] | None = None, output_name: str = "result") -> dg.Output[Increment]:
    """An increment with the data version that its table will have."""
    return dg.Output(increment, output_name=output_name, metadata=metadata, data_version=dg.DataVersion(increment.data_version))


def described_drift(drift: pl.DataFrame) -> dict[str, Any]:
    """How many files differ from what their source agreed on, and in what; nothing where none does."""
    if drift.is_empty():
        return {"files_with_schema_drift": 0}
    return {"files_with_schema_drift": drift["file"].n_unique(), "schema_drift": markdown_table(drift.head(SHOWN_DRIFTS))}


def told_of_splits(landed: Sequence[LandedFile], split: SplitSettings) -> dict[str, str]:
    """Which files are a split of their own, and which are named like one and split as all others are; nothing where there are none."""
    paths = [file.path for file in landed]
    told = {
        f"files_of_{name}": _matching([path for path in paths if own_split(path, split) == name], patterns, paths)
        for name, patterns in split.files.items()
        if patterns
    }
    named = named_like_splits(paths, split)
    if named:
        what_to_do = "name those that are a split of their own in split.test_files or split.validation_files"
        told["files_named_like_splits"] = (
            f"{first_of(named, SHOWN_FILES)}: their examples are split as those of other files are; {what_to_do}"
        )
    return told


def _matching(found: Sequence[str], patterns: Sequence[str], paths: Sequence[str]) -> str:
    """The files found, and those of the patterns that no path matches."""
    idle = [pattern for pattern in patterns if not any(matches(path, (pattern,)) for path in paths)]
    return "; ".join([first_of(found, SHOWN_FILES)] * bool(found) + [f"none matches {', '.join(idle)}"] * bool(idle))


def arrival_profile(examples: Increment, task: Task) -> dict[str, Any]:
    """What arrives in `cleaned_features`, in numbers; nothing where nothing does."""
    found = profile(examples.added.select("label", "n_chars"))
    if not found.rows:
        return {}
    lengths = ", ".join(f"{share:.0%}: {length:,}" for share, length in found.lengths.items())
    quantiles = {"quantiles_of_characters_added": lengths}
    if not any(found.labels):  # documents have none
        return quantiles
    if task == "text-regression":
        targets = ", ".join(f"{share:.0%}: {target:.6g}" for share, target in target_quantiles(found).items())
        return {"quantiles_of_targets_added": targets, **quantiles}
    counts = by_label(found) if task == "multi-label-classification" else found.labels
    shown = list(counts.items())[:PROFILED_LABELS]
    rows = [(label, f"{count:,}", f"{count / found.rows:.1%}") for label, count in shown]
    labels = pl.DataFrame(rows, schema=dict.fromkeys(("label", "rows added", "share"), pl.String), orient="row")
    return {"labels_added": markdown_table(labels), **quantiles}


def arrival_rejections(rejected: Increment) -> dict[str, Any]:
    """What is new in `rejected_rows`, by rule; nothing where nothing is."""
    counts = rejected.added.group_by("rule").agg(pl.len().alias("rows added")).collect(engine="streaming")
    shown = counts.sort("rows added", "rule", descending=[True, False]).head(PROFILED_LABELS)
    return {} if shown.is_empty() else {"rules_added": markdown_table(shown)}


def model_output(
    context: dg.AssetExecutionContext, model: Artifact | TrainedModel, sizes: pl.DataFrame, warnings: Sequence[str]
) -> dg.Output[Artifact | TrainedModel]:
    """A model with its fingerprint as data version, and its training in numbers and pictures; `sizes` are those of the splits, `warnings`
    of the examples."""
    for warning in warnings:
        context.log.warning(warning)
    record = read_training_record(model if isinstance(model, Artifact) else model.folder)
    best, timing, fingerprint = record["best"], record["timing"], str(model.manifest["fingerprint"])
    metadata: dict[str, Any] = {
        "reused": isinstance(model, Artifact),
        "task": model.manifest.get("task", "text-classification"),
        **({"labels": list(model.manifest["labels"])} if model.manifest["labels"] else {}),
        "base_model": model.manifest["base_model"]["name"],
        "validation_loss": rounded(best["loss"]),
        **_of_task(best),
        "train_seconds": round(timing["seconds"], 1),
        **({"earlier_seconds": round(timing["earlier_seconds"], 1)} if timing.get("earlier_seconds") else {}),
        "examples_per_second": round(timing["examples_per_second"], 1),
        "tokens_per_second": round(timing["tokens_per_second"], 1),
        "padding_fraction": round(timing["padding_fraction"], 4),
        "data_wait_fraction": round(timing["data_wait_fraction"], 4),
        **_efficiency(record.get("efficiency")),
        **_pictures(context, fingerprint, record),
        **{f"{split}_examples": count for split, count in sizes.select("split", "n").sort("split").iter_rows()},
        **_warnings([*warnings, *record.get("warnings", ())]),
        **_distribution(record.get("distribution")),
        "hardware": record["hardware"],
        "manifest": dg.MetadataValue.json(dict(model.manifest)),
    }
    return dg.Output(model, metadata=metadata, data_version=dg.DataVersion(fingerprint))


def shown_before(context: dg.AssetExecutionContext, name: str, identity: str | None) -> dict[str, Any]:
    """Tables and pictures that the catalog shows of what has this very `identity`, by the metadata `name`: they are not made again.

    Drawing takes longer than all else of a run with nothing new.
    """
    if identity is None:
        return {}
    for record in context.instance.fetch_materializations(context.asset_key, limit=LOOKED_AT).records:
        shown = record.asset_materialization.metadata if record.asset_materialization else {}
        if shown.get(name) == dg.MetadataValue.text(identity):
            return {name: value for name, value in shown.items() if isinstance(value, dg.MarkdownMetadataValue) and name != PREVIEW}
    return {}


def _pictures(context: dg.AssetExecutionContext, fingerprint: str, record: Mapping[str, Any]) -> dict[str, Any]:
    before = shown_before(context, "fingerprint", fingerprint)
    return before if "training_curves" in before else _drawn(record)


def _drawn(record: Mapping[str, Any]) -> dict[str, Any]:
    """Pictures of a training; without where its time went for a model of a version that did not measure it."""
    curves = picture(loss_curves(record["history"], record["validations"]), "loss and metrics by step")
    found = record.get("efficiency")
    if found is None:
        return {"training_curves": curves}
    return {
        "training_curves": curves,
        "where_the_time_went": picture(phases_plot(found["phases"], found["computing"]), "seconds of each phase"),
    }


def _efficiency(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the device waited for; nothing for a model of a version that did not measure it."""
    if found is None:
        return {}
    return {
        "verdict": found["verdict"],
        "model_flops_utilization": round(found["model_flops_utilization"], 4),
        **({} if found["cost"] is None else {"cost": rounded(found["cost"])}),
    }


def _distribution(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What each of several processes held of the model."""
    if found is None or found["processes"] == 1:
        return {}
    weights, moments = (f"{found[name] / 2**20:,.1f} MiB" for name in ("weights_bytes_each", "moments_bytes_each"))
    held = f"of {found['weights_bytes'] / 2**20:,.1f} MiB of weights each held {weights}, and {moments} of optimizer state"
    return {"distribution": f"{found['processes']} processes, sharding {found['sharding']}: {held}"}


def _warnings(warnings: Sequence[str]) -> dict[str, Any]:
    return {"warnings": bullets(warnings)} if warnings else {}


def _of_task(best: Mapping[str, Any]) -> dict[str, float]:
    """What a validation says beyond its loss: the metrics of the task."""
    measured = {f"validation_{name}": rounded(best[name]) for name in VALIDATED if best.get(name) is not None}
    perplexity = {} if best.get("tokens") is None else {"validation_perplexity": rounded(math.exp(best["loss"]))}
    return measured | perplexity
