"""Token ids of whole documents, and the loss mask: which of them a language model is to learn.

A document is one row however long it is, so that a row that goes takes all of it along; training cuts it (`training/tasks/pieces.py`).
"""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from trainpipe_assets.data.batches import mapped
from trainpipe_assets.data.chat_template import ChatTemplate, Refused, Spans, load_chat_template
from trainpipe_assets.data.documents import COMPLETION
from trainpipe_assets.data.fast_tokenizer import FILE, load_fast_tokenizer, read_tokenizer_config, special_tokens
from trainpipe_assets.data.list_columns import list_column, offsets
from trainpipe_assets.schemas import TOKENIZED_DOCUMENTS
from trainpipe_assets.settings import ModelSettings, SourceKind
from trainpipe_assets.storage.artifacts import file_sha256
from trainpipe_assets.storage.increments import Changes, Increment

VERSION = "2"  # raise it when the same document would be tokenized differently: the table is then rebuilt

BATCH_ROWS = 2_000  # documents tokenized at a time; they can be long
Tokens = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class DocumentTokenizer:
    """The base model's own tokenizer for documents of one kind. `digest` identifies what the tokens of a document follow from."""

    fast: FastTokenizer
    kind: SourceKind
    template: str
    chat: ChatTemplate | None
    end: int
    """The token that ends a document."""
    digest: str

    def encode(self, texts: Sequence[str], messages: Sequence[str | None]) -> pl.DataFrame:
        """`input_ids` and `loss_mask` of each document; the tokens of a text end with that of the end of text."""
        if self.kind == "text":
            encoded = self._encode_texts(texts)
        elif self.kind == "prompt-completion":
            encoded = self._encode_completions([dict(_roles(found)) for found in messages])
        else:
            encoded = self._encode_chats([_roles(found) for found in messages])
        ids, masks = [ids for ids, _ in encoded], [mask for _, mask in encoded]
        return pl.DataFrame([_lists("input_ids", ids, np.int32), _lists("loss_mask", masks, np.bool_)])

    def _encode_texts(self, texts: Sequence[str]) -> list[Tokens]:
        found = [self._ended(encoding.ids) for encoding in self.fast.encode_batch_fast(list(texts))]
        return [(ids, [True] * len(ids)) for ids in found]

    def _encode_completions(self, documents: Sequence[dict[str, str]]) -> list[Tokens]:
        """Prompt and completion each by itself, so that the prompt has the tokens that it has when the model is asked."""
        head = self.template.removesuffix("{completion}")
        before = head.rstrip(" ")  # a word's token begins with the space before it
        prompts = [before.replace("{prompt}", document["prompt"]) for document in documents]
        completions = [head[len(before) :] + document[COMPLETION] for document in documents]
        asked = [self._opened(encoding.ids) for encoding in self.fast.encode_batch_fast(prompts)]
        answered = [self._ended(encoding.ids) for encoding in self.fast.encode_batch_fast(completions, add_special_tokens=False)]
        return [(first + second, [False] * len(first) + [True] * len(second)) for first, second in zip(asked, answered, strict=True)]

    def _encode_chats(self, documents: Sequence[list[tuple[str, str]]]) -> list[Tokens]:
        assert self.chat is not None
        rendered = [_answers(self.chat, messages) for messages in documents]
        encodings = self.fast.encode_batch([text for text, _ in rendered], add_special_tokens=False)
        return [(encoding.ids, _mask(encoding, spans)) for encoding, (_, spans) in zip(encodings, rendered, strict=True)]

    def _opened(self, ids: list[int]) -> list[int]:
        """A prompt goes on: an end-of-text token that the tokenizer puts after every text does not belong there."""
        return ids[:-1] if ids and ids[-1] == self.end else ids

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self.end else [*ids, self.end]


