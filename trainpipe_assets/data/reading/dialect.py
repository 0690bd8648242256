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
    """The dialect of CSV, or with `tabs` of TSV, under `settings`."""
    delimiter, quote = settings.marks(tabs=tabs)
    return Dialect(delimiter.encode(), quote.encode() or None, settings.max_record_bytes)
