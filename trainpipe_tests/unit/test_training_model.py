"""Loading models: the head, its seed, precision, and what is said where there is no model."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import BertConfig, PreTrainedModel

from trainpipe_assets.training.model import label_names, load_classifier, load_tokenizer, load_trained, longest_input
from trainpipe_assets.training.scoring import score
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.examples import Examples
from trainpipe_tests.unit.training_fixtures import LABELS, LONGEST, make_examples, write_tiny_base


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


def test_no_mask_means_no_padding(base: Path) -> None:
    model = load_trained(base)
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
