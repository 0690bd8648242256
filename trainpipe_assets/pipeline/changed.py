"""What was made by other settings, or other versions of the code, than the pipeline has now; the next run makes it anew.

Told by what tables and models say of themselves. What else may have changed, such as the files of a base model, a run sees.
"""

from collections.abc import Mapping
from typing import Any

from trainpipe_assets.data import cleaning, ingestion
from trainpipe_assets.data.encoding import encoder_version
from trainpipe_assets.pipeline import evaluation
from trainpipe_assets.pipeline.provenance import TRAINING_VERSION, made_otherwise, settings_of_result
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.artifacts import Artifact
from trainpipe_assets.storage.delta import Table
from trainpipe_assets.training.spec import differences


def changed(settings: PipelineSettings, tables: Mapping[str, Table | None], model: Artifact | None) -> dict[str, list[str]]:
    """How the settings differ from those that made each of `tables` and the `model`, one sentence each, by asset in the order of the flow.

    Assets that are not there, or are as the settings have them, are left out.
    """
    tokens = {"version": encoder_version(settings.task), "max_length": settings.model.max_length}
    found = {
        "raw_data": _of_table(tables["raw_data"], ingestion.determinants(settings.source)),
        "cleaned_features": _of_table(tables["cleaned_features"], cleaning.determinants(settings)),
        "tokenized_dataset": _of_table(tables["tokenized_dataset"], tokens),
        "fine_tuned_model": _of_model(model, settings) if model else [],
        "eval_report": _of_table(tables["eval_report"], evaluation.determinants(settings.evaluation)),
    }
    return {name: sentences for name, sentences in found.items() if sentences}


def _of_table(table: Table | None, wanted: Mapping[str, Any]) -> list[str]:
    return made_otherwise(table, wanted) if table else []


def _of_model(model: Artifact, settings: PipelineSettings) -> list[str]:
    made_of, wanted = model.manifest, settings_of_result(settings.task, settings.model, settings.training)
    then = {section: {name: made_of["settings"][section].get(name) for name in names} for section, names in wanted.items()}
    before = {"task": model.task, "version": made_of["training_version"], "base model": made_of["settings"]["model"]["base"], **then}
    return differences(before, {"task": settings.task, "version": TRAINING_VERSION, "base model": settings.model.base, **wanted})
