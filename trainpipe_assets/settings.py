"""The settings of each stage of a training pipeline: typed, frozen, bounded, described.

A `defs.yaml` is validated into these models once, when the definitions load; everything below the
`pipeline` folder receives them as plain values. What is not a choice of the user does not belong here.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema, field_validator, model_validator
from pydantic_core import SchemaError


class Settings(BaseModel):
    """The base of all settings: immutable, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OneOrMany = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
FileFormat = Literal["csv", "tsv", "jsonl", "parquet"]
SourceKind = Literal["labelled", "multi-labelled", "text", "prompt-completion", "chat"]
Task = Literal["text-classification", "multi-label-classification", "text-regression", "causal-lm"]
ColumnType = Annotated[str, Field(pattern=r"^(string|integer|number|boolean|time|list|object|any)\??$")]
GateMetric = Literal[
    "accuracy",
    "macro_f1",
    "micro_f1",
    "subset_accuracy",
    "hamming_loss",
    "rmse",
    "mae",
    "r2",
    "pearson",
    "spearman",
    "perplexity",
    "log_loss",
]
METRICS: dict[Task, tuple[GateMetric, ...]] = {
    "text-classification": ("macro_f1", "accuracy"),
    "multi-label-classification": ("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss"),
    "text-regression": ("rmse", "mae", "r2", "pearson", "spearman"),
    "causal-lm": ("perplexity", "log_loss"),
}
"""The metrics that a gate can look at, the one of `auto` first."""
UNBOUNDED = frozenset({"rmse", "mae", "perplexity", "log_loss"})
"""Metrics that are no shares of 1, so that a loss in them can be larger than 1."""
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "perplexity", "rmse", "mae", "hamming_loss"})
"""Metrics of which the smaller value is the better one."""


class SourceSettings(Settings):
    """Where text arrives and how its files are read."""

    uri: str = Field(
        default="",
        description="Folder or bucket prefix where files arrive. A relative one lies under TRAINPIPE_LANDING.",
    )
    format: FileFormat | Literal["auto"] = Field(
        default="auto",
        description="File format; auto tells it from the name (.csv .tsv .jsonl .ndjson .parquet, each also with .gz or .zst).",
    )
    kind: SourceKind = Field(
        default="labelled",
        description="What a record is: labelled is a text and its label, or the number that text-regression learns; multi-labelled is a "
        "text and any number of labels, for multi-label-classification. For causal-lm it is text, prompt-completion, or chat: a list of "
        "messages, each {role, content}.",
    )
    text_column: str = Field(default="text", min_length=1, description="Column that holds the text.")
    label_column: str = Field(default="label", min_length=1, description="Column that holds the label, labels or number.")
    prompt_column: str = Field(default="prompt", min_length=1, description="Column that holds the prompt, where kind is prompt-completion.")
    completion_column: str = Field(
        default="completion", min_length=1, description="Column that holds the completion, where kind is prompt-completion."
    )
    messages_column: str = Field(
        default="messages", min_length=1, description="Column that holds the messages, where kind is chat: a list, or one as JSON."
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="Field delimiter of CSV and TSV; by default ',' and tab."
    )
    quote_char: str | None = Field(
        default=None,
        max_length=1,
        description="Quote character of CSV and TSV, '' for none; by default '\"' for CSV and none for TSV.",
    )
    max_record_bytes: int = Field(
        default=1_048_576, ge=64, le=64 * 1_048_576, description="A longer record is rejected, with its first 1,000 characters kept."
    )
    schema_drift: Literal["accept", "quarantine", "stop"] = Field(
        default="accept",
        description="What becomes of a file whose columns differ from those agreed on: it is read all the same, all its records are "
        "rejected, or the run stops. Another order of the columns is only reported.",
    )
    expected_columns: dict[str, ColumnType] | None = Field(
        default=None,
        description="Columns that each file has beside those that other settings name, with their types: string, integer, number, "
        "boolean, time, list, object or any; with a question mark behind it the column may be missing. By default those of the first "
        "file by path.",
    )
    settle_seconds: float = Field(
        default=2.0, ge=0.0, le=3600.0, description="A file younger than this must keep its size for as long before it is read."
    )

    @property
    def columns(self) -> dict[str, str]:
        """The columns that a record needs, by the setting that names each: that of `raw_data.text`, then that of `raw_data.label`."""
        settings = {
            "labelled": ("text_column", "label_column"),
            "multi-labelled": ("text_column", "label_column"),
            "text": ("text_column",),
            "prompt-completion": ("prompt_column", "completion_column"),
            "chat": ("messages_column",),
        }
        return {setting: getattr(self, setting) for setting in settings[self.kind]}

    @field_validator("uri")
    @classmethod
    def _no_parent_steps(cls, uri: str) -> str:
        if ".." in PurePosixPath(uri).parts:
            raise ValueError(f"source.uri {uri!r} steps out of its folder with '..'; name the folder itself")
        return uri


