"""The settings of each stage of a training pipeline: typed, frozen, bounded, described.

A `defs.yaml` is validated into these models once, when the definitions load; everything below the
`pipeline` folder receives them as plain values. What is not a choice of the user does not belong here.
"""

from trainpipe_assets.settings.automation import AutomationSettings, MaintenanceSettings
from trainpipe_assets.settings.base import Fraction, OneOrMany, Settings, Task
from trainpipe_assets.settings.cleaning import (
    LANGUAGES,
    LONGEST_LABELLED,
    CleaningSettings,
    LanguageCode,
    NearDuplicateSettings,
    PersonalData,
    SplitSettings,
)
from trainpipe_assets.settings.evaluation import (
    LOWER_IS_BETTER,
    METRICS,
    UNBOUNDED,
    DriftSettings,
    EvaluationSettings,
    GateMetric,
    GateSettings,
)
from trainpipe_assets.settings.pipeline import NAME, PipelineSettings, defs_schema
from trainpipe_assets.settings.source import ColumnType, FileFormat, SourceKind, SourceSettings
from trainpipe_assets.settings.training import ComputeSettings, LoraSettings, ModelSettings, TrainingSettings
from trainpipe_assets.settings.validation import (
    RULES_OF_CLEANING,
    AllowedRule,
    ClassBalanceRule,
    NullRateRule,
    PatternRule,
    RangeRule,
    RecordRule,
    RowCountRule,
    Rule,
    ValidationRule,
    ValidationSettings,
)

__all__ = [
    "LANGUAGES",
    "LONGEST_LABELLED",
    "LOWER_IS_BETTER",
    "METRICS",
    "NAME",
    "RULES_OF_CLEANING",
    "UNBOUNDED",
    "AllowedRule",
    "AutomationSettings",
    "ClassBalanceRule",
    "CleaningSettings",
    "ColumnType",
    "ComputeSettings",
    "DriftSettings",
    "EvaluationSettings",
    "FileFormat",
    "Fraction",
    "GateMetric",
    "GateSettings",
    "LanguageCode",
    "LoraSettings",
    "MaintenanceSettings",
    "ModelSettings",
    "NearDuplicateSettings",
    "NullRateRule",
    "OneOrMany",
    "PatternRule",
    "PersonalData",
    "PipelineSettings",
    "RangeRule",
    "RecordRule",
    "RowCountRule",
    "Rule",
    "Settings",
    "SourceKind",
    "SourceSettings",
    "SplitSettings",
    "Task",
    "TrainingSettings",
    "ValidationRule",
    "ValidationSettings",
    "defs_schema",
]
