"""Base models of many kinds: trained as transformers computes them, published as they were trained, or refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast, set_seed

from trainpipe_assets.training import loop
from trainpipe_assets.training.model import load_classifier, load_language_model, load_tokenizer, load_trained, longest_input
from trainpipe_assets.training.scoring import score
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.packing import use_packed_attention
from trainpipe_tests.unit.causal_fixtures import write_tiny_language_model
from trainpipe_tests.unit.training_fixtures import LABELS, LONGEST, VOCABULARY, make_examples, make_rows, make_spec, write_dataset

RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}


def write_base(folder: Path, kind: str, *, side: str = "right", **config: Any) -> Path:
    """A base model of `kind` whose tokenizer splits at spaces and has no padding token."""
    words = ["<unk>", "</s>", *(f"w{index}" for index in range(2, VOCABULARY))]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    named = {"eos_token": "</s>", "padding_side": side, "model_max_length": LONGEST}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    set_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.2}
    limits = {"vocab_size": VOCABULARY, "max_position_embeddings": LONGEST + 4}
    AutoModel.from_config(AutoConfig.for_model(kind, **{**shape, **limits, **config})).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("deberta", RELATIVE),
        ("deberta-v2", {**RELATIVE, "position_buckets": 8}),
        ("mpnet", {"pad_token_id": 0}),
        ("longformer", {"attention_window": 8, "pad_token_id": 0}),
        ("llama", {"pad_token_id": 3}),  # which is a word
        ("gpt2", {}),
    ],
)
def test_a_base_of_another_kind_is_trained_and_answers_whoever_pads(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    write_base(tmp_path / "base", kind, side="left", **config)
    write_dataset(tmp_path / "dataset", make_rows(24, 8, 0))
    finished = loop.run(make_spec(tmp_path, training={"epochs": 1}), lambda progress: None)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(finished.folder), AutoTokenizer.from_pretrained(finished.folder)
    examples = make_examples(6)
    texts = [" ".join(f"w{token}" for token in tokens) for tokens in np.split(examples.tokens, examples.offsets[1:-1])]
    with torch.inference_mode():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    own = load_trained(finished.folder)
    ours = CLASSIFICATION.answers(own, score(own, examples, CLASSIFICATION.plan_scoring(examples, 10_000)))
    assert ours == pytest.approx(alone.double().softmax(dim=1).numpy(), abs=1e-4)


@pytest.mark.parametrize(("kind", "config"), [("convbert", {"embedding_size": 32}), ("nystromformer", {})])
def test_a_base_whose_answers_depend_on_the_padding_is_refused(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    write_base(tmp_path / "base", kind, **config)
    with pytest.raises(ValueError, match=rf"\({kind}\) answers a text otherwise where it is padded .*; choose a base of another kind"):
        load_classifier(str(tmp_path / "base"), LABELS, 0)


def test_a_language_model_with_an_attention_of_its_own_is_padded_and_left_as_it_was(tmp_path: Path) -> None:
    model = load_language_model(str(write_tiny_language_model(tmp_path / "base", "gptj", rotary_dim=8)), 0)
    assert not use_packed_attention(model)
    assert model.config._attn_implementation == "eager"


def test_long_rope_takes_what_it_was_pretrained_on(tmp_path: Path) -> None:
    rope = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    folder = write_tiny_language_model(tmp_path / "base", "phi3", original_max_position_embeddings=16, rope_scaling=rope)
    model = load_language_model(str(folder), 0)
    assert longest_input(model, load_tokenizer(folder)) == 16
    assert use_packed_attention(model)
