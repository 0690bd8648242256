"""Linear layers by oneDNN: what torch's own give, but for rounding, forward and backward; elsewhere nothing changes."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainpipe_assets.training import loop, products
from trainpipe_assets.training.finished import FinishedModel
from trainpipe_assets.training.loop import Interrupted
from trainpipe_assets.training.products import OneDnnLinear, onednn_is_faster, use_fast_products
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_tests.unit.causal_fixtures import make_causal_spec
from trainpipe_tests.unit.training_fixtures import make_spec, write_dataset, write_tiny_base

AMD = {"avx512_f": True, "cpu_name": "AMD EPYC 9999"}


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


@pytest.mark.parametrize("shape", [(50, 24), (5, 7, 24), (1, 24), (24,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [40, 8])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool, width: int, faster: None) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, width, bias=bias)
    fast = deepcopy(plain)
    use_fast_products(fast)
    assert type(fast) is OneDnnLinear
    found = []
    for layer in (plain, fast):
        values = torch.linspace(-1.0, 1.0, 7 * 5 * 24 * 2)[: torch.Size(shape).numel()].reshape(shape).requires_grad_()
        result = layer(values)
        (result * torch.cos(torch.arange(result.numel()).reshape(result.shape))).sum().backward()
        found.append([result.detach(), values.grad, *(parameter.grad for parameter in layer.parameters())])
    assert len(found[0]) == (4 if bias else 3)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("width", [40, 8])
def test_rows_may_lie_apart_on_either_side(width: int, faster: None) -> None:
    """As where only the first token of each text goes on."""
    plain = nn.Linear(24, width)
    fast = deepcopy(plain)
    use_fast_products(fast)
    values = torch.linspace(-1.0, 1.0, 6 * 9 * 24).reshape(6, 9, 24)
    weights = torch.cos(torch.arange(6.0 * 5 * width)).reshape(6, 5, width)
    for layer in (plain, fast):
        layer(values[:, 0]).backward(weights[:, 3])
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_gradients_are_computed_only_where_they_are_asked_for(faster: None) -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    use_fast_products(layer)
    values = torch.ones(3, 8, requires_grad=True)
    layer(values).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(values.grad, layer.weight.sum(0).expand(3, 8))
    with torch.inference_mode():
        assert not layer(values).requires_grad


@pytest.mark.parametrize("way", ["autocast", "bfloat16", "float64"])
def test_other_precisions_keep_the_way_of_torch(way: str, faster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(8, 8)
    use_fast_products(layer)
    monkeypatch.setattr(products, "product", lambda *_: pytest.fail("oneDNN was asked"))
    if way == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(torch.ones(3, 8)).dtype == torch.bfloat16
    else:
        dtype = getattr(torch, way)
        assert layer.to(dtype)(torch.ones(3, 8, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"avx512_f": False}, False), ({"cpu_name": "Intel(R) Xeon(R)"}, False), ({"cpu_name": None}, False)],
)
def test_the_processor_decides_and_nothing_that_is_measured(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**AMD, **changes})
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is expected
    finally:
        onednn_is_faster.cache_clear()


def test_where_onednn_is_turned_off_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    onednn_is_faster.cache_clear()
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            assert not onednn_is_faster()
    finally:
        onednn_is_faster.cache_clear()


def classifier(root: Path, name: str) -> TrainSpec:
    if not (root / "base").exists():
        write_tiny_base(root / "base")
        write_dataset(root / "dataset")
    return make_spec(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"))


def language_model(root: Path, name: str) -> TrainSpec:
    return make_causal_spec(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"))


def adapters(root: Path, name: str) -> TrainSpec:
    spec = language_model(root, name)
    return TrainSpec.model_validate({**spec.model_dump(), "model": {**spec.model.model_dump(), "lora": {"rank": 4}}})


@pytest.mark.parametrize("make", [classifier, language_model, adapters])
def test_trainings_come_to_the_same_but_for_rounding_and_repeat_to_the_bit(
    tmp_path: Path, make: Callable[[Path, str], TrainSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, stop_at: int | None = None) -> FinishedModel:
        steps: list[int] = []
        return loop.run(make(tmp_path, name), lambda progress: steps.append(progress.record.step), lambda: stop_at in steps)

    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    plain = train("plain")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    fast = train("fast")
    losses = [[row["loss"] for row in model.record["history"]] for model in (plain, fast)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    with pytest.raises(Interrupted):
        train("stopped", stop_at=3)
    assert train("stopped").weights_sha256 == fast.weights_sha256
