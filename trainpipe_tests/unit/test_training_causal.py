"""Language models: nothing lost in cutting, nothing changed by packing, and adapters that end up in the weights."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM

from trainpipe_assets.evaluation.language_scoring import generate
from trainpipe_assets.settings import ComputeSettings, LoraSettings, TrainingSettings
from trainpipe_assets.training import loop
from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.distribution import Distribution
from trainpipe_assets.training.model import load_language_model
from trainpipe_assets.training.optimizer import build_optimizer
from trainpipe_assets.training.scoring import score
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.tasks import lora
from trainpipe_assets.training.tasks.causal import CausalLM
from trainpipe_assets.training.tasks.packing import ATTENTION, cut_packs, pack, plan_packs, use_packed_attention
from trainpipe_assets.training.tasks.pieces import cut_documents
from trainpipe_tests.unit.causal_fixtures import LONGEST, make_causal_spec, make_documents, write_tiny_language_model

DOCUMENTS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_language_model(tmp_path_factory.mktemp("models") / "base")


def frame(documents: list[list[tuple[int, bool]]]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "row_id": [f"row-{number}" for number in range(len(documents))],
        "input_ids": [[token for token, _ in document] for document in documents],
        "loss_mask": [[learnt for _, learnt in document] for document in documents],
    }
    return pl.DataFrame(columns, schema={"row_id": pl.String, "input_ids": pl.List(pl.Int32), "loss_mask": pl.List(pl.Boolean)})


@given(documents=DOCUMENTS, longest=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_every_token_to_learn_is_predicted_once_from_the_one_before_it(documents: list[list[tuple[int, bool]]], longest: int) -> None:
    pieces = cut_documents(frame(documents), longest)
    found = list(zip(pieces.tokens[pieces.learnt].tolist(), pieces.targets[pieces.learnt].tolist(), strict=True))
    expected = [
        (document[place - 1][0], token) for document in documents for place, (token, learnt) in enumerate(document) if place and learnt
    ]
    assert found == expected
    assert pieces.answers.sum() == len(expected)
    assert (pieces.answers > 0).all()
    assert all(pieces.lengths <= longest)


def test_the_pieces_of_a_document_that_is_all_learnt_are_the_document() -> None:
    tokens = list(range(100))
    pieces = cut_documents(frame([[(token, True) for token in tokens]]), 32)
    assert [tokens[0], *pieces.targets.tolist()] == tokens
    assert pieces.tokens.tolist() == tokens[:-1]
    assert pieces.lengths.tolist() == [32, 32, 32, 3]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), budget=st.integers(1, 80), seed=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_packs_hold_every_document_once_within_the_budget(lengths: list[int], budget: int, seed: int) -> None:
    array = np.array(lengths)
    epochs = [plan_packs(array, budget, seed, epoch) for epoch in (0, 1)]
    for packs in epochs:
        assert sorted(np.concatenate(packs).tolist()) == list(range(len(lengths)))
        assert all(array[pack].sum() <= budget or len(pack) == 1 for pack in packs)
    assert len(epochs[0]) == len(epochs[1])
    runs = cut_packs(np.arange(len(lengths)), array, budget)
    assert np.concatenate(runs).tolist() == list(range(len(lengths)))
    assert all(array[run].sum() <= budget or len(run) == 1 for run in runs)


def test_best_fit_leaves_hardly_any_room() -> None:
    lengths = np.random.default_rng(0).integers(5, 120, 2000)
    assert len(plan_packs(lengths, 512, 0, 0)) <= 1.01 * np.ceil(lengths.sum() / 512)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("mistral", {"sliding_window": 8}),
        ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}),
        ("qwen3", {"head_dim": 8}),
    ],
)
def test_packed_documents_do_not_see_each_other(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    model = load_language_model(str(write_tiny_language_model(tmp_path / "base", kind, **config)), 0).eval()
    pieces = cut_documents(make_documents(8, 0, 0), 32)
    everything: Indices = np.arange(len(pieces))
    alone = []
    with torch.inference_mode():
        for number in everything:
            row = torch.from_numpy(pieces.tokens[pieces.offsets[number] : pieces.offsets[number + 1]].astype(np.int64))
            learnt = pieces.learnt[pieces.offsets[number] : pieces.offsets[number + 1]]
            alone.append(model(input_ids=row[None]).logits[0][torch.from_numpy(learnt)])
        assert use_packed_attention(model)
        packed = CausalLM().log_probabilities(model, CausalLM().micro_batch(pieces, everything, 0))
    assert packed.shape[0] == pieces.answers.sum()
    torch.testing.assert_close(packed, torch.log_softmax(torch.cat(alone), dim=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[40, 37, 20, 5, 33, 33], [9, 9, 9]])
def test_documents_that_share_a_call_of_attention_have_their_own_gradients(lengths: list[int]) -> None:
    attend = AttentionInterface()[ATTENTION]
    packed, random = pack(np.array(lengths)), torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, heads, sum(lengths), 8, generator=random).requires_grad_() for heads in (4, 2, 2)]
    weights = torch.randn(1, sum(lengths), 4, 8, generator=random)
    alone = [
        scaled_dot_product_attention(*document, is_causal=True, enable_gqa=True).transpose(1, 2)
        for document in zip(*(one.split(lengths, dim=2) for one in inputs), strict=True)
    ]
    together, _ = attend(torch.nn.Identity(), *inputs, None, packed=packed)
    expected, found = (torch.autograd.grad((output * weights).sum(), inputs) for output in (torch.cat(alone, dim=1), together))
    assert len(packed.groups) < len(lengths)
    torch.testing.assert_close(together, torch.cat(alone, dim=1))
    torch.testing.assert_close(found, expected)


def test_a_model_that_cannot_be_packed_is_left_as_it_was(base: Path) -> None:
    model = load_language_model(str(base), 0)
    before = model(input_ids=torch.arange(12)[None]).logits
    model.model.layers[0].self_attn.forward = _leaking(model.model.layers[0].self_attn.forward)
    assert not use_packed_attention(model)
    assert model.config._attn_implementation == "sdpa"
    del model.model.layers[0].self_attn.forward
    torch.testing.assert_close(model(input_ids=torch.arange(12)[None]).logits, before)


def _leaking(forward: Any) -> Any:
    """Attention that also looks at the token before, in whatever document, as a convolution would."""

    def leak(hidden_states: torch.Tensor, **options: Any) -> Any:
        output, weights = forward(hidden_states=hidden_states, **options)
        return output + torch.roll(hidden_states, 1, dims=1), weights

    return leak


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("micro_batch_tokens", [1, 60])
def test_a_step_is_the_same_however_it_is_computed(base: Path, packing: bool, micro_batch_tokens: int) -> None:
    pieces = cut_documents(make_documents(12, 0, 0), 32)
    batch: Indices = np.arange(len(pieces))
    results = []
    for packed, tokens in ((False, None), (packing, micro_batch_tokens)):
        model = load_language_model(str(base), 0).train()
        task, chosen = CausalLM(packing=packed and use_packed_attention(model)), TrainingSettings(learning_rate=1e-3, weight_decay=0.0)
        stepper = Stepper(Distribution(Accelerator(cpu=True)), model, build_optimizer(model, chosen), pieces, chosen, tokens, task=task)
        prepared = stepper.prepare(batch)
        assert prepared.weight == pieces.answers.sum()
        results.append(stepper.take(prepared, 1, 1e-3))
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_the_loss_is_that_of_transformers(base: Path) -> None:
    row = make_documents(1, 0, 0, seed=3)
    pieces = cut_documents(row, 1000)
    model = load_language_model(str(base), 0)
    ids = torch.tensor([row["input_ids"][0].to_list()])
    labels = torch.where(torch.tensor([row["loss_mask"][0].to_list()]), ids, -100)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids, labels=labels).loss
    task = CausalLM(packing=use_packed_attention(model))
    scores = score(model, pieces, task.plan_scoring(pieces, 1000), task=task)
    assert task.summarize(pieces, scores, 0, 0).loss == pytest.approx(float(expected), rel=1e-5)


def test_training_learns_and_leaves_a_model_that_transformers_loads(tmp_path: Path) -> None:
    spec = make_causal_spec(tmp_path, training={"epochs": 3})
    finished = loop.run(spec, lambda progress: None)
    losses = [validation["loss"] for validation in finished.record["validations"]]
    assert losses[-1] < 0.7 * losses[0]
    assert finished.record["best"]["tokens"] > finished.record["best"]["examples"]
    model = AutoModelForCausalLM.from_pretrained(finished.folder)
    assert model.config.tie_word_embeddings


@pytest.mark.parametrize("changes", [{}, {"training": {"packing": False}}, {"model": {"lora": {"rank": 4, "dropout": 0.1}}}])
def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = make_causal_spec(tmp_path, **changes)
    expected = loop.run(whole, lambda progress: None)
    killed = whole.model_copy(update={"work_dir": str(tmp_path / "work2"), "output_dir": str(tmp_path / "model2")})
    stop_after(3, killed)
    resumed = loop.run(killed, lambda progress: None)
    assert resumed.record["resumed_from_step"] > 0
    assert resumed.weights_sha256 == expected.weights_sha256
    documents = pl.read_delta(whole.dataset_uri).group_by("split").agg(n=(pl.col("loss_mask").list.any()).sum())
    found = dict(documents.iter_rows())
    assert expected.record["examples"] == {"train": found["train"], "validation": found["validation"]}, "documents, not their pieces"
    assert expected.record["best"]["examples"] == found["validation"]


def stop_after(steps: int, spec: TrainSpec) -> Path:
    """The checkpoint that a training leaves when it is stopped there."""
    asked = iter(range(steps))
    with pytest.raises(loop.Interrupted):
        loop.run(spec, lambda progress: None, stop=lambda: next(asked, None) is None)
    return max(Path(spec.work_dir).glob("step-*"))


def test_a_checkpoint_of_adapters_holds_them_alone_and_goes_on_from_the_same_base_only(tmp_path: Path) -> None:
    spec = make_causal_spec(tmp_path, model={"lora": {"rank": 4}})
    tensors = torch.load(stop_after(2, spec) / "tensors.pt", weights_only=True)
    assert tensors["model"]
    assert all("lora" in name for name in tensors["model"])
    assert len(tensors["optimizer"]["state"]) == len(tensors["model"])
    weights = tmp_path / "base" / "model.safetensors"
    changed = {name: tensor + (0.01 if name.endswith("norm.weight") else 0.0) for name, tensor in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="the weights of the base model that do not learn are not the same"):
        loop.run(spec, lambda progress: None)


def test_adapters_learn_alone_and_are_kept_and_merged(tmp_path: Path) -> None:
    spec = make_causal_spec(tmp_path, model={"lora": {"rank": 4}}, training={"epochs": 3})
    finished = loop.run(spec, lambda progress: None)
    losses = [validation["loss"] for validation in finished.record["validations"]]
    assert losses[-1] < losses[0]
    before, after = load_file(tmp_path / "base" / "model.safetensors"), load_file(finished.folder / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    adapter = finished.folder / lora.ADAPTER
    assert (adapter / "adapter_model.safetensors").is_file()
    _require_same_answers(tmp_path / "base", adapter, finished.folder)


def _require_same_answers(base: Path, adapter: Path, merged: Path) -> None:
    from peft import PeftModel

    ids = torch.arange(20)[None]
    with torch.inference_mode():
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(merged)(input_ids=ids).logits
    torch.testing.assert_close(found, adapted, rtol=1e-4, atol=1e-4)


def test_adapters_are_drawn_from_the_seed(base: Path) -> None:
    states = []
    for disturbance in (0, 1):
        torch.manual_seed(disturbance)
        model = lora.adapt(load_language_model(str(base), 5), LoraSettings())
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nothing_to_learn_is_a_clear_error(tmp_path: Path) -> None:
    write_tiny_language_model(tmp_path / "base")
    documents = make_documents().with_columns(loss_mask=pl.col("loss_mask").list.eval(pl.lit(False)))
    documents.write_delta(str(tmp_path / "dataset"))
    with pytest.raises(ValueError, match=r"no document of split 'train' has a token to learn"):
        loop.run(make_causal_spec(tmp_path), lambda progress: None)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # the second has no place for a token beyond its context
def test_samples_end_where_the_context_does(tmp_path: Path, kind: str) -> None:
    sizes = {} if kind == "llama" else {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LONGEST}
    folder = write_tiny_language_model(tmp_path / kind, kind, **sizes)
    documents = make_documents().filter(pl.col("split") == "test")
    samples = generate(str(folder), documents, 3, 4 * LONGEST, ComputeSettings(device="cpu", precision="float32", threads=1))
    assert len(samples) == 3
    assert all(sample.prompt for sample in samples)
