"""The shipped second pipeline: off until it is switched on, and then what its file says."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

import trainpipe_assets
from trainpipe_assets.definitions import defs
from trainpipe_assets.pipeline.component import TrainingPipeline, build_pipeline
from trainpipe_assets.pipeline.status import load_pipelines
from trainpipe_assets.settings import PipelineSettings

FILE = Path(trainpipe_assets.__file__).parent / "defs" / "assistant" / "defs.yaml"


def attributes() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["attributes"]
    return found


def test_it_is_off_until_it_is_switched_on() -> None:
    keys = {spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()}
    assert "fine_tuned_model" in keys
    assert not any(key.startswith("assistant") for key in keys)
    assert "assistant" not in load_pipelines()
    with pytest.raises(ValueError, match=r"'assistant' is switched off: set `enabled: true` in .*defs/assistant/defs\.yaml"):
        load_pipelines("assistant")


def test_switched_on_it_is_five_assets_beside_those_of_the_reviews() -> None:
    settings = PipelineSettings.model_validate({**attributes(), "enabled": True})
    assert TrainingPipeline(settings).settings.task == "causal-lm"
    pipeline = build_pipeline("assistant", settings)
    names = {asset.key.path[-1] for asset in pipeline.assets or () if isinstance(asset, dg.AssetsDefinition) and len(asset.keys) == 1}
    assert names >= {"raw_data", "tokenized_dataset", "fine_tuned_model", "eval_report"}
    assert settings.source.columns == {"prompt_column": "text", "completion_column": "label"}


def test_the_gate_looks_at_a_metric_of_the_task() -> None:
    assert PipelineSettings.model_validate(attributes()).evaluation.gate.metric_of("causal-lm") == "perplexity"
    wrong = {**attributes(), "evaluation": {"gate": {"metric": "macro_f1"}}}
    with pytest.raises(ValueError, match=r"looks at perplexity or log_loss or token_accuracy, found macro_f1"):
        PipelineSettings.model_validate(wrong)


def test_adapters_are_for_language_models() -> None:
    with pytest.raises(ValueError, match=r"model\.lora is for task causal-lm"):
        PipelineSettings.model_validate({"model": {"lora": {}}})
