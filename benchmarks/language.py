"""Tuning a language model: the training program against the Trainers of Hugging Face and of TRL, on the same packed rows.

The losses of each step are compared too: where they differ, so does the work, and the times say nothing.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dataset import Documents
from benchmarks.language_spec import LanguageResult, LanguageTrainerSpec, Peer
from benchmarks.measurement import Measurement, Section, paired
from benchmarks.processes import run_python
from trainpipe_assets.settings import ComputeSettings, LoraSettings, PipelineSettings
from trainpipe_assets.training.spec import TrainSpec

PEERS: dict[Peer, str] = {"trainer": "HF Trainer", "sft": "TRL's SFTTrainer"}
AIM = 1.3
TOLERANCE = 0.01  # of a step's loss, relative: rounding, grown by the steps before
FULL_LEARNING_RATE = 2e-5  # of all weights; that of adapters is the shipped one
TIMEOUT = 1800.0


@dataclass(frozen=True)
class Tuning:
    """One way of tuning, and what it gave by trainer; ours is None."""

    name: str
    seed: int
    lora: LoraSettings | None
    results: dict[Peer | None, LanguageResult]


def measure(documents: Documents, settings: PipelineSettings, folder: Path, seeds: Sequence[int]) -> Section:
    """Tune all weights, and adapters, of the shipped pipeline's base model on `documents`, once for each of `seeds`.

    Raises:
        RuntimeError: the losses differ.
    """
    ways = {"all weights": None, "LoRA": settings.model.lora}
    seeded = [settings.model_copy(update={"training": settings.training.model_copy(update={"seed": seed})}) for seed in seeds]
    tunings = {
        name: [_tuning(name, lora, documents, one, folder / f"{name.replace(' ', '-')}-{one.training.seed}") for one in seeded]
        for name, lora in ways.items()
    }
    measurements = [one for rounds in tunings.values() for one in _measurements(rounds, documents)]
    return Section("Tuning a language model", _reading(documents, seeds), measurements, _table(tunings))


def _tuning(name: str, lora: LoraSettings | None, documents: Documents, settings: PipelineSettings, folder: Path) -> Tuning:
    """Ours first, or last where adapters are tuned, so that a machine that slows down slows nobody alone."""
    order: list[Peer | None] = [None, *PEERS] if lora is None else [*PEERS, None]
    results: dict[Peer | None, LanguageResult] = {}
    for peer in order:
        spec = _spec(documents, settings, lora, folder / (peer or "ours"))
        results[peer] = _train_ours(spec, folder) if peer is None else _train_theirs(spec, peer, folder)
    return Tuning(name, settings.training.seed, lora, results)


def _spec(documents: Documents, settings: PipelineSettings, lora: LoraSettings | None, folder: Path) -> TrainSpec:
    """A constant learning rate: the two have different ideas of the first and the last step of a schedule."""
    changes: dict[str, object] = {"epochs": 1, "schedule": "constant", "warmup_fraction": 0.0}
    if lora is None:
        changes["learning_rate"] = FULL_LEARNING_RATE
    return TrainSpec(
        task="causal-lm",
        dataset_uri=documents.uri,
        dataset_version=documents.version,
        labels=(),
        base_model=documents.base_model,
        model=settings.model.model_copy(update={"lora": lora}),
        training=settings.training.model_copy(update=changes),
        compute=ComputeSettings(device="cpu", precision="float32"),
        work_dir=str(folder / "work"),
        output_dir=str(folder / "model"),
        fingerprint="benchmark",
    )


def _train_ours(spec: TrainSpec, folder: Path) -> LanguageResult:
    _run("trainpipe_assets.training", [_written(spec, folder / "ours.json")])
    record = json.loads((Path(spec.output_dir) / "training.json").read_text())
    return LanguageResult(seconds=record["timing"]["step_seconds"], losses=[step["loss"] for step in record["history"]])


def _train_theirs(spec: TrainSpec, peer: Peer, folder: Path) -> LanguageResult:
    path, answer = folder / f"{peer}.json", folder / f"{peer}.result.json"
    _run("benchmarks.language_trainers", [_written(LanguageTrainerSpec(training=spec, peer=peer), path), str(answer)])
    return LanguageResult.model_validate_json(answer.read_text())


def _written(spec: TrainSpec | LanguageTrainerSpec, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.model_dump_json())
    return str(path)


def _run(module: str, arguments: list[str]) -> None:
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    run_python(["-m", module, *arguments], {**os.environ, **quiet}, TIMEOUT)


def _measurements(rounds: Sequence[Tuning], documents: Documents) -> list[Measurement]:
    """What all rounds of one way of tuning say together."""
    name, way = rounds[0].name, "lora" if rounds[0].lora else "full"
    everyone: list[Peer | None] = [None, *PEERS]
    speeds = {trainer: [documents.tokens / tuning.results[trainer].seconds for tuning in rounds] for trainer in everyone}
    against = [
        paired(
            f"language_{way}_against_{peer}",
            f"{name}: tokens of documents tuned on, against {called}",
            speeds[None],
            speeds[peer],
            "tokens/s",
            AIM,
        )
        for peer, called in PEERS.items()
    ]
    difference = max(_difference(tuning.results[None], tuning.results[peer]) for tuning in rounds for peer in PEERS)
    if difference > TOLERANCE:
        raise RuntimeError(f"{name}: the losses of a step differ by {difference:.2%}; {TOLERANCE:.0%} is rounding")
    return [*against, Measurement(f"language_{way}_loss", f"{name}: largest relative difference of a step's loss", difference, "")]


def _difference(ours: LanguageResult, theirs: LanguageResult) -> float:
    return max(abs(one - other) / other for one, other in zip(ours.losses, theirs.losses, strict=True))


def _table(tunings: dict[str, list[Tuning]]) -> list[list[str]]:
    rows = [
        [
            tuning.name,
            str(tuning.seed),
            PEERS[trainer] if trainer else "ours",
            f"{result.seconds:.1f}",
            ", ".join(f"{loss:.4f}" for loss in result.losses),
        ]
        for rounds in tunings.values()
        for tuning in rounds
        for trainer, result in tuning.results.items()
    ]
    return [["tuned", "seed", "by", "s", "loss of each step"], *rows]


def _reading(documents: Documents, seeds: Sequence[int]) -> str:
    times = "once" if len(seeds) == 1 else f"once for each of {len(seeds)} seeds"
    return _READING.format(documents=documents.count, tokens=f"{documents.tokens:,}", times=times)


_READING = """
SmolLM2-135M-Instruct as the pipeline `assistant` tunes it, on {documents} of its documents, {tokens} tokens, {times}; only
the completions are learnt. Each trainer is a process of its own and takes the same rows in the same order, a row a step: documents packed
by best fit into rows of 1,024 tokens, without seeing each other. Same weights and adapters to begin with, learning rate (constant), weight
decay, clipping, fused AdamW, float32 and threads; that the loss of each step is the same is checked.

- *HF Trainer* has its rows from `DataCollatorWithFlattening`, whose positions tell the documents apart.
- *TRL's SFTTrainer* has `packing=True`, with rows as its own packing makes them; gradient checkpointing and bfloat16, its defaults, are
  off: they make it slower here.
- Time is that from the first row to the end of the last step. The pairs are few; the runs of one kind follow each other directly.
""".strip()
