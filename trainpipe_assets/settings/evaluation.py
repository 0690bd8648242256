"""What a model is measured by: the report, the gate, and drift."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainpipe_assets.settings.base import Fraction, Settings, Task

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
    "token_accuracy",
]
METRICS: dict[Task, tuple[GateMetric, ...]] = {
    "text-classification": ("macro_f1", "accuracy"),
    "multi-label-classification": ("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss"),
    "text-regression": ("rmse", "mae", "r2", "pearson", "spearman"),
    "causal-lm": ("perplexity", "log_loss", "token_accuracy"),
}
"""The metrics that a gate can look at, the one of `auto` first."""
UNBOUNDED = frozenset({"rmse", "mae", "perplexity", "log_loss"})
"""Metrics that are no shares of 1, so that a loss in them can be larger than 1."""
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "perplexity", "rmse", "mae", "hamming_loss"})
"""Metrics of which the smaller value is the better one."""


class GateSettings(Settings):
    """What a model must reach to become the current one."""

    metric: GateMetric | Literal["auto"] = Field(
        default="auto",
        description="Metric that the gate looks at: macro_f1 or accuracy of a classifier; macro_f1, micro_f1, "
        "subset_accuracy or hamming_loss of a multi-label one; rmse, mae, r2, pearson or spearman of a regression; perplexity, log_loss "
        "(per token) or token_accuracy of a language model. Lower is better for hamming_loss, rmse, mae, perplexity and log_loss. auto is "
        "the first of each.",
    )
    min_value: Fraction = Field(default=0.0, description="Floor for the metric's value on the test split, where higher is better.")
    max_value: float | None = Field(
        default=None,
        gt=0.0,
        allow_inf_nan=False,
        description="Ceiling for the metric's value on the test split, where lower is better; null for none.",
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

    @field_validator("slices")
    @classmethod
    def _once(cls, slices: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(slices)) < len(slices):
            raise ValueError("each breakdown is shown once; name it once")
        return slices


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