def load_document_tokenizer(folder: str, kind: SourceKind, model: ModelSettings) -> DocumentTokenizer:
    """The tokenizer of the base model in `folder`, for documents of `kind`.

    Raises:
        ValueError: there is none that can be read, it names no end-of-text token, or has no chat template where one is needed.
    """
    fast = load_fast_tokenizer(folder)
    named = special_tokens(read_tokenizer_config(folder)).get("eos_token")
    end = fast.token_to_id(named) if named is not None else None
    if end is None:
        raise ValueError(
            f"the tokenizer in {folder} names no end-of-text token (eos_token in tokenizer_config.json), which ends a document"
        )
    chat = load_chat_template(folder) if kind == "chat" else None
    identity = [
        file_sha256(Path(folder) / FILE),
        kind,
        end,
        model.template if kind == "prompt-completion" else None,
        chat and [chat.source, dict(chat.tokens)],
    ]
    return DocumentTokenizer(fast, kind, model.template, chat, end, hashlib.sha256(json.dumps(identity).encode()).hexdigest())


def tokenize_documents(documents: pl.LazyFrame, tokenizer: DocumentTokenizer) -> pl.LazyFrame:
    """`documents` (schema `CLEANED_FEATURES`) as rows of `TOKENIZED_DOCUMENTS`, batch by batch as they stream by."""

    def encode(batch: pl.DataFrame) -> pl.DataFrame:
        tokens = tokenizer.encode(batch["text"].to_list(), batch["messages"].to_list())
        return pl.concat([batch.select("row_id", "file_id", "split"), tokens], how="horizontal").with_columns(
            n_tokens=pl.col("input_ids").list.len().cast(pl.Int32)
        )

    needed = documents.select("row_id", "file_id", "split", "text", "messages")
    return mapped(needed, encode, TOKENIZED_DOCUMENTS, BATCH_ROWS)


def tokenize_document_changes(changes: Changes, tokenizer: DocumentTokenizer) -> Increment:
    """The increment of `tokenized_dataset` that `changes` of `cleaned_features` call for."""
    return changes.increment("tokenized_dataset", tokenize_documents(changes.added, tokenizer), changes.removed)


def refused_chats(tokenized: pl.LazyFrame, cleaned: pl.LazyFrame, folder: str, shown: int) -> tuple[int, pl.DataFrame]:
    """How many chats of `cleaned` have no tokens, since the template of the base model in `folder` refuses them; the first, and why."""
    refused = cleaned.join(tokenized.filter(pl.col("n_tokens") == 0), on="row_id", how="semi").sort("source_file", "line_number")
    chat, first = load_chat_template(folder), refused.head(shown).collect()
    reasons = [_refusal(chat, _roles(messages)) for messages in first["messages"]]
    return int(refused.select(pl.len()).collect().item()), first.select(
        "source_file", "line_number", "row_id", reason=pl.Series(reasons, dtype=pl.String)
    )


def _answers(chat: ChatTemplate, messages: list[tuple[str, str]]) -> tuple[str, Spans]:
    """A chat as the template renders it; no text, so no tokens, where it is refused: one that does not fit holds up none that do."""
    try:
        return chat.answers(messages)
    except Refused:
        return "", []


def _refusal(chat: ChatTemplate, messages: list[tuple[str, str]]) -> str | None:
    try:
        chat.answers(messages)
    except Refused as refused:
        return str(refused)
    return None


def _roles(messages: str | None) -> list[tuple[str, str]]:
    assert messages is not None  # cleaning writes them for every kind but plain text
    return [(message["role"], message["content"]) for message in json.loads(messages)]


def _mask(encoding: Encoding, spans: Spans) -> list[bool]:
    """Whether each token holds a character of an answer."""
    mask, left = [], deque(spans)
    for start, end in encoding.offsets:
        while left and left[0][1] <= start:
            left.popleft()
        mask.append(bool(left) and end > left[0][0])
    return mask


def _lists(name: str, values: list[list[int]] | list[list[bool]], dtype: type[np.generic]) -> pl.Series:
    lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
    bounds = offsets(lengths)
    flat = np.fromiter(chain.from_iterable(values), dtype=dtype, count=int(bounds[-1]))
    return list_column(name, flat, bounds, TOKENIZED_DOCUMENTS[name])
