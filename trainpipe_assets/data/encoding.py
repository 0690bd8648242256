"""From clean texts to token ids, by task: labelled examples by `tokenization.py`, documents of a language model by `document_tokens.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from trainpipe_assets.data import document_tokens, tokenization
from trainpipe_assets.data.labels import Labels, labels_of_task
from trainpipe_assets.settings import PipelineSettings, Task
from trainpipe_assets.storage.increments import Changes, Increment


class Encoder(Protocol):
    """What the step that tokenizes needs of a task."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those of what a model answers, in the order of its outputs; none where the task has none."""

    @property
    def determinants(self) -> Mapping[str, Any]:
        """Everything that fixes how tokens follow from texts, by name."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What is worth telling of the tokens in the UI."""

    def encode(self, changes: Changes) -> Increment:
        """The increment of `tokenized_dataset` that `changes` of `cleaned_features` call for."""


@dataclass(frozen=True)
class ExampleEncoder:
    """For labelled examples; `names` are those of what a model answers, in the order of its outputs."""

    tokenizer: tokenization.Tokenizer
    labels: Labels
    names: tuple[str, ...]

    @property
    def determinants(self) -> Mapping[str, Any]:
        """Version, tokenizer, longest input and labels."""
        tokenizer = self.tokenizer
        return {"version": tokenization.VERSION, "tokenizer": tokenizer.digest, "max_length": tokenizer.max_length, "labels": self.names}

    @property
    def description(self) -> Mapping[str, Any]:
        """Labels in the order of their ids, and the longest input."""
        return {"labels": list(self.names), "max_length": self.tokenizer.max_length}

    def encode(self, changes: Changes) -> Increment:
        """Token ids and what is to be answered."""
        return tokenization.tokenize_changes(changes, self.tokenizer, self.names, self.labels)


@dataclass(frozen=True)
class DocumentEncoder:
    """For the documents of a language model, which have no labels."""

    tokenizer: document_tokens.DocumentTokenizer
    names: tuple[str, ...] = ()

    @property
    def determinants(self) -> Mapping[str, Any]:
        """Version, and the tokenizer with its templates."""
        return {"version": document_tokens.VERSION, "tokenizer": self.tokenizer.digest}

    @property
    def description(self) -> Mapping[str, Any]:
        """The kind of the documents."""
        return {"kind": self.tokenizer.kind}

    def encode(self, changes: Changes) -> Increment:
        """Token ids of whole documents, and their loss masks."""
        return document_tokens.tokenize_document_changes(changes, self.tokenizer)


def encoder_version(task: Task) -> str:
    """The version of the code that tokenizes."""
    return document_tokens.VERSION if task == "causal-lm" else tokenization.VERSION


def load_encoder(folder: str, settings: PipelineSettings, cleaned: pl.LazyFrame) -> Encoder:
    """The encoder of a pipeline, by the tokenizer of the base model in `folder`; `cleaned` are all examples, for their labels.

    Raises:
        ValueError: the base model has no tokenizer that serves.
    """
    labels = labels_of_task(settings.task, settings.cleaning)
    if labels is None:
        return DocumentEncoder(document_tokens.load_document_tokenizer(folder, settings.source.kind, settings.model))
    tokenizer = tokenization.load_tokenizer(folder, settings.model.max_length)
    return ExampleEncoder(tokenizer, labels, labels_of(cleaned, settings))


def labels_of(cleaned: pl.LazyFrame, settings: PipelineSettings) -> tuple[str, ...]:
    """The names of what a model answers, in the order of its outputs: labels, or a number's column; none where the task has none."""
    labels = labels_of_task(settings.task, settings.cleaning)
    return labels.names(cleaned, settings.source.label_column) if labels else ()
