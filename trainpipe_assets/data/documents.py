"""What a language model is trained on: a plain text, a prompt with its completion, or the messages of a chat.

From records to clean documents. A document is its parts, each with a role and a content; its text is all that is said in it, and is
what duplicates are found by. Tokens and the loss mask are `document_tokens.py`'s.
"""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import polars as pl

from trainpipe_assets.data.normalisation import normalise_document
from trainpipe_assets.data.redaction import redact
from trainpipe_assets.settings import CleaningSettings, SourceKind

PROMPT, COMPLETION, ANSWERING = "prompt", "completion", "assistant"
_PARTS = pl.Schema({"position": pl.UInt32, "role": pl.String, "content": pl.String})


class BadConversation(ValueError):
    """A record is no conversation, and why."""


def clean_documents(records: pl.DataFrame, kind: SourceKind, settings: CleaningSettings) -> pl.DataFrame:
    """`records` (columns `text` and `label` as in `RAW_DATA`) with `clean_text`, `messages`, `n_redacted` and `fault`.

    `messages` are the parts as JSON, null for a plain text; `fault` says why a record is no conversation.
    """
    parts, faults = _parts(records, kind)
    contents = redact(parts.select(normalise_document(pl.col("content"), settings))["content"], settings.redact, settings.phone_region)
    cleaned = parts.with_columns(contents["text"].alias("content"), contents["n_redacted"])
    documents = cleaned.group_by("position", maintain_order=True).agg(
        clean_text=pl.col("content").str.join("\n", ignore_nulls=False),
        messages=pl.format("[{}]", pl.struct("role", "content").struct.json_encode().str.join(",")),
        n_redacted=pl.col("n_redacted").sum(),
        answered=(pl.col("role").is_in([COMPLETION, ANSWERING]) & (pl.col("content") != "")).any(),
    )
    if kind == "text":
        documents = documents.with_columns(messages=pl.lit(None, pl.String))
    numbered = records.with_row_index("position").with_columns(faults)
    joined = numbered.join(documents, on="position", how="left", maintain_order="left").drop("position")
    unanswered = pl.when(pl.lit(kind != "text") & ~pl.col("answered")).then(pl.lit("nothing is left of the answer after normalisation"))
    return joined.with_columns(pl.col("n_redacted").fill_null(0), pl.coalesce("fault", unanswered).alias("fault")).drop("answered")


def parse_messages(text: str) -> list[tuple[str, str]]:
    """Role and content of each message in the JSON list `text`.

    Raises:
        BadConversation: it is not a list of messages, each a role and a content, or nobody answers in it.
    """
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConversation(f"the messages are not valid JSON: {str(error)[:100]}") from error
    if not is_encodable(text, messages):
        raise BadConversation("the messages hold half of a surrogate pair (\\ud800 to \\udfff), which is not a character")
    if not isinstance(messages, list) or not messages:
        raise BadConversation("a list of one message or more is expected, each {role, content}")
    parsed = [_parse_message(number, message) for number, message in enumerate(messages, 1)]
    if not any(role == ANSWERING and content.strip() for role, content in parsed):
        raise BadConversation(f"no message is of the role '{ANSWERING}': there is no answer to learn")
    return parsed


def is_encodable(text: str, value: Any) -> bool:
    """Whether all that was parsed from the JSON `text` as `value` are characters: escapes may spell half of a surrogate pair."""
    if "\\u" not in text:
        return True
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_message(number: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadConversation(f"message {number} is no object; {{role, content}} is expected")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role or not isinstance(content, str):
        raise BadConversation(f"message {number} lacks a role or a content; both are expected, as text")
    if any(unicodedata.category(letter) == "Cc" for letter in role):
        raise BadConversation(f"message {number} has control characters in its role")
    others = sorted(key for key, value in message.items() if key not in ("role", "content") and value is not None)
    if others:
        raise BadConversation(f"message {number} has {', '.join(others)[:100]} beside role and content, which would be lost")
    return role, content


def _parts(records: pl.DataFrame, kind: SourceKind) -> tuple[pl.DataFrame, pl.Series]:
    """The parts of all records in order, with the record's position, and the fault of each record."""
    numbered = records.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("position"), "text", "label")
    sound = pl.repeat(None, len(records), dtype=pl.String, eager=True).alias("fault")
    if kind == "chat":
        return _messages(numbered)
    roles = {"text": PROMPT, "label": COMPLETION} if kind == "prompt-completion" else {"text": PROMPT}
    frames = [numbered.select("position", role=pl.lit(role), content=column) for column, role in roles.items()]
    return pl.concat(frames).sort("position", maintain_order=True), sound


def _messages(numbered: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    parts: list[Sequence[object]] = []
    faults: list[str | None] = [None] * len(numbered)
    for position, text in numbered.select("position", "text").iter_rows():
        try:
            parts += [(position, role, content) for role, content in (parse_messages(text) if text is not None else ())]
        except BadConversation as error:
            faults[position] = str(error)
    return pl.DataFrame(parts, schema=_PARTS, orient="row"), pl.Series("fault", faults, dtype=pl.String)
