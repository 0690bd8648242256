"""How the fields of CSV and TSV are set apart: delimiter, quote and the longest record."""

import re
from dataclasses import dataclass
from functools import cached_property

from trainpipe_assets.settings import SourceSettings


@dataclass(frozen=True)
class Dialect:
    """How fields are set apart."""

    delimiter: bytes  # one ASCII character
    quote: bytes | None  # one ASCII character, or None: every character then stands for itself
    max_record_bytes: int

    @cached_property
    def field_end(self) -> re.Pattern[bytes]:
        """What ends a field that is not quoted."""
        return re.compile(b"[" + re.escape(self.delimiter) + rb"\r\n]")


def dialect_of(settings: SourceSettings, *, tabs: bool) -> Dialect:
    """The dialect of CSV, or with `tabs` of TSV, under `settings`.

    Raises:
        ValueError: the settings contradict each other.
    """
    delimiter = settings.delimiter or ("\t" if tabs else ",")
    quote = settings.quote_char if settings.quote_char is not None else ("" if tabs else '"')
    for name, character in (("delimiter", delimiter), ("quote_char", quote)):
        if character and (not character.isascii() or character in "\r\n\0"):
            raise ValueError(f"source.{name} is {character!r}; an ASCII character other than a line break is expected")
    if delimiter == quote:
        raise ValueError(f"source.delimiter and source.quote_char are both {quote!r}; they must differ")
    return Dialect(delimiter.encode(), quote.encode() or None, settings.max_record_bytes)
