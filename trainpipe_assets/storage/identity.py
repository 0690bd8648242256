"""What identifies the rows of a table: what determines them, spelt always the same way."""

import hashlib
import json
from typing import Any


def fingerprint(*determinants: Any) -> int:
    """A stable 63-bit identity of what determines a table's content, small enough for a Delta transaction."""
    return int.from_bytes(hashlib.sha256(as_json(determinants).encode()).digest()[:8], "big") >> 1


def as_hex(identity: int) -> str:
    """A fingerprint as manifests, histories and the UI have it, 16 hexadecimal digits."""
    return f"{identity:016x}"


def as_json(value: Any) -> str:
    """A value of which settings may be part, always spelt the same way."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot take the fingerprint of a {type(value).__name__}")


def data_version(made_by: int | None, content: int) -> str:
    """Identity of a table's rows: what determines them, and the commit that last changed them."""
    return f"{as_hex(made_by or 0)}-{content}"
