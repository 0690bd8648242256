"""Training speed and accuracy: the pipeline's training program against Hugging Face's Trainer, in rounds of one seed each.

In a round everything is measured once, in turn, so that a machine whose speed drifts slows all of it alike.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

from benchmarks.dataset import Dataset
from benchmarks.measurement import Measurement, Section, paired
from benchmarks.processes import run_python
from benchmarks.trainer_spec import TrainerResult, TrainerSpec
from trainpipe_assets.settings import ComputeSettings, PipelineSettings
from trainpipe_assets.training.spec import TrainSpec

Precision = Literal["float32", "bf16"]

SEEDS = (0, 1, 2)
GROUPED_BATCH, PADDED_BATCH = 32, 16
PADDED_STEPS, UNTIMED_STEPS = 7, 1
TRAINING_TIMEOUT, SHORT_TIMEOUT = 3600.0, 300.0


@dataclass(frozen=True)
class Aims:
    """The ratios aimed for, None for none."""

    padded: float
    grouped: float | None = None
    share_of_peak: float | None = None


AIMS: dict[Precision, Aims] = {"float32": Aims(padded=12.0, grouped=1.4, share_of_peak=0.8), "bf16": Aims(padded=12.0)}


@dataclass(frozen=True)
class Round:
    """What one seed gave. `gemm` is the mean of the peaks just before and just after the training."""

    seed: int
    timing: dict[str, float]
    gemm: float
    grouped: float
    padded: float
    accuracy: float
    grouped_accuracy: float
    encoder_parameters: int

    @property
    def speed(self) -> float:
        """Examples per second of the pipeline's training program."""
        return self.timing["examples_per_second"]

    @property
    def gflops(self) -> float:
        """6 floating-point operations for each token and parameter (2 forward, 4 backward; Kaplan et al., 2020, section 2.1)."""
        return 6.0 * self.encoder_parameters * self.timing["tokens_per_second"] / 1e9


def measure(
    dataset: Dataset, settings: PipelineSettings, folder: Path, precision: Precision = "float32", seeds: Sequence[int] = SEEDS
) -> Section:
    """Train `dataset` with the shipped `settings`, one epoch for each seed, in `precision`, with both loops."""
    rounds = [_round(dataset, settings, _folder(folder, precision, seed), seed, precision) for seed in seeds]
    return Section(f"Training in {precision}", _reading(dataset, precision, seeds), _measurements(rounds, precision), _table(rounds))


def finished_model(dataset: Dataset, settings: PipelineSettings, folder: Path) -> Path:
    """The model of the first seed: that of `measure` in the same `folder`, or one trained now."""
    spec = _spec(dataset, settings, _folder(folder, "float32", SEEDS[0]) / "ours", SEEDS[0], "float32")
    _run("trainpipe_assets.training", [_written(spec, folder / "ours.json")], TRAINING_TIMEOUT)  # done at once if it was trained before
    return Path(spec.output_dir)


def _folder(folder: Path, precision: Precision, seed: int) -> Path:
    return folder / precision / f"seed-{seed}"


