"""The models of a pipeline side by side: how each was judged, and in what its training differs from the one before.

There is no registry: models are folders of the lake, and what was measured of them is the table of evaluations.
"""

from collections.abc import Mapping
from typing import Any

from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.keys import DATA, PipelineKeys
from trainpipe_assets.pipeline.launcher import read_training_record
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.pipeline.status import describe_gate, describe_model, evaluation_history, measured
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.artifacts import Artifact, list_artifacts
from trainpipe_assets.storage.delta import find
from trainpipe_assets.training.spec import differences

DIGITS_ALONE = "settings and code of tokenized_dataset"  # their fingerprint: all there is in a manifest of an older version


def list_models(lake: Lake, settings: PipelineSettings) -> list[dict[str, Any]]:
    """The models whose folders are there, the one trained last first, ready for JSON.

    `current` marks the newest whose gate passed; `evaluation` and `gate` are of the newest evaluation, None where there was none;
    `differences` from the model trained before are None where there is none.
    """
    keys = PipelineKeys(settings.key_prefix)
    evaluations = find(lake.table_uri(keys["eval_report"]))
    newest = {row["model_fingerprint"]: row for row in evaluation_history(evaluations)}
    current = current_model(evaluations, settings.task)
    models = sorted(list_artifacts(lake.models_uri(keys["fine_tuned_model"])), key=lambda model: str(model.manifest["trained_at"]))
    origins = [_origin(model) for model in models]
    found = []
    for model, origin, before in zip(models, origins, [None, *origins], strict=False):
        evaluation = newest.get(model.fingerprint)
        found.append(
            {
                "uri": model.uri,
                "fingerprint": model.fingerprint,
                "trained_at": model.manifest["trained_at"],
                "current": current is not None and current.fingerprint == model.fingerprint,
                "examples": origin["examples"],
                "evaluation": describe_model(evaluation, exists=True) if evaluation else None,
                "gate": describe_gate(evaluation) if evaluation else None,
                "differences": None if before is None else _differences(before, origin) or ["nothing: it was trained anew by `force`"],
            }
        )
    return found[::-1]


def _origin(model: Artifact) -> Mapping[str, Any]:
    """All that decided what the training came to."""
    manifest = model.manifest
    return {
        "task": model.task,
        "labels": model.labels,
        "base": f"{manifest['base_model']['name']} ({manifest['base_model']['digest'][:8]})",
        "examples": read_training_record(model)["examples"],
        "examples' digest": manifest["dataset"]["digest"][:8],
        DIGITS_ALONE: manifest["dataset"]["fingerprint"],
        **manifest["dataset"].get("made_by", {}),
        "training_version": manifest["training_version"],
        **manifest["settings"],
    }


def _differences(before: Mapping[str, Any], origin: Mapping[str, Any]) -> list[str]:
    """In what two trainings differ. Of the data by its settings, where both manifests have them, else by their fingerprint alone."""
    told = all("raw_data" in one for one in (before, origin))
    left_out = (DIGITS_ALONE,) if told else DATA
    return differences(*({key: value for key, value in one.items() if key not in left_out} for one in (before, origin)))


def describe_models(name: str, models: list[dict[str, Any]], settings: PipelineSettings) -> str:
    """The models in a few lines each for a person."""
    if not models:
        return f"pipeline {name} has no model yet"
    metric = settings.evaluation.gate.metric_of(settings.task)
    lines = [f"pipeline {name}"]
    for model in models:
        mark = "  (the current model)" if model["current"] else ""
        lines.append(f"  {model['trained_at'][:16].replace('T', ' ')} UTC  {model['uri']}{mark}")
        evaluation, examples = model["evaluation"], model["examples"]
        if evaluation is None:
            lines.append("    not evaluated")
        elif metric in evaluation["metrics"]:
            verdict = "passed" if model["gate"]["passed"] else "FAILED"
            lines.append(f"    {metric:<10} {measured(evaluation, metric)}, gate {verdict}")
        lines.append(f"    examples   {examples['train']:,} for training, {examples['validation']:,} for validation")
        lines += [f"    {'' if number else 'differs':<10} {one}" for number, one in enumerate(model["differences"] or ())]
    return "\n".join(lines)
