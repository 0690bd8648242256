"""One step: the same gradients however the batch is split, and what happens when memory or numbers run out."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import plan_batches
from trainpipe_assets.training.distribution import Distribution
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import load_classifier, load_language_model
from trainpipe_assets.training.optimizer import build_optimizer
from trainpipe_assets.training.step import NonFiniteLoss, Stepper
from trainpipe_assets.training.touched_rows import TouchedRows
from trainpipe_tests.unit.causal_fixtures import write_tiny_language_model
from trainpipe_tests.unit.training_fixtures import LABELS, make_examples, write_tiny_base

BATCH = plan_batches(make_examples().lengths, 10_000, 0, 0)[0]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("models") / "base", dropout=0.0)


def make_stepper(base: Path, micro_batch_tokens: int | None = None, **settings: float) -> Stepper:
    model = load_classifier(str(base), LABELS, 0).train()
    chosen = TrainingSettings.model_validate({"learning_rate": 1e-3, "weight_decay": 0.0, **settings})
    return Stepper(Distribution(Accelerator(cpu=True)), model, build_optimizer(model, chosen), make_examples(), chosen, micro_batch_tokens)


def limit_memory(stepper: Stepper, tokens: int, error: Exception) -> None:
    """From now on a forward pass over more than `tokens` tokens fails with `error`."""

    def refuse(_module: object, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].numel() > tokens:
            raise error

    stepper.model.register_forward_pre_hook(refuse, with_kwargs=True)


def weights(stepper: Stepper) -> np.ndarray:
    return torch.nn.utils.parameters_to_vector(stepper.model.parameters()).detach().numpy().copy()


@pytest.mark.parametrize("micro_batch_tokens", [1, 40, 128, 500])
def test_micro_batches_make_the_step_of_the_whole_batch(base: Path, micro_batch_tokens: int) -> None:
    whole, split = make_stepper(base), make_stepper(base, micro_batch_tokens)
    assert len(split.prepare(BATCH).micro_batches) > 1
    expected, found = (stepper.take(stepper.prepare(BATCH), 1, 1e-3) for stepper in (whole, split))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("max_grad_norm", [0.01, 100.0])
def test_gradients_by_touched_rows_take_the_steps_of_whole_ones(base: Path, max_grad_norm: float) -> None:
    """Rows that an earlier step touched, and this one does not, go on by their momentum."""
    by_rows, whole = (make_stepper(base, 128, max_grad_norm=max_grad_norm) for _ in range(2))
    whole.model.get_input_embeddings().sparse = False
    for step, batch in enumerate((BATCH, BATCH[:2], BATCH[2:5]), 1):
        found, expected = (stepper.take(stepper.prepare(batch), step, 1e-3) for stepper in (by_rows, whole))
        assert found == pytest.approx(expected, rel=1e-5)
    assert by_rows.touched.whole is not None
    assert not by_rows.touched.whole.any()
    assert whole.touched.whole is None
    for (name, found_weight), expected_weight in zip(by_rows.model.named_parameters(), whole.model.parameters(), strict=True):
        if not name.endswith("key.bias"):  # its gradient is 0 but for rounding, of which AdamW makes whole steps
            torch.testing.assert_close(found_weight, expected_weight, rtol=1e-4, atol=1e-5, msg=name)


def test_gradients_are_whole_where_the_table_is_the_output_layer_too(tmp_path: Path) -> None:
    model = load_language_model(str(write_tiny_language_model(tmp_path / "base")), 0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    TouchedRows(model, processes=1)
    assert not model.get_input_embeddings().sparse


def test_the_loss_is_the_mean_over_the_examples_and_never_smoothed(base: Path) -> None:
    plain, smoothed = make_stepper(base), make_stepper(base, label_smoothing=0.2)
    with torch.inference_mode():
        losses = [float(plain._losses(micro_batch)[1]) for micro_batch in make_stepper(base, 1).prepare(BATCH).micro_batches]
    results = [stepper.take(stepper.prepare(BATCH), 1, 1e-3) for stepper in (plain, smoothed)]
    assert results[0][0] == pytest.approx(sum(losses) / len(BATCH), rel=1e-5)
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    assert results[1][1] != pytest.approx(results[0][1], rel=1e-3)


def test_the_smoothed_loss_is_that_of_torch(base: Path) -> None:
    stepper = make_stepper(base, label_smoothing=0.2)
    (inputs,) = stepper.prepare(BATCH).micro_batches
    with torch.inference_mode():
        logits = stepper.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
        expected = torch.nn.functional.cross_entropy(logits, inputs.labels, label_smoothing=0.2, reduction="sum")
        assert float(stepper._losses(inputs)[0]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_shrinks_the_micro_batch_and_keeps_the_step(base: Path, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    whole, limited = make_stepper(base), make_stepper(base)
    limit_memory(limited, 200, error)
    with caplog.at_level(logging.WARNING):
        found = limited.take(limited.prepare(BATCH), 1, 1e-3)
    assert found == pytest.approx(whole.take(whole.prepare(BATCH), 1, 1e-3), rel=1e-4)
    assert limited.micro_batch_tokens is not None
    assert limited.micro_batch_tokens <= 200
    assert "do not fit the memory" in caplog.text
    assert all(micro_batch.input_ids.numel() <= 200 for micro_batch in limited.prepare(BATCH).micro_batches)


def test_a_batch_made_while_the_micro_batches_shrink_knows_how_it_was_cut(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper, make = make_stepper(base, micro_batch_tokens=512), Stepper._micro_batch

    def shrink_meanwhile(stepper: Stepper, run: np.ndarray) -> MicroBatch:
        stepper.micro_batch_tokens = 32
        return make(stepper, run)

    monkeypatch.setattr(Stepper, "_micro_batch", shrink_meanwhile)
    effective = np.arange(len(stepper.examples.lengths))
    made, again = stepper.prepare(effective), stepper.prepare(effective)
    assert (made.budget, again.budget) == (512, 32)
    assert len(made.micro_batches) < len(again.micro_batches)


def test_an_example_that_does_not_fit_by_itself_is_a_clear_error(base: Path) -> None:
    stepper = make_stepper(base)
    limit_memory(stepper, 10, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(ValueError, match=r"one example of \d+ tokens does not fit.*model.max_length"):
        stepper.take(stepper.prepare(BATCH), 1, 1e-3)


def test_other_failures_are_not_taken_for_memory(base: Path) -> None:
    stepper = make_stepper(base)
    limit_memory(stepper, 0, RuntimeError("a fault in a kernel"))
    with pytest.raises(RuntimeError, match="a fault in a kernel"):
        stepper.take(stepper.prepare(BATCH), 1, 1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_rows(base: Path) -> None:
    stepper = make_stepper(base)
    with torch.no_grad():
        stepper.model.classifier.bias[0] = float("inf")
    before = weights(stepper)
    with pytest.raises(NonFiniteLoss, match=r"step 7: loss nan.*learning_rate.*row-0000, row-0001.* and 20 more"):
        stepper.take(stepper.prepare(BATCH), 7, 1e-3)
    assert np.array_equal(before, weights(stepper), equal_nan=True)


def test_gradients_that_overflow_under_a_finite_loss_stop_too(base: Path) -> None:
    stepper = make_stepper(base)
    stepper.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(stepper)
    with pytest.raises(NonFiniteLoss, match="gradient norm"):
        stepper.take(stepper.prepare(BATCH), 1, 1e-3)
    assert np.array_equal(before, weights(stepper))


def test_what_a_step_draws_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path / "base", dropout=0.3)
    results = []
    for step, disturbance in ((3, 0), (3, 1), (4, 0)):
        stepper = make_stepper(base)
        torch.manual_seed(disturbance)
        results.append(stepper.take(stepper.prepare(BATCH), step, 1e-3))
    assert results[0] == results[1]
    assert results[0] != results[2]
