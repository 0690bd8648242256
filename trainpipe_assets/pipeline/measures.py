"""How a model is measured on the test split, by task: its answers, those of the previous model, and what is made of them.

Each task has one entry in `MEASURES`; `evaluation.py` knows no task by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import polars as pl

from trainpipe_assets.data.tokenization import load_tokenizer
from trainpipe_assets.evaluation.candidate import Unseen
from trainpipe_assets.evaluation.classification import Evaluation, evaluate
from trainpipe_assets.evaluation.history import Judged
from trainpipe_assets.evaluation.intervals import rounded
from trainpipe_assets.evaluation.label_set_report import OF_LABELS, labels_plot, render_label_set_report
from trainpipe_assets.evaluation.label_sets import LabelSetEvaluation, evaluate_label_sets
from trainpipe_assets.evaluation.language import DocumentSums, LanguageEvaluation, evaluate_language
from trainpipe_assets.evaluation.language_scoring import TooLong, generate, score_documents
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.evaluation.plots import confusion_plot, reliability_plot
from trainpipe_assets.evaluation.regression import RegressionEvaluation, evaluate_regression
from trainpipe_assets.evaluation.regression_plots import prediction_plot, residual_plot
from trainpipe_assets.evaluation.regression_report import render_regression_report
from trainpipe_assets.evaluation.report import ReportContext, render_language_report, render_report
from trainpipe_assets.evaluation.scoring import align_label_sets, align_labels, score
from trainpipe_assets.pipeline.metadata import markdown_table, picture
from trainpipe_assets.schemas import DOCUMENT_SCORES, LABEL_SET_PREDICTIONS, PREDICTIONS, TARGET_PREDICTIONS
from trainpipe_assets.settings import ComputeSettings, EvaluationSettings
from trainpipe_assets.storage.artifacts import Artifact, local_copy
from trainpipe_assets.storage.base_models import BaseModel
from trainpipe_assets.training.tasks.target_scale import scale_of_model

SAMPLE = ("prompt", "expected", "generated")
OTHER_LABELS = "it knows none of these labels"

Found = TypeVar("Found", bound=Judged)


@dataclass(frozen=True)
class Trial:
    """A model, the test split it is measured on, and the previous model, if it is of the same task, with what it has not seen of that."""

    model: Artifact
    previous: Artifact | None
    unseen: Unseen | None
    base: Callable[[], BaseModel]
    examples: pl.DataFrame
    compute: ComputeSettings
    settings: EvaluationSettings

    @property
    def folder(self) -> str:
        """The model on local disk."""
        return str(local_copy(self.model))

    def base_before(self) -> BaseModel:
        """The base model that the model was trained from.

        Raises:
            ValueError: `model.base` is another one by now.
        """
        base, trained_from = self.base(), self.model.manifest["base_model"]
        if base.digest != trained_from["digest"]:
            before = f"{trained_from['name']!r} ({trained_from['digest'][:8]})"
            raise ValueError(
                f"model.base is {base.name!r} ({base.digest[:8]}) now, and the model {self.model.uri} is judged beside the one that it was "
                f"trained from, {before}: materialize fine_tuned_model too, or name that base again"
            )
        return base

    def answers(self) -> FloatArray:
        """Of the model, to the test examples."""
        return score(self.folder, self.examples, self.compute, self.settings.batch_tokens, self.model.task)

    def previous_answers(self, previous: Artifact) -> FloatArray:
        """Of the previous model, which reads the same texts by its own tokenizer: what it was trained with is part of it."""
        folder = str(local_copy(previous))
        tokenizer = load_tokenizer(folder, previous.manifest["settings"]["model"]["max_length"])
        own = self.examples.with_columns(input_ids=tokenizer.encode(self.examples["text"]))
        counted = own.with_columns(n_tokens=pl.col("input_ids").list.len().cast(pl.Int32))
        return score(folder, counted, self.compute, self.settings.batch_tokens, self.model.task)


@dataclass(frozen=True)
class Measure(Generic[Found]):
    """The measuring of one task: what is found, the rows kept beside the model, the report, and what the UI shows beside numbers."""

    take: Callable[[Trial], Found]
    rows: Callable[[Found], pl.DataFrame]
    schema: pl.Schema
    report: Callable[[Found, ReportContext], str]
    shown: Callable[[Found], Mapping[str, Any]]


def _classification(trial: Trial) -> Evaluation:
    labels, previous, earlier = trial.model.labels, trial.previous, None
    if previous is not None and set(previous.labels) & set(labels):
        earlier = align_labels(trial.previous_answers(previous), previous.labels, labels)
    why = OTHER_LABELS if previous is not None and earlier is None else ""
    return evaluate(trial.examples, labels, trial.answers(), earlier, trial.settings, unseen=trial.unseen, incomparable=why)


def _classification_shown(found: Evaluation) -> Mapping[str, Any]:
    return {
        "confusion_matrix": picture(confusion_plot(found.confusion, found.labels), "confusion matrix"),
        "reliability": picture(reliability_plot(found.calibration), "confidence against accuracy"),
    }


def _label_sets(trial: Trial) -> LabelSetEvaluation:
    labels, previous, earlier = trial.model.labels, trial.previous, None
    if previous is not None and set(previous.labels) & set(labels):
        earlier = align_label_sets(trial.previous_answers(previous), previous.labels, labels)
    why = OTHER_LABELS if previous is not None and earlier is None else ""
    return evaluate_label_sets(trial.examples, labels, trial.answers(), earlier, trial.settings, unseen=trial.unseen, incomparable=why)


def _label_sets_shown(found: LabelSetEvaluation) -> Mapping[str, Any]:
    return {
        "average_precision_of_labels": picture(labels_plot(found), "average precision of each label"),
        "reliability": picture(reliability_plot(found.calibration, names=OF_LABELS), "probability against what is there"),
    }


def _regression(trial: Trial) -> RegressionEvaluation:
    previous, (target,), earlier, why = trial.previous, trial.model.labels, None, ""
    if previous is not None and previous.labels == trial.model.labels:
        earlier = trial.previous_answers(previous)
    elif previous is not None:
        why = f"it predicts another number, {previous.labels[0]}"
    mean = scale_of_model(local_copy(trial.model)).mean
    return evaluate_regression(
        trial.examples, target, trial.answers(), earlier, mean, trial.settings, unseen=trial.unseen, incomparable=why
    )


def _regression_shown(found: RegressionEvaluation) -> Mapping[str, Any]:
    return {
        "predicted_and_true": picture(prediction_plot(found.numbers, found.target, found.training_mean), "predicted against true"),
        "residuals": picture(residual_plot(found.numbers, found.target), "residuals against predictions"),
        "baseline_rmse": rounded(found.baseline["rmse"]),
    }


def _language(trial: Trial) -> LanguageEvaluation:
    model, previous, settings, documents = trial.model, trial.previous, trial.settings, trial.examples
    longest = model.manifest["settings"]["model"]["max_length"]

    def sums_of(folder: str) -> DocumentSums:
        return score_documents(folder, documents, longest, trial.compute, settings.batch_tokens)

    own, base, earlier, why = sums_of(trial.folder), sums_of(trial.base_before().folder), None, ""
    if previous is not None and not previous.reads_like(model):
        why = "it reads texts as other tokens, whose perplexity is another number"
    elif previous is not None:
        try:
            earlier = sums_of(str(local_copy(previous)))
        except TooLong as error:
            why = str(error)
    samples = (
        generate(trial.folder, documents, settings.generations, settings.generation_tokens, trial.compute) if settings.generations else ()
    )
    return evaluate_language(documents, own, base, earlier, samples, settings, unseen=trial.unseen, incomparable=why)


def _language_shown(found: LanguageEvaluation) -> Mapping[str, Any]:
    samples = pl.DataFrame([vars(sample) for sample in found.generations], schema=dict.fromkeys(SAMPLE, pl.String))
    return {"generations": markdown_table(samples)}


MEASURES: Mapping[str, Measure[Any]] = {
    "text-classification": Measure(_classification, lambda found: found.predictions, PREDICTIONS, render_report, _classification_shown),
    "multi-label-classification": Measure(
        _label_sets, lambda found: found.predictions, LABEL_SET_PREDICTIONS, render_label_set_report, _label_sets_shown
    ),
    "text-regression": Measure(
        _regression, lambda found: found.predictions, TARGET_PREDICTIONS, render_regression_report, _regression_shown
    ),
    "causal-lm": Measure(_language, lambda found: found.scores, DOCUMENT_SCORES, render_language_report, _language_shown),
}
