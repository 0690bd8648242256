"""What a process of a training says that a person has to mend, or that may pass by itself, for whoever started the training.

Rank 0 speaks with Dagster; the others put it beside the spec. It imports no torch, so that a launcher can use it too.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Complaint:
    """One line, and whether another try may find things changed."""

    message: str
    may_pass: bool = False


def _file(spec: Path, rank: int | str) -> Path:
    return spec.with_name(f"{spec.stem}.complaint-{rank}.json")


def note(complaint: Complaint, spec: Path, rank: int) -> None:
    """Put down what `rank` of the training of the file `spec` has to say, if the disk takes it."""
    file = _file(spec, rank)
    partial = file.with_suffix(".partial")
    with suppress(OSError):
        partial.write_text(json.dumps(asdict(complaint)), encoding="utf-8")
        partial.replace(file)


def taken(spec: Path) -> Complaint | None:
    """What the lowest rank said of the training of the file `spec`, if any did; it is not there any more afterwards."""
    files = sorted(spec.parent.glob(_file(spec, "*").name), key=lambda file: int(file.stem.rsplit("-", 1)[-1]))
    said = [Complaint(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
    for file in files:
        file.unlink()
    return said[0] if said else None
