"""Where text arrives and how its files are read."""

import codecs
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainpipe_assets.settings.base import Settings

FileFormat = Literal["csv", "tsv", "json", "jsonl", "parquet", "text"]
SourceKind = Literal["labelled", "multi-labelled", "text", "prompt-completion", "chat"]
ColumnType = Annotated[str, Field(pattern=r"^(string|integer|number|boolean|time|list|object|any)\??$")]


class SourceSettings(Settings):
    """Where text arrives and how its files are read."""

    uri: str = Field(
        default="",
        description="Folder or bucket prefix where files arrive. A relative one lies under TRAINPIPE_LANDING; empty is all of "
        "TRAINPIPE_LANDING, the folders of other pipelines included.",
    )
    format: FileFormat | Literal["auto"] = Field(
        default="auto",
        description="File format; auto tells it from the name (.csv .tsv .json .jsonl .ndjson .parquet .txt, each also with .gz or .zst).",
    )
    encoding: str = Field(
        default="utf-8",
        description="Encoding of text files, as Python calls it (utf-8, cp1252, shift_jis, ...). A byte order mark overrides it.",
    )
    kind: SourceKind = Field(
        default="labelled",
        description="What a record is: labelled is a text and its label, or the number that text-regression learns; multi-labelled is a "
        "text and any number of labels, for multi-label-classification. For causal-lm it is text, prompt-completion, or chat: a list of "
        "messages, each {role, content}.",
    )
    text_column: str = Field(default="text", min_length=1, description="Column that holds the text; review.text is one within another.")
    label_column: str = Field(default="label", min_length=1, description="Column that holds the label, labels or number.")
    prompt_column: str = Field(default="prompt", min_length=1, description="Column that holds the prompt, where kind is prompt-completion.")
    completion_column: str = Field(
        default="completion", min_length=1, description="Column that holds the completion, where kind is prompt-completion."
    )
    messages_column: str = Field(
        default="messages", min_length=1, description="Column that holds the messages, where kind is chat: a list, or one as JSON."
    )
    sample_by: Literal["document", "paragraph", "line"] = Field(
        default="document",
        description="What a record of a text file (.txt) is: the whole file, a paragraph (with blank lines between two), or a line. "
        "Besides its text it has the column folder, the name of the folder that the file is in, which label_column may name.",
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="Field delimiter of CSV and TSV; by default ',' and tab."
    )
    quote_char: str | None = Field(
        default=None,
        max_length=1,
        description="Quote character of CSV and TSV, '' for none; by default '\"' for CSV and none for TSV.",
    )
    max_record_bytes: int = Field(
        default=1_048_576, ge=64, le=64 * 1_048_576, description="A longer record is rejected, with its first 1,000 characters kept."
    )
    schema_drift: Literal["accept", "quarantine", "stop"] = Field(
        default="accept",
        description="What becomes of a file whose columns differ from those agreed on: it is read all the same, all its records are "
        "rejected, or the run stops. Another order of the columns is only reported.",
    )
    expected_columns: dict[str, ColumnType] | None = Field(
        default=None,
        description="Columns that each file has beside those that other settings name, with their types: string, integer, number, "
        "boolean, time, list, object or any; with a question mark behind it the column may be missing. By default those of the first "
        "file by path.",
    )
    settle_seconds: float = Field(
        default=2.0, ge=0.0, le=3600.0, description="A file younger than this must keep its size for as long before it is read."
    )

    @property
    def columns(self) -> dict[str, str]:
        """The columns that a record needs, by the setting that names each: that of `raw_data.text`, then that of `raw_data.label`."""
        settings = {
            "labelled": ("text_column", "label_column"),
            "multi-labelled": ("text_column", "label_column"),
            "text": ("text_column",),
            "prompt-completion": ("prompt_column", "completion_column"),
            "chat": ("messages_column",),
        }
        return {setting: getattr(self, setting) for setting in settings[self.kind]}

    def marks(self, *, tabs: bool) -> tuple[str, str]:
        """The field delimiter and the quote character of CSV, or with `tabs` of TSV; '' is no quote."""
        quote = self.quote_char if self.quote_char is not None else ("" if tabs else '"')
        return self.delimiter or ("\t" if tabs else ","), quote

    @field_validator("delimiter", "quote_char")
    @classmethod
    def _one_byte(cls, character: str | None) -> str | None:
        if character and (not character.isascii() or character in "\r\n\0"):
            raise ValueError("an ASCII character other than a line break is expected")
        return character

    @model_validator(mode="after")
    def _columns_differ(self) -> "SourceSettings":
        names = list(self.columns.values())
        if len(set(names)) < len(names):
            raise ValueError(f"source.{' and source.'.join(self.columns)} are both {names[0]!r}; they must differ")
        return self

    @model_validator(mode="after")
    def _marks_differ(self) -> "SourceSettings":
        for tabs, formats in ((False, ("auto", "csv")), (True, ("auto", "tsv"))):
            delimiter, quote = self.marks(tabs=tabs)
            if self.format in formats and delimiter == quote:
                raise ValueError(f"source.delimiter and source.quote_char of {'TSV' if tabs else 'CSV'} are both {quote!r}")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            if "a,\n".encode(name).decode(name) == "a,\n":
                return codecs.lookup(name).name
        except (LookupError, ValueError):
            pass
        raise ValueError(
            f"source.encoding {name!r} is no encoding of text that Python knows; utf-8, cp1252, latin-1 and shift_jis are some"
        )

    @field_validator("uri")
    @classmethod
    def _no_parent_steps(cls, uri: str) -> str:
        if ".." in PurePosixPath(uri).parts:
            raise ValueError(f"source.uri {uri!r} steps out of its folder with '..'; name the folder itself")
        return uri
