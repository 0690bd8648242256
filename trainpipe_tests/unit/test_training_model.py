"""Loading models: the head, its seed, precision, and what is said where there is no model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import (
    BertConfig,
    BertLMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from trainpipe_assets.training.model import (
    label_names,
    load_classifier,
    load_language_model,
    load_tokenizer,
    load_trained,
    longest_input,
    save_tokenizer,
)
from trainpipe_assets.training.scoring import score
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.examples import Examples
from trainpipe_tests.unit.training_fixtures import LABELS, LONGEST, VOCABULARY, make_examples, write_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("models") / "base")


def test_the_head_is_drawn_from_the_seed_and_the_body_is_the_base(base: Path) -> None:
    one, again, other = (load_classifier(str(base), LABELS, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(one["classifier.weight"], again["classifier.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
    assert torch.equal(one["bert.embeddings.word_embeddings.weight"], other["bert.embeddings.word_embeddings.weight"])


def test_a_classifier_knows_its_labels(base: Path) -> None:
    model = load_classifier(str(base), ("a", "b", "c"), 0)
    assert label_names(model) == ("a", "b", "c")
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert longest_input(model, load_tokenizer(base)) == LONGEST


def test_a_base_in_bf16_trains_in_float32(base: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(base, half)
    save_file(
        {name: value.bfloat16() for name, value in load_file(base / "model.safetensors").items()},
        half / "model.safetensors",
        {"format": "pt"},
    )
    config = BertConfig.from_pretrained(base)
    config.dtype = "bfloat16"
    config.save_pretrained(half)
    assert {parameter.dtype for parameter in load_classifier(str(half), LABELS, 0).parameters()} == {torch.float32}


def test_a_classifier_of_other_labels_gets_a_new_head(base: Path, tmp_path: Path) -> None:
    load_classifier(str(base), LABELS, 0).save_pretrained(tmp_path)
    load_tokenizer(base).save_pretrained(tmp_path)
    assert load_classifier(str(tmp_path), ("a", "b", "c"), 0).classifier.out_features == 3


def test_a_classifier_of_these_labels_is_learnt_on_and_one_of_others_is_not(base: Path, tmp_path: Path) -> None:
    before = load_classifier(str(base), LABELS, 0)
    before.save_pretrained(tmp_path)
    load_tokenizer(base).save_pretrained(tmp_path)
    same, turned, renamed = (load_classifier(str(tmp_path), labels, 1) for labels in (LABELS, LABELS[::-1], ("x", "y")))
    assert torch.equal(same.classifier.weight, before.classifier.weight)
    assert not torch.equal(turned.classifier.weight, before.classifier.weight)
    assert torch.equal(turned.classifier.weight, renamed.classifier.weight), "both are drawn from the seed"
    assert float(turned.classifier.bias.detach().abs().max()) == 0.0
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(turned.state_dict()[name], before.state_dict()[name])


@pytest.mark.parametrize("damage", ["wrapped", "another vocabulary"])
def test_weights_that_are_not_those_of_the_config_are_refused_by_name(base: Path, tmp_path: Path, damage: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    if damage == "wrapped":  # as it is saved from within a DataParallel
        weights = {f"module.{name}": value for name, value in load_file(base / "model.safetensors").items()}
        save_file(weights, other / "model.safetensors", {"format": "pt"})
    else:
        BertConfig.from_pretrained(base, vocab_size=80).save_pretrained(other)
    with pytest.raises(ValueError, match=r"are not those of the model that its config.json describes: bert\.embeddings.* would be random"):
        load_classifier(str(other), LABELS, 0)


def test_a_base_without_a_pooler_gets_one_with_its_head(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = {name: value for name, value in load_file(base / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert label_names(load_classifier(str(other), LABELS, 0)) == LABELS


def test_positions_that_are_counted_from_behind_the_padding_are_fewer(base: Path) -> None:
    limits = {"vocab_size": VOCABULARY, "max_position_embeddings": 20, "pad_token_id": 1}
    model = RobertaForSequenceClassification(
        RobertaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **limits)
    )
    tokenizer = load_tokenizer(base)
    assert longest_input(model, tokenizer) == 18
    model(input_ids=torch.full((1, 18), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 19), 5))


def test_a_language_model_that_sees_what_it_is_to_say_is_refused(base: Path, tmp_path: Path) -> None:
    BertLMHeadModel(BertConfig.from_pretrained(base)).save_pretrained(tmp_path / "both ways")
    load_tokenizer(base).save_pretrained(tmp_path / "both ways")
    with pytest.raises(ValueError, match=r"both ways \(bert\) looks at what comes after a token, so it can be no causal-lm"):
        load_language_model(str(tmp_path / "both ways"), 0)
    BertLMHeadModel(BertConfig.from_pretrained(base, is_decoder=True)).save_pretrained(tmp_path / "one way")
    load_tokenizer(base).save_pretrained(tmp_path / "one way")
    load_language_model(str(tmp_path / "one way"), 0)


def test_a_tokenizer_that_transformers_would_make_anew_is_published_as_it_was_read(base: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "fine": 4, "Fine": 5}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(tmp_path / "base")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, **named}  # which says something else
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path / "base")("Fine", add_special_tokens=False)["input_ids"] == [5]
    save_tokenizer(tmp_path / "base", tmp_path / "published")
    published = load_tokenizer(tmp_path / "published")
    assert published("Fine", add_special_tokens=False)["input_ids"] == [4]
    assert (published.pad_token_id, published.cls_token) == (0, "[CLS]")
    assert (tmp_path / "published" / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()


def test_a_saved_model_scores_as_the_one_in_memory(base: Path, tmp_path: Path) -> None:
    model, examples = load_classifier(str(base), LABELS, 0), make_examples()
    model.save_pretrained(tmp_path)
    assert predict(load_trained(tmp_path), examples, 256) == pytest.approx(predict(model, examples, 256), abs=1e-6)


def predict(model: PreTrainedModel, examples: Examples, budget: int) -> NDArray[np.float64]:
    return CLASSIFICATION.answers(model, score(model, examples, CLASSIFICATION.plan_scoring(examples, budget)))


def test_probabilities_do_not_depend_on_the_batch_or_its_padding(base: Path) -> None:
    model, examples = load_classifier(str(base), LABELS, 0), make_examples()
    together, alone = predict(model, examples, 10_000), predict(model, examples, 1)
    assert together == pytest.approx(alone, abs=1e-5)
    assert together.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert model.training is False


def test_no_mask_means_no_padding(base: Path, tmp_path: Path) -> None:
    load_classifier(str(base), LABELS, 0).save_pretrained(tmp_path)
    model = load_trained(tmp_path)
    ids = torch.tensor([[2, 40, 41, 3], [2, 9, 8, 3]])
    with torch.inference_mode():
        masked, plain = (model(input_ids=ids, attention_mask=mask).logits for mask in (torch.ones_like(ids), None))
    assert plain.numpy() == pytest.approx(masked.numpy(), abs=1e-6)


def test_what_is_no_model_is_refused_with_a_way_out(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base model /no/such/model cannot be loaded.*local folder"):
        load_classifier("/no/such/model", LABELS, 0)
    with pytest.raises(ValueError, match="no model folder"):
        load_trained(tmp_path / "absent")
    with pytest.raises(ValueError, match="tokenizer of"):
        load_tokenizer(tmp_path)


def test_weights_in_another_format_are_not_loaded(base: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(base, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(load_file(base / "model.safetensors"), pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load_classifier(str(pickled), LABELS, 0)