LanguageCode = Annotated[str, Field(pattern="^[a-z]{2,3}$")]
PersonalData = Literal["email", "phone", "card", "iban", "ip"]


class NearDuplicateSettings(Settings):
    """Texts that are nearly the same: by the Jaccard index of their sets of five-character shingles."""

    action: Literal["group", "drop", "off"] = Field(
        default="group",
        description="group keeps them in one split; drop also rejects all but the first of each group; off does not look for them.",
    )
    similarity: float = Field(default=0.8, ge=0.5, le=1.0, description="Similarity from which two texts are nearly the same.")


class CleaningSettings(Settings):
    """How a record becomes an example, and which records do not."""

    unicode_form: Literal["NFC", "NFKC"] = Field(default="NFKC", description="Unicode normal form of the text.")
    unescape_html: bool = Field(default=True, description="Turn HTML entities (&amp;) into their characters.")
    min_chars: int = Field(default=2, ge=1, le=100_000, description="Shortest text kept, in characters after normalisation.")
    max_chars: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Longest text kept, in characters after normalisation; by default 20,000, and for causal-lm any.",
    )
    labels: tuple[str, ...] | None = Field(
        default=None,
        description="Labels allowed, in the order of their ids; by default those found in the data, sorted.",
    )
    label_aliases: dict[str, str] = Field(
        default_factory=dict, description="Other spellings of labels, e.g. {pos: positive}. Case and outer space never matter."
    )
    label_separator: str = Field(
        default=",",
        min_length=1,
        max_length=10,
        description="multi-label-classification: what stands between the labels of a text, where they are no list.",
    )
    target_range: tuple[float, float] | None = Field(
        default=None, description="text-regression: smallest and largest number allowed, both included; by default any finite number."
    )
    target_tolerance: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="text-regression: numbers of the same text that differ from the first one's by no more than this repeat it; "
        "others contradict it, and then none is kept.",
    )
    drop_duplicates: bool = Field(default=True, description="Reject all but the first of the records with the same normalised text.")
    redact: tuple[PersonalData, ...] = Field(
        default=(), description="Personal data to replace by the name of its kind: email, phone, card, iban, ip."
    )
    phone_region: str | None = Field(
        default=None,
        pattern="^[A-Z]{2}$",
        description="Country (ISO 3166) whose phone numbers are also found without a country code; by default only numbers with one.",
    )
    languages: tuple[LanguageCode, ...] = Field(
        default=(), description="Languages (ISO 639, e.g. en) whose texts are kept; by default all. Takes about a millisecond a text."
    )
    language_confidence: Fraction = Field(
        default=0.5, description="Confidence from which a text counts as being in another language; one that could be either is kept."
    )
    language_min_bytes: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="A shorter text, in bytes of UTF-8 (20 Latin letters, 7 Chinese characters), is kept: nobody can tell its language.",
    )
    near_duplicates: NearDuplicateSettings = Field(default_factory=NearDuplicateSettings, description="Texts that are nearly the same.")

    @model_validator(mode="after")
    def _consistent(self) -> "CleaningSettings":
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"cleaning.max_chars ({self.max_chars}) is smaller than cleaning.min_chars ({self.min_chars})")
        if self.target_range is not None and not self.target_range[0] < self.target_range[1]:
            raise ValueError(f"cleaning.target_range needs a smaller number and then a larger one, found {list(self.target_range)}")
        if self.labels is not None:
            if len(set(self.labels)) < max(2, len(self.labels)):
                raise ValueError(f"cleaning.labels needs two or more different labels, found {list(self.labels)}")
            unknown = sorted(set(self.label_aliases.values()) - set(self.labels))
            if unknown:
                raise ValueError(f"cleaning.label_aliases leads to {unknown}, which cleaning.labels does not list ({list(self.labels)})")
        return self


