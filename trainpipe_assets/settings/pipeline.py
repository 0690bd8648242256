"""All settings of a pipeline, and what one asks of another."""

import re

from pydantic import Field, field_validator, model_validator

from trainpipe_assets.settings.automation import AutomationSettings, MaintenanceSettings
from trainpipe_assets.settings.base import OneOrMany, Settings, Task
from trainpipe_assets.settings.cleaning import LONGEST_LABELLED, CleaningSettings, SplitSettings
from trainpipe_assets.settings.evaluation import LOWER_IS_BETTER, METRICS, UNBOUNDED, DriftSettings, EvaluationSettings
from trainpipe_assets.settings.source import SourceSettings
from trainpipe_assets.settings.training import ModelSettings, TrainingSettings
from trainpipe_assets.settings.validation import ValidationSettings

NAME = r"[A-Za-z0-9_]+"
OWNER = r"team:.+|[^@\s]+@[^@\s]+\.[A-Za-z]+"
TABLES = ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset", "drift_report", "eval_report")
RESERVED = {*TABLES, "fine_tuned_model", "tables", "models", "checkpoints"}  # folders of a lake, in which no other pipeline's may lie


class PipelineSettings(Settings):
    """One training pipeline: the `attributes` of a `defs.yaml`."""

    enabled: bool = Field(default=True, description="false leaves the pipeline out: no assets, no sensor, no schedule.")
    key_prefix: OneOrMany = Field(default=(), description="Prefix of the asset keys; needed by every pipeline but one.")
    owners: OneOrMany = Field(default=(), description="Owners of the assets: e-mail addresses, or teams as team:NAME.")
    task: Task = Field(default="text-classification", description="What is trained.")
    source: SourceSettings = Field(default_factory=SourceSettings, description="Where text arrives.")
    cleaning: CleaningSettings = Field(default_factory=CleaningSettings, description="How records become examples.")
    validation: ValidationSettings = Field(default_factory=ValidationSettings, description="Rules about the content of the data.")
    split: SplitSettings = Field(default_factory=SplitSettings, description="Validation and test shares.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The base model.")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="Hyper-parameters.")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="The report and the gate.")
    drift: DriftSettings = Field(default_factory=DriftSettings, description="Arrivals against what the current model was trained on.")
    automation: AutomationSettings = Field(default_factory=AutomationSettings, description="When it runs by itself.")
    maintenance: MaintenanceSettings = Field(default_factory=MaintenanceSettings, description="Housekeeping of the tables.")

    @field_validator("owners")
    @classmethod
    def _as_dagster_knows_them(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            if not re.fullmatch(OWNER, owner):
                raise ValueError(f"{owner!r} is no owner: an e-mail address or team:NAME is expected")
        return owners

    @field_validator("key_prefix")
    @classmethod
    def _names(cls, prefix: tuple[str, ...]) -> tuple[str, ...]:
        for part in prefix:
            if not re.fullmatch(NAME, part) or part in RESERVED:
                raise ValueError(
                    f"{part!r} cannot be part of a key_prefix: letters, digits and underscores are expected, and none of the names "
                    f"that the lake has of its own ({', '.join(sorted(RESERVED))})"
                )
        return prefix

    @model_validator(mode="after")
    def _one_task(self) -> "PipelineSettings":
        kind, labelled = self.source.kind, self.task != "causal-lm"
        single = "multi-labelled" if self.task == "multi-label-classification" else "labelled"
        if kind not in ((single,) if labelled else ("text", "prompt-completion", "chat")):
            wanted = single if labelled else "text, prompt-completion or chat"
            raise ValueError(f"task {self.task} needs source.kind {wanted}, found {kind}")
        balanced = [rule.name for rule in self.validation.rules if rule.kind == "class_balance"]
        if balanced and self.task != "text-classification":
            raise ValueError(f"rule {balanced[0]} of validation.rules is about texts of one label each, and the task is {self.task}")
        if labelled and self.cleaning.max_chars is None and self.cleaning.min_chars > LONGEST_LABELLED:
            raise ValueError(
                f"cleaning.min_chars is {self.cleaning.min_chars:,}, and by default no labelled text is longer than {LONGEST_LABELLED:,} "
                "characters: set cleaning.max_chars"
            )
        if labelled and self.model.lora is not None:
            raise ValueError("model.lora is for task causal-lm; a classifier is trained whole")
        return self

    @model_validator(mode="after")
    def _metric_of_the_task(self) -> "PipelineSettings":
        gate = self.evaluation.gate
        metric = gate.metric_of(self.task)
        if metric not in METRICS[self.task]:
            raise ValueError(f"the gate of task {self.task} looks at {' or '.join(METRICS[self.task])}, found {metric}")
        if metric not in UNBOUNDED and gate.max_regression > 1.0:
            raise ValueError(f"evaluation.gate.max_regression is {gate.max_regression:g}, but {metric} is 1 at most: name a smaller one")
        if metric in LOWER_IS_BETTER and gate.min_value:
            raise ValueError(f"evaluation.gate.min_value is a floor, but lower is better for {metric}: set max_value instead")
        if metric not in LOWER_IS_BETTER and gate.max_value is not None:
            raise ValueError(f"evaluation.gate.max_value is a ceiling, but higher is better for {metric}: set min_value instead")
        return self

    @model_validator(mode="after")
    def _numbers_are_no_labels(self) -> "PipelineSettings":
        if self.task != "text-regression":
            if self.cleaning.target_range is not None or self.cleaning.target_tolerance:
                raise ValueError(f"cleaning.target_range and target_tolerance are for task text-regression, not for {self.task}")
            return self
        if self.cleaning.labels is not None or self.cleaning.label_aliases:
            raise ValueError(
                "cleaning.labels and label_aliases are for classes; task text-regression learns numbers (cleaning.target_range)"
            )
        if self.training.label_smoothing:
            raise ValueError("training.label_smoothing is for classes; task text-regression learns numbers: leave it at 0")
        return self

    @model_validator(mode="after")
    def _drift_is_looked_for(self) -> "PipelineSettings":
        if self.automation.retrain == "on_drift" and not self.drift.enabled:
            raise ValueError(
                "automation.retrain is on_drift, but drift.enabled is false: nothing would ever be trained; change one of them"
            )
        return self


def defs_schema() -> dict[str, object]:
    """JSON schema of a `defs.yaml`, for editors."""
    attributes = PipelineSettings.model_json_schema()
    definitions = attributes.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A trainpipe pipeline (defs.yaml)",
        "type": "object",
        "required": ["type"],
        "additionalProperties": False,
        "properties": {
            "type": {"const": "trainpipe_assets.TrainingPipeline"},
            "attributes": attributes,
            **{key: {"description": "Dagster's own."} for key in ("post_processing", "requirements", "template_vars_module")},
        },
        "$defs": definitions,
    }
