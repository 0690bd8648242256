"""The short version of `make fuzz`: no damaged file ends the reader, hangs it, fills the memory or loses a record."""

from pathlib import Path

from trainpipe_tests.fuzz import NAMES, Outcome, Reader, fuzz
from trainpipe_tests.mutations import FORMATS

FILES = 20 * len(NAMES)


def test_damaged_files_of_every_format_are_rows_with_reasons(tmp_path: Path) -> None:
    done = list(fuzz(tmp_path, range(50_000, 50_000 + FILES), bombs=False))
    assert [f"file {file.seed} ({file.name}): {file.outcome.fault}" for file in done if file.outcome.fault] == []
    for kind in FORMATS:
        outcomes = [file.outcome for file in done if file.name.split(".")[1] == kind]
        assert sum(outcome.rejected for outcome in outcomes) > 10, f"little was rejected of {kind}: this shows nothing"
        assert sum(outcome.rows - outcome.rejected for outcome in outcomes) > 10, f"little was left of {kind}: this shows nothing"


def test_many_damaged_elements_are_read_in_time(tmp_path: Path) -> None:
    good = b'{"text": "a", "label": "b"}'
    (tmp_path / "a.json").write_bytes(b"[" + good + b"," + b"ab," * 800_000 + good + b"]")
    reader = Reader(tmp_path)
    try:
        assert reader.read("a.json") == Outcome(rows=800_002, rejected=800_000)
    finally:
        reader.end()
