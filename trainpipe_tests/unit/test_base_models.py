"""Base models that are not folders yet: a GGUF file becomes one, once, with the very weights and tokens that it stands for."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.model_cache import cache_folder
from trainpipe_assets.training.model import load_language_model
from trainpipe_tests.unit.causal_fixtures import LONGEST, write_tiny_language_model
from trainpipe_tests.unprivileged import as_nobody, folder_for_everyone

MERGE = ["Ġ", "a"]  # a space and the letter behind it
BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def name_in_gguf(name: str) -> str:
    """The tensor of a Llama model as GGUF calls it."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    layer, _, part = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{BLOCK[part.removesuffix('.weight')]}.weight"


def for_rotation(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection in the order in which GGUF's rotary embedding takes them."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write_plain(folder: Path) -> Path:
    """The tiny model with a tokenizer that merges two bytes, as GGUF has no tokenizer without merges."""
    path = write_tiny_language_model(folder) / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["vocab"]["".join(MERGE)] = len(described["model"]["vocab"])
    described["model"]["merges"] = [MERGE]
    for token in described["added_tokens"]:  # their ids begin where those of the model end
        token["id"] += 1
    path.write_text(json.dumps(described))
    return folder


def write_gguf(folder: Path, file: Path) -> Path:
    """The tiny Llama model in `folder`, unquantized, and its tokenizer as one GGUF file."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer: Any = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in tokenizer.all_special_tokens else normal for token in tokens])
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # the same as the embeddings
            continue
        rotated = next((count for part, count in heads.items() if part in name), None)
        weights = tensor.numpy()
        writer.add_tensor(name_in_gguf(name), for_rotation(weights, rotated) if rotated else weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_is_a_base_model(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (tmp_path / "models" / "packed").mkdir(parents=True)
    file = write_gguf(plain, tmp_path / "models" / "packed" / "tiny.gguf")
    base = base_models.resolve(str(file), "unused")
    assert Path(base.folder).is_relative_to(cache_folder())
    weights = AutoModelForCausalLM.from_pretrained(plain).state_dict()
    found = load_language_model(base.folder, seed=0).state_dict()
    assert found.keys() == weights.keys()
    for name_of, tensor in weights.items():
        assert torch.equal(found[name_of], tensor), name_of
    texts = ["what a warm film", "été 7!"]
    assert AutoTokenizer.from_pretrained(base.folder)(texts)["input_ids"] == AutoTokenizer.from_pretrained(plain)(texts)["input_ids"]
    stamp = (Path(base.folder) / "model.safetensors").stat().st_mtime_ns
    for name in ("packed", "packed/tiny.gguf"):  # a folder that holds nothing else, and the file, both below the models folder
        again = base_models.resolve(name, str(tmp_path / "models"))
        assert (again.folder, again.digest) == (base.folder, base.digest)
    assert (Path(base.folder) / "model.safetensors").stat().st_mtime_ns == stamp, "was converted again"


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really" * 10)
    with pytest.raises(ValueError, match=r"broken\.gguf cannot be converted: .*cannot be read as a model"):
        base_models.resolve("broken.gguf", str(tmp_path))
    assert not list(cache_folder().glob("gguf-*"))


def test_a_folder_that_may_not_be_listed_is_not_one_without_weights() -> None:
    with folder_for_everyone() as folder:
        write_plain(folder / "base")
        (folder / "base").chmod(0o111)
        with pytest.raises(PermissionError):
            as_nobody(lambda: base_models.resolve(str(folder / "base"), str(folder)))