def _round(dataset: Dataset, settings: PipelineSettings, folder: Path, seed: int, precision: Precision) -> Round:
    ours, grouped = (_spec(dataset, settings, folder / name, seed, precision) for name in ("ours", "grouped"))
    padded = _spec(dataset, settings, folder / "padded", seed, "float32")  # the Trainer's default, which tutorials leave as it is
    peaks: list[float] = []

    def train_ours() -> None:
        peaks.append(_gemm_peak(precision))
        _run("trainpipe_assets.training", [_written(ours, folder / "ours.json")], TRAINING_TIMEOUT)
        peaks.append(_gemm_peak(precision))

    def train_grouped() -> float:
        return _trainer(TrainerSpec(training=grouped, batch_size=GROUPED_BATCH, padding="longest", grouped=True), folder / "grouped.json")

    if seed % 2:
        grouped_speed = train_grouped()
        train_ours()
    else:
        train_ours()
        grouped_speed = train_grouped()
    tutorial = TrainerSpec(
        training=padded,
        batch_size=PADDED_BATCH,
        padding="max_length",
        grouped=False,
        max_steps=PADDED_STEPS,
        untimed_steps=UNTIMED_STEPS,
        save=False,
    )
    padded_speed = _trainer(tutorial, folder / "padded.json")
    scored = _score(Path(ours.output_dir), dataset_of=folder / "ours.json")
    return Round(
        seed=seed,
        timing=json.loads((Path(ours.output_dir) / "training.json").read_text())["timing"],
        gemm=mean(peaks),
        grouped=grouped_speed,
        padded=padded_speed,
        accuracy=scored["accuracy"],
        grouped_accuracy=_score(Path(grouped.output_dir), dataset_of=folder / "ours.json")["accuracy"],
        encoder_parameters=scored["encoder_parameters"],
    )


def _spec(dataset: Dataset, settings: PipelineSettings, folder: Path, seed: int, precision: Precision) -> TrainSpec:
    return TrainSpec(
        dataset_uri=dataset.uri,
        dataset_version=dataset.version,
        labels=dataset.labels,
        base_model=dataset.base_model,
        model=settings.model,
        training=settings.training.model_copy(update={"seed": seed, "epochs": 1}),
        compute=ComputeSettings(device="cpu", precision=precision),
        work_dir=str(folder / "work"),
        output_dir=str(folder / "model"),
        fingerprint=f"benchmark-{seed}",
    )


def _written(spec: TrainSpec | TrainerSpec, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.model_dump_json())
    return str(path)


def _trainer(spec: TrainerSpec, path: Path) -> float:
    result = path.with_suffix(".result.json")
    _run("benchmarks.trainer", [_written(spec, path), str(result)], TRAINING_TIMEOUT)
    return TrainerResult.model_validate_json(result.read_text()).examples_per_second


def _score(model: Path, dataset_of: Path) -> dict[str, Any]:
    """The model's accuracy on the test split of the spec `dataset_of`."""
    scored: dict[str, Any] = json.loads(_run("benchmarks.scoring", [str(model), str(dataset_of)], SHORT_TIMEOUT))
    return scored


def _gemm_peak(precision: Precision) -> float:
    return float(json.loads(_run("benchmarks.gemm", [precision], SHORT_TIMEOUT))["gflops"])


def _run(module: str, arguments: list[str], timeout: float) -> str:
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    return run_python(["-m", module, *arguments], {**os.environ, **quiet}, timeout).stdout


def _measurements(rounds: list[Round], precision: Precision) -> list[Measurement]:
    name = "training" if precision == "float32" else f"training_{precision}"
    aims = AIMS[precision]
    speeds = [one.speed for one in rounds]
    accuracies, theirs = [one.accuracy for one in rounds], [one.grouped_accuracy for one in rounds]
    return [
        Measurement(f"{name}_speed", "training speed of the pipeline", median(speeds), "examples/s"),
        paired(
            f"{name}_share_of_peak",
            f"arithmetic of training against the machine's {precision} matrix-product peak",
            [one.gflops for one in rounds],
            [one.gemm for one in rounds],
            "GFLOP/s",
            aims.share_of_peak,
        ),
        paired(
            f"{name}_against_trainer_padded",
            f"training speed against HF Trainer in float32, padded to the longest input, batch {PADDED_BATCH}",
            speeds,
            [one.padded for one in rounds],
            "examples/s",
            aims.padded,
        ),
        paired(
            f"{name}_against_trainer_grouped",
            f"training speed against HF Trainer in {precision}, grouped by length, batch {GROUPED_BATCH}",
            speeds,
            [one.grouped for one in rounds],
            "examples/s",
            aims.grouped,
        ),
        Measurement(
            f"{name}_test_accuracy_mean",
            f"test accuracy against the same Trainer, {_times(rounds)}",
            mean(accuracies),
            "fraction",
            mean(theirs),
            mean(accuracies) / mean(theirs),
        ),
        *(_spread(name, accuracies, theirs) if len(rounds) > 1 else ()),
        Measurement(f"{name}_padding", "padding among the tokens computed", _middle(rounds, "padding_fraction"), "fraction"),
        Measurement(f"{name}_data_wait", "time spent waiting for data", _middle(rounds, "data_wait_fraction"), "fraction"),
    ]


