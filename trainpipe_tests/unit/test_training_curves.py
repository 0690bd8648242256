"""Loss curves: the engine, with all that makes it quick, against a plain loop of transformers and torch, and against numbers that are kept.

The plain loop computes sequence by sequence, without padding, packing, skipped tokens, fused kernels or micro-batches, so what it makes of
the same batches is what any change of the engine must make of them, but for rounding. The numbers in `loss_curves.json` hold the batches,
the seeds and the initial weights as well. `python -m trainpipe_tests.unit.test_training_curves` writes them anew.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainpipe_assets.training import loop
from trainpipe_assets.training.batching import Indices, plan_batches
from trainpipe_assets.training.model import load_classifier, load_language_model
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks.examples import load_examples
from trainpipe_assets.training.tasks.packing import plan_packs
from trainpipe_assets.training.tasks.pieces import load_pieces
from trainpipe_tests.unit.causal_fixtures import make_causal_spec
from trainpipe_tests.unit.training_fixtures import LABELS, make_spec, write_dataset, write_tiny_base

KEPT = Path(__file__).with_name("loss_curves.json")
ROUNDING = 1e-4  # relative; the curves differ by some 1e-6
Losses = Callable[[torch.nn.Module, Indices], tuple[torch.Tensor, int]]
"""Sum of the losses of some sequences, and over how many examples or tokens."""


@dataclass
class Curve:
    """What a training measures at each step."""

    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)


def classifier_spec(root: Path, **training: Any) -> TrainSpec:
    if not (root / "base").exists():
        write_tiny_base(root / "base", dropout=0.0)
        write_dataset(root / "dataset")
    return make_spec(root, training=training)


def plain_classifier(spec: TrainSpec) -> Curve:
    examples = load_examples(spec.dataset_uri, 0, "train", 2)

    def losses(model: torch.nn.Module, batch: Indices) -> tuple[torch.Tensor, int]:
        found = torch.zeros(())
        for example in batch:
            ids = torch.from_numpy(examples.tokens[examples.offsets[example] : examples.offsets[example + 1]].astype("int64"))
            found = found + cross_entropy(model(input_ids=ids[None]).logits, torch.tensor([examples.labels[example]]))
        return found, len(batch)

    model = load_classifier(spec.base_model, list(LABELS), spec.training.seed)
    batches = (plan_batches(examples.lengths, spec.training.batch_tokens, spec.training.seed, epoch) for epoch in (0, 1))
    return plain_training(model, list(batches), losses, spec)


def plain_language_model(spec: TrainSpec) -> Curve:
    pieces = load_pieces(spec.dataset_uri, 0, "train", spec.model.max_length)

    def losses(model: torch.nn.Module, batch: Indices) -> tuple[torch.Tensor, int]:
        found, count = torch.zeros(()), 0
        for piece in batch:
            place = slice(pieces.offsets[piece], pieces.offsets[piece + 1])
            ids, targets = (torch.from_numpy(tokens[place].astype("int64")) for tokens in (pieces.tokens, pieces.targets))
            learnt = torch.from_numpy(pieces.learnt[place])
            found = found + cross_entropy(model(input_ids=ids[None]).logits[0][learnt], targets[learnt], reduction="sum")
            count += int(learnt.sum())
        return found, count

    model = load_language_model(spec.base_model, spec.training.seed)
    batches = (plan_packs(pieces.lengths, spec.training.batch_tokens, spec.training.seed, epoch) for epoch in (0, 1))
    return plain_training(model, list(batches), losses, spec)


def plain_training(model: torch.nn.Module, epochs: list[list[Indices]], losses: Losses, spec: TrainSpec) -> Curve:
    """What a tutorial would write."""
    chosen, curve, model = spec.training, Curve(), model.train()
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    groups = [{"params": matrices, "weight_decay": chosen.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, fused=False, foreach=False)
    batches = [batch for batches in epochs for batch in batches]
    for batch, rate in zip(batches, linear_with_warmup(len(batches), chosen.warmup_fraction, chosen.learning_rate), strict=True):
        total, count = losses(model, batch)
        (total / count).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        curve.loss.append(float(total.detach()) / count)
        curve.grad_norm.append(float(norm))
    return curve


def linear_with_warmup(steps: int, share: float, peak: float) -> Iterator[float]:
    rising = math.ceil(share * steps)
    yield from (peak * (step + 1) / rising for step in range(rising))
    yield from (peak * (steps - step) / (steps - rising) for step in range(rising, steps))


PLAIN: dict[str, tuple[Callable[[Path], TrainSpec], Callable[[TrainSpec], Curve]]] = {
    "text-classification": (lambda root: classifier_spec(root, learning_rate=1e-3), plain_classifier),
    "causal-lm": (lambda root: make_causal_spec(root, training={"learning_rate": 1e-3}), plain_language_model),
}


@pytest.fixture(scope="module", params=PLAIN)
def planned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, TrainSpec, Curve]:
    """A task, a training of it, and its curve by the plain loop."""
    make, plain = PLAIN[request.param]
    spec = make(tmp_path_factory.mktemp("curves"))
    return request.param, spec, plain(spec)


@pytest.mark.parametrize("micro_batch_tokens", [None, 48])
def test_the_engine_computes_what_a_plain_loop_computes(
    planned: tuple[str, TrainSpec, Curve], tmp_path: Path, micro_batch_tokens: int | None
) -> None:
    _, spec, plain = planned
    training = spec.training.model_copy(update={"micro_batch_tokens": micro_batch_tokens})
    places = {"work_dir": str(tmp_path / "work"), "output_dir": str(tmp_path / "model")}
    history = loop.run(spec.model_copy(update={**places, "training": training}), lambda _progress: None).record["history"]
    assert len(history) >= 20
    for measure in ("loss", "grad_norm"):
        assert [row[measure] for row in history] == pytest.approx(getattr(plain, measure), rel=ROUNDING), measure


def test_the_plain_loop_computes_what_it_always_did(planned: tuple[str, TrainSpec, Curve]) -> None:
    task, _, plain = planned
    assert plain.loss == pytest.approx(json.loads(KEPT.read_text())[task], rel=ROUNDING)


def main() -> None:
    """Write the numbers anew."""
    curves = {}
    for task, (make, plain) in PLAIN.items():
        with tempfile.TemporaryDirectory() as folder:
            curves[task] = [round(loss, 6) for loss in plain(make(Path(folder))).loss]
    KEPT.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
