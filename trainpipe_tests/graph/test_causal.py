"""A language model through all five assets, from each kind of source: what arrives, changes and goes is what is trained on."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from trainpipe_assets.schemas import DOCUMENT_SCORES, TOKENIZED_DOCUMENTS
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace
from trainpipe_tests.unit.causal_fixtures import write_tiny_language_model
from trainpipe_tests.unit.test_documents import CHATML, write_tokenizer

TO_TOKENS = [dg.AssetKey(name) for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")]
SETTINGS: dict[str, Any] = {
    "task": "causal-lm",
    "cleaning": {"near_duplicates": {"action": "off"}},
    "split": {"validation": 0.2, "test": 0.2, "min_examples": 4},
    "model": {"base": "tiny-lm", "max_length": 32},
    "training": {"epochs": 2, "learning_rate": 3e-3, "batch_tokens": 512},
    "evaluation": {"bootstrap_samples": 200, "generations": 2, "generation_tokens": 8, "gate": {"max_value": 300.0}},
}


def reviews(count: int, start: int = 0) -> bytes:
    rows = [
        {"prompt": f"Film number {n} of the year was {'bad' if n % 2 else 'fine'}", "completion": "negative" if n % 2 else "positive"}
        for n in range(start, start + count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def documents(kind: str, count: int, start: int = 0) -> bytes:
    """The reviews as documents of `kind`."""
    rows = [json.loads(line) for line in reviews(count, start).splitlines()]
    if kind == "text":
        rows = [{"text": f"{row['prompt']}\n" * 5} for row in rows]
    if kind == "chat":
        said = [(("user", row["prompt"]), ("assistant", row["completion"])) for row in rows]
        rows = [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in said]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def workplace(root: Path, instance: dg.DagsterInstance, kind: str, **changes: Any) -> Workplace:
    write_tiny_language_model(root / "models" / "tiny-lm", max_position_embeddings=256)
    source = {"uri": "documents", "kind": kind, "settle_seconds": 0}
    return make_workplace(root, instance, "assistant", **{**SETTINGS, "source": source, **changes})


def test_an_assistant_from_landing_to_gate_and_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "prompt-completion", model={**SETTINGS["model"], "lora": {"rank": 4}})
    place.land("a.jsonl", reviews(60))
    assert place.run().success
    tokens = place.rows("tokenized_dataset")
    assert tokens.schema == TOKENIZED_DOCUMENTS
    assert tokens["row_id"].to_list() == place.rows("cleaned_features")["row_id"].to_list()
    row = place.rows("eval_report").row(0, named=True)
    metrics = json.loads(row["metrics"])
    assert metrics.keys() == {"perplexity", "log_loss", "token_accuracy"}
    assert metrics["perplexity"]["low"] <= metrics["perplexity"]["value"] <= metrics["perplexity"]["high"]
    assert row["gate_passed"], row["gate_reasons"]
    assert "below" in row["gate_reasons"]
    assert "the base model before training" in row["gate_reasons"]
    report = Path(row["report_uri"]).read_text()
    assert "What the model writes" in report
    assert "Against the base model" in report
    assert "What the device waited for" in report
    assert "The test split counted here is the one it was measured on." in report
    scores = pl.read_parquet(row["report_uri"].replace(".html", ".predictions.parquet"))
    assert scores.schema == DOCUMENT_SCORES
    assert scores["n_learnt"].sum() == tokens.filter(pl.col("split") == "test")["loss_mask"].list.sum().sum()
    (model,) = list_artifacts(place.lake.models_uri(dg.AssetKey("fine_tuned_model")))
    assert "adapter/adapter_model.safetensors" in model.manifest["files"]


@pytest.mark.parametrize("kind", ["text", "prompt-completion", "chat"])
def test_what_arrives_changes_and_goes_is_what_is_trained_on(tmp_path: Path, instance: dg.DagsterInstance, kind: str) -> None:
    place, clean = (workplace(tmp_path / name, instance, kind) for name in ("grown", "clean"))
    place.land("a.jsonl", documents(kind, 60))
    place.land("b.jsonl", documents(kind, 9, start=90))
    assert place.run(asset_selection=TO_TOKENS).success
    (place.root / "landing" / "documents" / "b.jsonl").unlink()
    for grown in (place, clean):
        grown.land("a.jsonl", documents(kind, 50))  # replaced: ten documents go
        grown.land("c.jsonl", documents(kind, 30, start=100))
        assert grown.run(asset_selection=TO_TOKENS).success
    for table in ("cleaned_features", "rejected_rows", "tokenized_dataset"):
        assert place.rows(table).equals(clean.rows(table)), table
    tokens = place.rows("tokenized_dataset")
    assert len(tokens) == 80
    everything = tokens["loss_mask"].list.all()
    assert everything.all() if kind == "text" else not everything.any()


def test_text_files_are_documents_whole(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "text")
    for number in range(40):
        place.land(f"books/{number}.txt", f"Film number {number} was fine.\n\nIt ends\n  here.\n".encode())
    assert place.run(asset_selection=TO_TOKENS).success
    texts = place.rows("cleaned_features").sort("source_file")["text"].to_list()
    assert texts[0] == "Film number 0 was fine.\n\nIt ends\n  here."
    assert len(texts) == place.rows("tokenized_dataset").height == 40


def test_a_chat_that_the_template_refuses_holds_up_none_that_it_takes(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "chat")
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('the user speaks first') }}{% endif %}"
    write_tokenizer(place.root / "models" / "tiny-lm", strict + CHATML)
    wrong = {"messages": [{"role": role, "content": "Well"} for role in ("assistant", "user", "assistant")]}
    place.land("a.jsonl", documents("chat", 60) + json.dumps(wrong).encode())
    result = place.run()
    assert result.success
    tokens = place.rows("tokenized_dataset")
    (refused,) = tokens.filter(pl.col("n_tokens") == 0)["row_id"]
    assert len(tokens) == 61
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "chats_fit_the_template"]
    assert not check.passed
    assert check.metadata["chats_refused"].value == 1
    assert f"a.jsonl | 61 | {refused} | the user speaks first |" in str(check.metadata["refused"].value)


def test_refused_chats_that_come_first_are_in_no_sample_and_in_no_slice(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "chat", evaluation={**SETTINGS.get("evaluation", {}), "slices": ["source"]})
    strict = "{% if messages[0].role != 'user' %}{{ 1 + 'the user speaks first' }}{% endif %}"  # a mistake of another kind than a refusal
    write_tokenizer(place.root / "models" / "tiny-lm", strict + CHATML)
    wrong = [{"messages": [{"role": role, "content": f"Well {n}"} for role in ("assistant", "user", "assistant")]} for n in range(40)]
    place.land("a.jsonl", "".join(json.dumps(chat) + "\n" for chat in wrong).encode())
    place.land("b.jsonl", documents("chat", 60))
    assert place.run().success
    tokens = place.rows("tokenized_dataset")
    assert tokens.filter(pl.col("split") == "test", pl.col("n_tokens") == 0).height > 0
    report = Path(place.rows("eval_report")["report_uri"].item()).read_text()
    assert "b.jsonl" in report
    assert "<td>a.jsonl</td>" not in report.partition("made of")[0]


def test_a_split_without_documents_is_a_clear_error(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "prompt-completion")
    place.land("a.jsonl", reviews(6))
    assert "too few examples in split(s)" in failure_of(place.run())


def test_a_former_model_that_takes_less_at_once_is_not_compared_with(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "text")
    write_tiny_language_model(tmp_path / "models" / "tiny-lm", max_position_embeddings=32)
    place.land("a.jsonl", documents("text", 60))
    assert place.run().success
    longer = workplace(tmp_path, instance, "text", model={"base": "tiny-lm", "max_length": 64})
    assert longer.run().success
    verdicts = longer.rows("eval_report").sort("evaluated_at")["gate_reasons"].to_list()
    assert "There is no previous model" in verdicts[0]
    assert "The previous model is not compared with; it takes 32 tokens at once, of pieces of up to 64." in verdicts[1]


def test_a_model_is_not_judged_beside_another_base_than_its_own(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, "text")
    place.land("a.jsonl", documents("text", 60))
    assert place.run().success
    other = workplace(tmp_path, instance, "text", evaluation={**SETTINGS["evaluation"], "bootstrap_samples": 300})
    write_tiny_language_model(tmp_path / "models" / "tiny-lm", max_position_embeddings=256, initializer_range=0.1)
    assert "is judged beside the one that it was trained from, 'tiny-lm' (" in failure_of(
        other.run(asset_selection=[dg.AssetKey("eval_report")])
    )
