"""What makes training quicker changes nothing that is computed: cheap dropout drops as torch's does, skipped tokens reach nothing."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    set_seed,
)

from trainpipe_assets.training.dropout import ATTENTION, FastDropout, drop, keep_mask, use_fast_dropout
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.model import load_classifier
from trainpipe_tests.unit.training_fixtures import LABELS, VOCABULARY, write_tiny_base

SMALL = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 2, "initializer_range": 0.3}


def make_model(config_type: type[PreTrainedConfig] = BertConfig, dropout: float = 0.0, **changes: object) -> PreTrainedModel:
    set_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = config_type(**{**SMALL, **sizes, **changes})
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))
    seen = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
    return ids, seen


def logits_and_gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    ids, seen = make_batch()
    logits = model(input_ids=ids, attention_mask=seen).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
    return {"logits": logits, **{name: found.grad for name, found in model.named_parameters() if found.grad is not None}}


@pytest.mark.parametrize("config_type", [BertConfig, RobertaConfig, ElectraConfig])
@pytest.mark.parametrize("training", [True, False])
def test_skipping_unused_tokens_changes_no_logit_and_no_gradient(config_type: type[PreTrainedConfig], training: bool) -> None:
    whole, skipping = make_model(config_type), make_model(config_type)
    assert skip_unused_tokens(skipping)
    found, expected = (logits_and_gradients(model.train(training)) for model in (skipping, whole))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_skipping_leaves_out_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    skip_unused_tokens(model)
    shapes: list[torch.Size] = []
    for layer in model.base_model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _module, inputs, _output: shapes.append(inputs[0].shape))
    ids, seen = make_batch()
    model(input_ids=ids, attention_mask=seen)
    assert shapes == [(3, 9, 32), (3, 1, 32)]


def test_models_built_otherwise_are_left_alone() -> None:
    config = DistilBertConfig(vocab_size=VOCABULARY, dim=32, hidden_dim=64, n_layers=2, n_heads=2, num_labels=2)
    assert not skip_unused_tokens(AutoModelForSequenceClassification.from_config(config))
    assert not skip_unused_tokens(make_model(is_decoder=True))


def test_a_head_that_needs_all_tokens_is_found_out_by_the_trial() -> None:
    model = make_model()
    model.bert.pooler.forward = lambda hidden: model.bert.pooler.activation(model.bert.pooler.dense(hidden.mean(dim=1)))
    before = logits_and_gradients(model.train(False))["logits"]
    assert not skip_unused_tokens(model)
    torch.testing.assert_close(logits_and_gradients(model)["logits"], before)


def test_a_mask_drops_the_share_asked_for_and_keeps_the_mean() -> None:
    torch.manual_seed(5)
    mask = keep_mask(torch.Size([1000, 1000]), 0.1)
    kept = mask > 0
    assert kept.float().mean().item() == pytest.approx(0.9, abs=0.002)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.002)
    assert mask[kept].unique().numel() == 1
    neighbours = (kept[:, 1:] & kept[:, :-1]).float().mean().item()
    assert neighbours == pytest.approx(0.81, abs=0.003)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (0.5, 0.5), (0.999999, 0.0)])
def test_extreme_shares(p: float, kept: float) -> None:
    torch.manual_seed(5)
    found = drop(torch.ones(100, 1001), p)
    assert (found > 0).float().mean().item() == pytest.approx(kept, abs=0.005)
    assert torch.isfinite(found).all()


def test_masks_follow_the_seed_of_torch() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append([keep_mask(torch.Size([7, 13]), 0.3) for _ in range(2)])
    assert torch.equal(masks[0][0], masks[1][0])
    assert torch.equal(masks[0][1], masks[1][1])
    assert not torch.equal(masks[0][0], masks[0][1])
    assert not torch.equal(masks[0][0], masks[2][0])


def test_with_cheap_dropout_a_model_says_on_average_what_it_says_with_torch_s() -> None:
    ids, seen = make_batch()
    means = []
    for fast in (False, True):
        model = make_model(dropout=0.3).train()
        if fast:
            use_fast_dropout(model)
        torch.manual_seed(0)
        with torch.inference_mode():
            draws = torch.stack([model(input_ids=ids, attention_mask=seen).logits for _ in range(600)])
        means.append((draws.mean(dim=0), draws.std(dim=0)))
    error = means[0][1] / 600**0.5
    assert ((means[0][0] - means[1][0]).abs() < 6 * error).all()
    torch.testing.assert_close(means[0][1], means[1][1], rtol=0.15, atol=0.0)


def test_outside_training_cheap_dropout_changes_nothing() -> None:
    whole, fast = make_model(dropout=0.3).train(False), make_model(dropout=0.3).train(False)
    use_fast_dropout(fast)
    assert fast.config._attn_implementation == ATTENTION
    assert sum(isinstance(module, FastDropout) for module in fast.modules()) == 1 + 2 * 3 + 1
    found, expected = logits_and_gradients(fast), logits_and_gradients(whole)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_saved_model_knows_nothing_of_it(tmp_path: Path) -> None:
    plain = load_classifier(str(write_tiny_base(tmp_path / "base")), list(LABELS), 0)
    plain.save_pretrained(tmp_path / "plain")
    use_fast_dropout(plain)
    skip_unused_tokens(plain)
    plain.save_pretrained(tmp_path / "fast")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "fast" / file).read_bytes()
    assert AutoConfig.from_pretrained(tmp_path / "fast").hidden_dropout_prob == 0.1
