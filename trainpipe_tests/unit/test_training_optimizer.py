"""The learning rate of each step, weight decay and clipping."""

import pytest
import torch

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.optimizer import build_optimizer, clip_gradients, gradient_norm, learning_rate


def rates(total: int, **settings: object) -> list[float]:
    chosen = TrainingSettings.model_validate({"learning_rate": 1.0, **settings})
    return [learning_rate(chosen, step, total) for step in range(total)]


def test_linear_rises_to_the_peak_and_falls_towards_zero() -> None:
    assert rates(10, warmup_fraction=0.4) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_cosine_is_half_way_down_half_way_through() -> None:
    assert rates(4, warmup_fraction=0.0, schedule="cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_constant_stays_after_warm_up() -> None:
    assert rates(5, warmup_fraction=0.4, schedule="constant") == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("total", [1, 2, 37])
def test_every_step_learns_and_none_above_the_peak(schedule: str, warmup: float, total: int) -> None:
    assert all(0.0 < rate <= 1.0 for rate in rates(total, schedule=schedule, warmup_fraction=warmup))


def test_biases_and_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    decays, spared = build_optimizer(model, TrainingSettings(weight_decay=0.3)).param_groups
    assert (decays["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert [parameter.ndim for parameter in decays["params"]] == [2]
    assert [parameter.ndim for parameter in spared["params"]] == [1, 1, 1]


@pytest.mark.parametrize(("largest", "clipped"), [(1.0, [0.6, 0.8]), (5.0, [3.0, 4.0]), (9.0, [3.0, 4.0])])
def test_gradients_are_clipped_to_the_norm_and_smaller_ones_left_alone(largest: float, clipped: list[float]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    norm = gradient_norm([parameter.grad])
    clip_gradients([parameter.grad], norm, float(norm), largest)
    assert float(norm) == 5.0
    assert parameter.grad.tolist() == pytest.approx(clipped, rel=1e-5)