def _times(of: Sequence[object]) -> str:
    return "one seed" if len(of) == 1 else f"mean over {len(of)} seeds"


def _middle(rounds: list[Round], name: str) -> float:
    return median(one.timing[name] for one in rounds)


def _spread(name: str, accuracies: Sequence[float], theirs: Sequence[float]) -> Iterator[Measurement]:
    own, other = (max(values) - min(values) for values in (accuracies, theirs))
    yield Measurement(f"{name}_test_accuracy_spread", "spread of that accuracy, largest less smallest", own, "fraction", other)


def _table(rounds: list[Round]) -> list[list[str]]:
    header = ["seed", "ours, examples/s", "grouped", "padded", "GEMM, GFLOP/s", "our share", "our accuracy", "grouped's accuracy"]
    rows = [
        [
            str(one.seed),
            f"{one.speed:.1f}",
            f"{one.grouped:.1f}",
            f"{one.padded:.1f}",
            f"{one.gemm:.0f}",
            f"{one.gflops / one.gemm:.2f}",
            f"{one.accuracy:.4f}",
            f"{one.grouped_accuracy:.4f}",
        ]
        for one in rounds
    ]
    return [header, *rows]


def _reading(dataset: Dataset, precision: Precision, seeds: Sequence[int]) -> str:
    if precision != "float32":
        return _READING_ALIKE.format(precision=precision, times=_times(seeds))
    return _READING.format(
        train_rows=f"{dataset.train_rows:,}",
        test_rows=f"{dataset.test_rows:,}",
        seeds=len(seeds),
        grouped_batch=GROUPED_BATCH,
        padded_batch=PADDED_BATCH,
        timed=PADDED_STEPS - UNTIMED_STEPS,
        untimed=UNTIMED_STEPS,
    )


_READING = """
One epoch over {train_rows} training rows for each of {seeds} seeds, with the shipped hyper-parameters. Accuracy is on all
{test_rows} held-out test rows, by the same code for every model. Base model, initial head, tokens, splits, seed, learning rate with its
warm-up and decay, weight decay, clipping, optimizer, rate of dropout and threads are the same for
all. The loop, its batches and how it computes differ: `docs/log.md` tells what was tried.

- *Grouped* is a well-set Trainer: `train_sampling_strategy="group_by_length"`, each batch padded to its longest text, batch
  {grouped_batch}.
- *Padded* is what tutorials do: every text padded to the longest input allowed, batch {padded_batch}. It is timed on {timed} steps,
  after {untimed} that does not count.
- Time is that of the steps and of waiting for their data, without starting, validating and saving. In a round ours
  and grouped take turns to begin, and padded comes last; a ratio is the median of the rounds' ratios.
- The arithmetic of training is counted as 6 * parameters * tokens: 2 operations forward and 4 backward. Parameters are those of the
  encoder's layers, through which every token goes (no embeddings, pooler or head); tokens are real ones, without padding; the products
  inside the attention scores are left out. The peak is the fastest square float32 matrix product that torch does here, measured in a
  process of its own just before and just after each training.
""".strip()

_READING_ALIKE = """
The same once more ({times}) with ours and the grouped Trainer in {precision} autocast, which this machine computes natively, so that
the pipeline chooses it where nothing is set. The padded Trainer stays in float32, its own default, which tutorials leave as it is; the
peak is that of {precision} products.
""".strip()