class Rule(Settings):
    """What all validation rules have."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="Name of the rule, as it is shown and stored.")
    severity: Literal["warn", "block"] = Field(
        default="warn",
        description="A record that breaks a rule about records is kept and counted (warn) or rejected (block). Where a rule about all "
        "records is broken, a check warns, or fails so that nothing is made from them.",
    )


class RangeRule(Rule):
    """A number of each record: `n_chars` and `n_words` of its text, or another column of the source. Null is no number and passes."""

    kind: Literal["range"]
    column: str = Field(min_length=1, description="Column with the number.")
    min: float | None = Field(default=None, description="Smallest number allowed.")
    max: float | None = Field(default=None, description="Largest number allowed.")

    @model_validator(mode="after")
    def _bounded(self) -> "RangeRule":
        _require_order(self.name, self.min, self.max, "min", "max")
        return self


class PatternRule(Rule):
    """What a text of each record must look like, or must not: `text` and `label` as they are cleaned, or another column. Null passes."""

    kind: Literal["pattern"]
    column: str = Field(default="text", min_length=1, description="Column with the text.")
    must_match: str | None = Field(default=None, description="Regular expression (of Rust's regex crate) that is found in it.")
    must_not_match: str | None = Field(default=None, description="Regular expression that is not found in it.")

    @model_validator(mode="after")
    def _usable(self) -> "PatternRule":
        patterns = [pattern for pattern in (self.must_match, self.must_not_match) if pattern is not None]
        if len(patterns) != 1:
            raise ValueError(f"rule {self.name} needs either must_match or must_not_match, found {len(patterns)} of them")
        try:
            TypeAdapter(Annotated[str, Field(pattern=patterns[0])])
        except SchemaError as error:
            cause = " ".join(str(error).split())[:200]
            raise ValueError(f"rule {self.name}: {patterns[0]!r} is not a regular expression of Rust's regex crate: {cause}") from error
        return self


class AllowedRule(Rule):
    """The values that a column of each record may have. Null passes."""

    kind: Literal["allowed"]
    column: str = Field(default="label", min_length=1, description="Column with the value.")
    values: tuple[str, ...] = Field(min_length=1, description="Values allowed.")


class ClassBalanceRule(Rule):
    """The share of each label among the cleaned examples."""

    kind: Literal["class_balance"]
    min_share: Fraction | None = Field(default=None, description="Smallest share that a label may have.")
    max_share: Fraction | None = Field(default=None, description="Largest share that a label may have.")

    @model_validator(mode="after")
    def _bounded(self) -> "ClassBalanceRule":
        _require_order(self.name, self.min_share, self.max_share, "min_share", "max_share")
        return self


class NullRateRule(Rule):
    """The share of the readable records without a value in a column of the source: null, empty or blank."""

    kind: Literal["null_rate"]
    column: str = Field(min_length=1, description="Column of the source: text, label, or another by its name.")
    max: Fraction = Field(description="Largest share allowed.")

    @field_validator("column")
    @classmethod
    def _of_the_source(cls, column: str) -> str:
        if column in ("n_chars", "n_words"):
            raise ValueError(f"{column} is made from the text and is never null; use a range rule")
        return column


class RowCountRule(Rule):
    """The records of each file that came last, as a multiple of what is usual: the median of the files that came before."""

    kind: Literal["row_count"]
    min_ratio: float | None = Field(default=None, ge=0.0, description="Smallest multiple allowed.")
    max_ratio: float | None = Field(default=None, gt=0.0, description="Largest multiple allowed.")

    @model_validator(mode="after")
    def _bounded(self) -> "RowCountRule":
        _require_order(self.name, self.min_ratio, self.max_ratio, "min_ratio", "max_ratio")
        return self


def _require_order(name: str, low: float | None, high: float | None, low_setting: str, high_setting: str) -> None:
    if low is None and high is None:
        raise ValueError(f"rule {name} needs {low_setting}, {high_setting} or both, found neither")
    if low is not None and high is not None and low > high:
        raise ValueError(f"rule {name}: {low_setting} ({low:g}) is larger than {high_setting} ({high:g})")


RecordRule = RangeRule | PatternRule | AllowedRule
ValidationRule = Annotated[RecordRule | ClassBalanceRule | NullRateRule | RowCountRule, Field(discriminator="kind")]
RULES_OF_CLEANING = (
    *("unreadable", "missing_text", "missing_label", "unknown_label", "not_a_list", "not_a_number", "out_of_range", "missing_completion"),
    *("no_conversation", "empty_text", "too_short", "too_long", "language", "conflicting_label", "duplicate", "near_duplicate"),
)


class ValidationSettings(Settings):
    """Rules about the content of the data, beside those that cleaning always has."""

    rules: tuple[ValidationRule, ...] = Field(default=(), description="The rules, each a mapping with a kind; see below.")

    @model_validator(mode="after")
    def _told_apart(self) -> "ValidationSettings":
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"validation.rules has more than one rule called {', '.join(twice)}; give each a name of its own")
        taken = sorted(set(names) & set(RULES_OF_CLEANING))
        if taken:
            raise ValueError(f"validation.rules cannot call a rule {', '.join(taken)}: cleaning has rules of that name; choose another")
        return self

    @property
    def record_rules(self) -> tuple[RecordRule, ...]:
        """The rules that look at one record alone, in their order."""
        return tuple(rule for rule in self.rules if isinstance(rule, RecordRule))


class SplitSettings(Settings):
    """The shares of the examples that validate and test; the rest trains.

    The split of an example is a function of its duplicate group and the seed alone.
    """

    validation: Fraction = Field(default=0.1, description="Share of examples for validation during training.")
    test: Fraction = Field(default=0.1, description="Share of examples for the final evaluation.")
    seed: int = Field(default=0, ge=0, description="Another seed gives another split.")
    min_examples: int = Field(default=8, ge=1, description="Fewest examples that each of the three splits must have.")

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitSettings":
        if self.validation + self.test >= 1.0:
            raise ValueError(f"split.validation + split.test is {self.validation + self.test:g}: nothing is left to train on")
        if not self.validation or not self.test:
            raise ValueError("split.validation and split.test must both be above 0: early stopping and the gate need them")
        return self


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al., 2021): small matrices learn beside the frozen weights, and are added to them at the end."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the adapters.")
    alpha: int = Field(default=32, ge=1, le=4096, description="Adapters are scaled by alpha / rank.")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(default=0.0, description="Dropout of the adapters' inputs.")


class ModelSettings(Settings):
    """The base model, how long its inputs may be, and which of its weights learn."""

    base: str = Field(
        default="samples/all-MiniLM-L6-v2",
        min_length=1,
        description="Base model: a local folder or GGUF file (relative ones lie under TRAINPIPE_MODELS), a folder on S3, or a Hugging Face "
        "hub id. Safetensors only; a GGUF file is converted.",
    )
    max_length: int = Field(
        default=128,
        ge=8,
        le=8192,
        description="Longest input in tokens. A classifier reads no more of a text; a document of causal-lm is cut into pieces of so many.",
    )
    template: str = Field(
        default="{prompt}\n{completion}",
        description="How a prompt and its completion are put together (source.kind prompt-completion). Spaces before {completion} are its.",
    )

    lora: LoraSettings | None = Field(
        default=None, description="causal-lm: train low-rank adapters ({} takes the defaults) instead of all weights (null)."
    )

    @field_validator("template")
    @classmethod
    def _both_places(cls, template: str) -> str:
        head, found, tail = template.partition("{completion}")
        if not found or tail or head.count("{prompt}") != 1:
            raise ValueError(f"model.template {template!r} needs {{prompt}} once and then {{completion}}, which ends it")
        return template


class TrainingSettings(Settings):
    """Hyper-parameters of fine-tuning. Each is also run config, for one run."""

    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over the training split at most.")
    learning_rate: float = Field(default=1e-4, gt=0.0, le=1.0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0, description="Decoupled weight decay; none on biases and norms.")
    warmup_fraction: Fraction = Field(default=0.1, description="Share of the steps over which the learning rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", description="Decay of the learning rate after warm-up.")
    batch_tokens: int = Field(default=1024, ge=16, le=1_048_576, description="Token budget of one optimizer step, padding included.")
    micro_batch_tokens: int | None = Field(
        default=None, ge=16, description="Token budget of one forward pass; by default the whole batch at once."
    )
    max_grad_norm: float = Field(default=1.0, gt=0.0, description="Gradients are clipped to this global norm.")
    packing: bool = Field(
        default=True, description="causal-lm: documents share a row of the batch, none of which sees another; false pads them instead."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Label smoothing of the training loss (never of a reported one)."
    )
    early_stopping_patience: int = Field(default=2, ge=1, description="Epochs without a better validation loss before training stops.")
    checkpoint_seconds: float = Field(
        default=60.0, ge=0.0, description="Seconds between checkpoints inside an epoch (one always follows a validation); 0 is every step."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the head's initial weights, dropout and batch order.")


class GateSettings(Settings):
    """What a model must reach to become the current one."""

    metric: GateMetric | Literal["auto"] = Field(
        default="auto",
        description="Metric that the gate looks at: macro_f1 or accuracy of a classifier; macro_f1, micro_f1, "
        "subset_accuracy or hamming_loss of a multi-label one; rmse, mae, r2, pearson or spearman of a "
        "regression; perplexity or log_loss (per token) of a language model. Lower is better for hamming_loss, rmse, mae, perplexity "
        "and log_loss. "
        "auto is the first of each.",
    )
    min_value: Fraction = Field(default=0.0, description="Floor for the metric's value on the test split, where higher is better.")
    max_value: float | None = Field(
        default=None, gt=0.0, description="Ceiling for the metric's value on the test split, where lower is better; null for none."
    )
    max_regression: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="Loss against the previous model that is forgiven, beyond what the paired 95% interval leaves open; at most 1 for a "
        "metric that is.",
    )

    def metric_of(self, task: Task) -> "GateMetric":
        """The metric that the gate looks at in `task`."""
        return METRICS[task][0] if self.metric == "auto" else self.metric


class EvaluationSettings(Settings):
    """What the test evaluation reports."""

    gate: GateSettings = Field(default_factory=GateSettings, description="The gate.")
    slices: tuple[Literal["source", "length"], ...] = Field(default=("source", "length"), description="Breakdowns of the headline metrics.")
    bootstrap_samples: int = Field(default=1000, ge=100, le=100_000, description="Resamples behind each 95% interval.")
    calibration_bins: int = Field(default=10, ge=2, le=100, description="Equal-width confidence bins of the calibration error.")
    mistakes: int = Field(default=20, ge=0, le=1000, description="How many of the most confident mistakes the report shows.")
    batch_tokens: int = Field(default=2048, ge=16, description="Token budget of one scoring batch.")
    generations: int = Field(default=5, ge=0, le=100, description="causal-lm: how many test documents the report has the model go on with.")
    generation_tokens: int = Field(default=64, ge=1, le=4096, description="causal-lm: longest such continuation, in tokens.")


class DriftSettings(Settings):
    """How arrivals are compared with what the current model was trained on.

    A shift counts where its size reaches a threshold and chance does not explain it. null leaves a test out.
    """

    enabled: bool = Field(default=True, description="Make the asset drift_report and its check.")
    label_shift: Fraction | None = Field(
        default=0.1,
        description="Threshold for the total variation distance of the label shares: the share of examples that changed label. "
        "text-regression: for the Kolmogorov-Smirnov distance of the numbers.",
    )
    length_shift: Fraction | None = Field(
        default=0.15, description="Threshold for the Kolmogorov-Smirnov distance of the lengths in characters."
    )
    vocabulary_shift: Fraction | None = Field(
        default=0.02,
        description="Threshold for the Jensen-Shannon divergence of the word frequencies, in bits, above what chance alone gives.",
    )
    domain_auc: Annotated[float, Field(ge=0.5, le=1.0)] | None = Field(
        default=0.6, description="Threshold for the ROC AUC of a classifier that tells arrivals from training data; 0.5 is chance."
    )
    significance: float = Field(
        default=0.01, gt=0.0, le=0.5, description="A shift counts only if chance brings one as large with no more than this probability."
    )
    sample_rows: int = Field(default=2000, ge=100, le=100_000, description="Examples that are compared, at most, of each side.")
    min_rows: int = Field(
        default=300, ge=20, le=100_000, description="Fewer new examples than this wait for more before they are compared."
    )
    severity: Literal["warn", "error"] = Field(default="warn", description="How Dagster marks drift; no run stops for it.")

    @model_validator(mode="after")
    def _samples_suffice(self) -> "DriftSettings":
        if self.min_rows > self.sample_rows:
            raise ValueError(
                f"drift.min_rows ({self.min_rows}) is larger than drift.sample_rows ({self.sample_rows}), which bounds a sample"
            )
        return self


class AutomationSettings(Settings):
    """When the pipeline runs by itself."""

    retrain: Literal["on_arrival", "on_drift"] = Field(
        default="on_arrival",
        description="What the sensor trains for: on_arrival for any new data; on_drift only where it differs from what the current model "
        "was trained on. New data is ingested, cleaned and tokenized either way.",
    )
    min_new_rows: int = Field(default=1, ge=1, description="Retrain once at least so many rows are pending.")
    sensor_seconds: int = Field(default=30, ge=5, le=86_400, description="Seconds between looks at the landing folder.")
    schedule: str | None = Field(
        default="0 3 * * *", description="Cron expression of the nightly run, which trains only with retrain: on_arrival; null for none."
    )
    timezone: str = Field(default="UTC", description="Time zone of the schedule.")
    enabled: bool = Field(default=True, description="Start sensor and schedule switched on.")
    freshness_hours: float | None = Field(
        default=48.0, gt=0.0, description="The report is expected to be renewed within so many hours; null for no expectation."
    )
    max_retries: int = Field(default=3, ge=0, le=20, description="Retries, with back-off, of a step that a storage fault broke.")


class MaintenanceSettings(Settings):
    """Housekeeping of the tables: compaction, checkpoints of the log, and the deletion of files that only old versions use."""

    schedule: str | None = Field(default="0 4 * * 0", description="Cron expression of the maintenance job; null for none.")
    retention_hours: int = Field(
        default=168,
        ge=24,
        le=87_600,
        description="Versions replaced within so many hours stay readable; those that a model was made from stay for ever.",
    )


class ComputeSettings(Settings):
    """The compute that training gets."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Device; auto takes the best one present.")
    processes: int = Field(default=1, ge=1, le=64, description="Training processes; more than one runs under torchrun.")
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="full shares parameters, gradients and optimizer state out among the processes (FSDP2), so that larger models fit; "
        "none keeps them whole on each, which is faster.",
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="auto is bf16 where the device computes it natively, else float32; for the figures of a report it is always float32.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads of each process; by default the cores shared out.")
    price_per_hour: float | None = Field(
        default=None,
        ge=0.0,
        description="Price of an hour of all that a training occupies, in any currency: each training then says its cost.",
    )


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

    @model_validator(mode="after")
    def _one_task(self) -> "PipelineSettings":
        kind, labelled = self.source.kind, self.task != "causal-lm"
        single = "multi-labelled" if self.task == "multi-label-classification" else "labelled"
        if kind not in ((single,) if labelled else ("text", "prompt-completion", "chat")):
            wanted = single if labelled else "text, prompt-completion or chat"
            raise ValueError(f"task {self.task} needs source.kind {wanted}, found {kind}")
        balanced = [rule.name for rule in self.validation.rules if rule.kind == "class_balance"]
        if balanced and self.task != "text-classification":
            raise ValueError(f"rule {balanced[0]} of validation.rules is about labels, which task {self.task} does not have")
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
            raise ValueError(f"evaluation.gate.max_regression is {gate.max_regression:g}, but {metric} lies between 0 and 1")
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
        "properties": {"type": {"const": "trainpipe_assets.TrainingPipeline"}, "attributes": attributes},
        "$defs": definitions,
    }
