"""The sensor of the shipped pipeline under a real daemon: data arrives, and a model follows with no one touching anything."""

import gzip
import json
from pathlib import Path

import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import Installation, wait_until
from trainpipe_tests.ui.webserver import start_webserver

PATIENCE = 600.0


def as_jsonl(rows: list[tuple[str, str]]) -> bytes:
    return gzip.compress("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode())


@pytest.mark.timeout(1800)
def test_landing_a_file_retrains_and_landing_another_retrains_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_stand_in(models)
    place = Installation(tmp_path / "a place, größer", models)
    place.land("first.csv", as_csv(examples(300, seed=11)))
    services = start_webserver(place, tmp_path / "dagster_dev.log")
    try:
        services.wait_until_healthy()
        wait_until(lambda: _ended(services.runs()) == ["SUCCESS"], PATIENCE, "the first arrival is trained on")
        first = place.status()["latest"]["fingerprint"]
        place.land("second.jsonl.gz", as_jsonl(examples(200, seed=12)))
        wait_until(lambda: _ended(services.runs()) == ["SUCCESS", "SUCCESS"], PATIENCE, "the second arrival is trained on")
    finally:
        services.kill()
    status = place.status()
    assert status["latest"]["fingerprint"] != first
    assert status["pending_files"] == []
    assert status["tables"]["raw_data"]["rows"] == 500


def _ended(runs: list[dict[str, str]]) -> list[str]:
    """How the runs that are over ended; none may have failed."""
    ended = [run["status"] for run in runs if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"}]
    assert set(ended) <= {"SUCCESS"}, runs
    return ended
