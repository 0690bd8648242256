"""Documents of a language model: from files of every kind to clean documents, token ids and loss masks."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from trainpipe_assets.data import document_tokens
from trainpipe_assets.data.chat_template import load_chat_template
from trainpipe_assets.data.document_tokens import DocumentTokenizer, load_document_tokenizer
from trainpipe_assets.data.documents import BadConversation, parse_messages
from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.schemas import CLEANED_FEATURES, RAW_DATA
from trainpipe_assets.settings import CleaningSettings, ModelSettings, PipelineSettings, SourceKind, SourceSettings, SplitSettings
from trainpipe_tests.data_plane import outcome
from trainpipe_tests.unit.landed_files import NOW

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is\n  two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And née “three”?"},
    {"role": "assistant", "content": "Six, I think."},
]
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ bos_token }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{%- for message in messages %}\n{%- if message['role'] == 'assistant' %}\n<a>{% generation %}{{ message['content'] }}{{ eos_token }}"
    "{% endgeneration %}\n{%- else %}\n<u>{{ message['content'] | tojson }}\n{%- endif %}\n{%- endfor %}"
)
FORGETFUL = (
    "{% for message in messages %}{% if loop.last or message['role'] != 'assistant' %}{{ message['content'] }}{% endif %}{% endfor %}"
)


def write_tokenizer(folder: Path, template: str | None = CHATML) -> Path:
    """A byte-level tokenizer of single bytes, with the special tokens of ChatML."""
    alphabet = {symbol: number for number, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(alphabet, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def loaded(folder: Path, kind: SourceKind, **model: Any) -> DocumentTokenizer:
    return load_document_tokenizer(str(folder), kind, ModelSettings(**model))


def cleaned(kind: SourceKind, rows: list[tuple[str | None, str | None]], **settings: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    raw = pl.DataFrame(
        [
            {"row_id": f"f-{n:03d}", "file_id": "f", "source_file": "f.jsonl", "line_number": n, "text": text, "label": label}
            for n, (text, label) in enumerate(rows, 1)
        ],
        schema=RAW_DATA,
    )
    result = outcome(raw, CleaningSettings(**settings), SplitSettings(), kind)
    return result.examples.sort("row_id"), result.rejected.sort("row_id")


def rows_of(path: Path, **source: Any) -> pl.DataFrame:
    settings = SourceSettings(settle_seconds=0, **source)
    (file,) = list_landed(str(path.parent), settings)
    return pl.concat(read_file(file, settings, NOW))


def test_messages_are_read_alike_from_every_format(tmp_path: Path) -> None:
    frame = pl.DataFrame({"messages": [CHAT], "id": [7]})
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    (tmp_path / "a" / "chat.jsonl").write_text(json.dumps({"messages": CHAT, "id": 7}))
    frame.write_parquet(tmp_path / "b" / "chat.parquet")
    frame.with_columns(messages=pl.lit(json.dumps(CHAT))).write_csv(tmp_path / "c" / "chat.csv")
    for path in (tmp_path / "a" / "chat.jsonl", tmp_path / "b" / "chat.parquet", tmp_path / "c" / "chat.csv"):
        rows = rows_of(path, kind="chat")
        assert rows["problem"].to_list() == [None], path
        assert json.loads(rows["text"][0]) == CHAT
        assert rows["label"].to_list() == [None]
        assert "messages" not in rows["extra"][0]
        assert "7" in rows["extra"][0]


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_plain_text_needs_no_other_column(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"body": ["one", "two"]})
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[name[2:]](tmp_path / name)
    rows = rows_of(tmp_path / name, kind="text", text_column="body")
    assert rows.select("text", "label", "problem").rows() == [("one", None, None), ("two", None, None)]


def test_prompt_and_completion_are_two_columns(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "two and two", "completion": 4}\n{"prompt": "no completion"}\n')
    rows = rows_of(tmp_path / "d.jsonl", kind="prompt-completion")
    assert rows.select("text", "label").row(0) == ("two and two", "4")
    assert "no key 'completion'" in rows["problem"][1]
    assert "source.completion_column" in rows["problem"][1]


def test_cleaning_keeps_the_layout_of_a_document() -> None:
    examples, _ = cleaned("text", [("  def f():\r\n    return 1\x00\n", None)])
    assert examples["text"].to_list() == ["def f():\n    return 1"]
    assert examples["messages"].to_list() == [None]
    assert examples.schema == CLEANED_FEATURES


def test_a_conversation_is_cleaned_message_by_message() -> None:
    chat = [{"role": "user", "content": "write to\nme@here.org "}, {"role": "assistant", "content": 'Why "you" &amp; not me?'}]
    examples, _ = cleaned("chat", [(json.dumps(chat), None)], redact=["email"])
    assert examples["text"].to_list() == ['write to\n[EMAIL]\nWhy "you" & not me?']
    assert json.loads(examples["messages"][0]) == [
        {"role": "user", "content": "write to\n[EMAIL]"},
        {"role": "assistant", "content": 'Why "you" & not me?'},
    ]
    assert examples["n_redacted"].to_list() == [1]


def test_duplicates_are_found_by_all_that_is_said() -> None:
    rows = [("the same long question", "a"), ("the same long question", "quite another answer"), ("the same long question", "a")]
    examples, rejected = cleaned("prompt-completion", rows)
    assert examples["row_id"].to_list() == ["f-001", "f-002"]
    assert rejected.select("row_id", "rule").rows() == [("f-003", "duplicate")]


def test_what_is_no_document_is_rejected_with_its_reason() -> None:
    examples, rejected = cleaned("prompt-completion", [(None, "x"), ("prompt", None), ("prompt", "  ")])
    assert examples.is_empty()
    assert rejected["rule"].to_list() == ["missing_text", "missing_completion", "missing_completion"]
    examples, rejected = cleaned("chat", [("[", None), (None, None), (json.dumps(CHAT[:2]), None), (json.dumps(CHAT), None)])
    assert len(examples) == 1
    assert rejected["rule"].to_list() == ["no_conversation", "missing_text", "no_conversation"]
    assert "no answer to learn" in rejected["reason"][2]


@pytest.mark.parametrize("nothing", ["&nbsp;", "&#8203;", "\u200b"])
def test_an_answer_of_which_nothing_is_left_is_none(nothing: str) -> None:
    examples, rejected = cleaned("prompt-completion", [("prompt", nothing), ("prompt", "an answer")])
    assert len(examples) == 1
    assert rejected.select("rule", "reason").rows() == [("missing_completion", "nothing is left of the answer after normalisation")]
    empty = json.dumps([CHAT[0], {"role": "assistant", "content": nothing}])
    examples, rejected = cleaned("chat", [(empty, None), (json.dumps(CHAT), None)])
    assert len(examples) == 1
    assert rejected.select("rule", "reason").rows() == [("no_conversation", "nothing is left of the answer after normalisation")]


def test_a_long_document_is_kept_unless_a_limit_is_set() -> None:
    long = "word " * 10_000
    assert len(cleaned("text", [(long, None)])[0]) == 1
    assert cleaned("text", [(long, None)], max_chars=100)[1]["rule"].to_list() == ["too_long"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "a list of one message"),
        ("[]", "a list of one message"),
        ('["hi"]', "message 1 is no object"),
        ('[{"role": "user"}]', "lacks a role or a content"),
        ('[{"role": "assistant", "content": [1]}]', "lacks a role or a content"),
        ('[{"role": "us\\u0002er", "content": "hi"}]', "control characters in its role"),
        ('[{"role": "assistant", "content": "x", "tool_calls": [1]}]', "has tool_calls beside"),
        ("[" * 100_000, "not valid JSON"),
        (r'[{"role": "assistant", "content": "hi \ud83d"}]', "half of a surrogate pair"),
        (r'[{"role": "assistant", "content": "hi", "\ud83d": 1}]', "half of a surrogate pair"),
    ],
)
def test_messages_that_are_none(text: str, said: str) -> None:
    with pytest.raises(BadConversation, match=said):
        parse_messages(text)


def learnt(tokenizer: DocumentTokenizer, row: dict[str, Any]) -> str:
    return tokenizer.fast.decode([i for i, m in zip(row["input_ids"], row["loss_mask"], strict=True) if m], skip_special_tokens=False)


def test_all_of_a_plain_text_is_learnt_and_its_end(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path), "text")
    row = tokenizer.encode(["née\nhere" * 500], [None]).row(0, named=True)
    assert learnt(tokenizer, row) == "née\nhere" * 500 + "<|im_end|>"
    assert len(row["input_ids"]) == 9 * 500 + 1  # é is two bytes: nothing is cut


def test_of_a_prompt_nothing_is_learnt(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path), "prompt-completion", template="Review: {prompt}\nIt is {completion}")
    messages = json.dumps([{"role": "prompt", "content": "a {completion} film"}, {"role": "completion", "content": "good"}])
    row = tokenizer.encode(["-"], [messages]).row(0, named=True)
    assert learnt(tokenizer, row) == " good<|im_end|>"
    whole = tokenizer.fast.decode(row["input_ids"], skip_special_tokens=False)
    assert whole == "Review: a {completion} film\nIt is good<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_a_conversation_is_rendered_as_transformers_does(tmp_path: Path, template: str) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(write_tokenizer(tmp_path, template))
    for messages in (CHAT, CHAT[1:], CHAT[1:3]):
        rendered = load_chat_template(str(tmp_path)).render([(m["role"], m["content"]) for m in messages])
        assert rendered == theirs.apply_chat_template(messages, tokenize=False)


def test_marked_answers_are_those_of_transformers(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path, MARKED), "chat")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    row = tokenizer.encode(["-"], [json.dumps(CHAT)]).row(0, named=True)
    assert row["input_ids"] == expected["input_ids"]
    assert [int(m) for m in row["loss_mask"]] == expected["assistant_masks"]
    assert sum(row["loss_mask"]) == len("Four.") + len("Six, I think.") + 2


def test_unmarked_answers_are_what_follows_the_question(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path), "chat")
    row = tokenizer.encode(["-"], [json.dumps(CHAT)]).row(0, named=True)
    assert learnt(tokenizer, row) == "Four.<|im_end|>\nSix, I think.<|im_end|>\n"


LOOKING = "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}Be kind.{% endif %}" + CHATML


def test_a_chat_may_open_with_an_answer(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path, LOOKING), "chat")
    row = tokenizer.encode(["-"], [json.dumps([{"role": "assistant", "content": "Be kind."}, *CHAT[1:3]])]).row(0, named=True)
    assert tokenizer.fast.decode(row["input_ids"], skip_special_tokens=False).startswith(
        "Be kind.<|endoftext|><|im_start|>assistant\nBe kind."
    )
    assert learnt(tokenizer, row) == "Be kind.<|im_end|>\nFour.<|im_end|>\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", r"tokenizer.json is no fast tokenizer: .*; save the base model's tokenizer anew"),
        ("tokenizer_config.json", "{'a': 1}", r"tokenizer_config.json is no JSON: .*; save the base model's tokenizer anew"),
        ("tokenizer_config.json", "[1]", r"tokenizer_config.json holds a list, not an object"),
    ],
)
def test_a_damaged_tokenizer_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    (write_tokenizer(tmp_path) / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        loaded(tmp_path, "chat")


def test_a_token_is_learnt_where_it_holds_a_letter_of_an_answer(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path), "chat")
    encoding = tokenizer.fast.encode("aa bb cc dd", add_special_tokens=False)
    for spans in ([], [(0, 1)], [(3, 5), (5, 6), (9, 11)], [(0, 11)], [(2, 2), (4, 5)]):
        expected = [any(start < last and end > first for first, last in spans) for start, end in encoding.offsets]
        assert document_tokens._mask(encoding, spans) == expected


def test_a_template_that_hides_its_answers_is_refused(tmp_path: Path) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path, FORGETFUL), "chat")
    with pytest.raises(ValueError, match=r"which tokens are the answers cannot be told"):
        tokenizer.encode(["-"], [json.dumps(CHAT)])


@pytest.mark.parametrize(
    "template", ["{{ messages.__class__.__mro__[1].__subclasses__() }}", "{{ raise_exception('roles must alternate') }}"]
)
def test_a_template_can_neither_leave_its_sandbox_nor_end_in_a_traceback(tmp_path: Path, template: str) -> None:
    tokenizer = loaded(write_tokenizer(tmp_path, template), "chat")
    assert tokenizer.encode(["-"], [json.dumps(CHAT)]).rows() == [([], [])]


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        loaded(write_tokenizer(tmp_path, None), "chat")


def test_the_digest_follows_what_the_tokens_follow_from(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path)
    digests = {
        loaded(folder, "text").digest,
        loaded(folder, "prompt-completion").digest,
        loaded(folder, "prompt-completion", template="{prompt} {completion}").digest,
        loaded(folder, "chat").digest,
    }
    assert len(digests) == 4
    assert loaded(folder, "text", max_length=16).digest == loaded(folder, "text").digest


@pytest.mark.parametrize(("task", "kind"), [("causal-lm", "labelled"), ("text-classification", "chat")])
def test_task_and_kind_of_source_must_fit(task: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"needs source\.kind"):
        PipelineSettings.model_validate({"task": task, "source": {"kind": kind}})


@pytest.mark.parametrize("template", ["{prompt}", "{completion}{prompt}", "{completion}", "{prompt}{prompt}{completion}"])
def test_a_template_holds_prompt_and_then_completion(template: str) -> None:
    with pytest.raises(ValueError, match=r"needs \{prompt\} once"):
        ModelSettings(template=template)
