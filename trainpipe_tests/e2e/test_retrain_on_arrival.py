"""The sensor of the shipped pipeline under a real daemon: data arrives, and a model follows with no one touching anything."""

import gzip
import json
from pathlib import Path

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.programs import Installation, wait_until
from trainpipe_tests.ui.webserver import start_webserver
from trainpipe_tests.unit.training_fixtures import write_tiny_base

PATIENCE = 240.0


def as_jsonl(rows: list[tuple[str, str]]) -> bytes:
    return gzip.compress("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode())


def test_landing_a_file_retrains_and_landing_another_retrains_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    read_words(write_tiny_base(models / "samples" / "all-MiniLM-L6-v2"))
    place = Installation(tmp_path / "place", models)
    place.land("first.csv", as_csv(examples(300, seed=11)))
    services = start_webserver(place, tmp_path / "dagster_dev.log")
    try:
        wait_until(lambda: place.status()["latest"] is not None, PATIENCE, "the first arrival is trained on")
        first = place.status()["latest"]["fingerprint"]
        wait_until(lambda: not _busy(services.runs()), PATIENCE, "the first run ends")
        place.land("second.jsonl.gz", as_jsonl(examples(200, seed=12)))
        wait_until(lambda: place.status()["latest"]["fingerprint"] != first, PATIENCE, "the second arrival is trained on")
        wait_until(lambda: not _busy(services.runs()), PATIENCE, "the second run ends")
        runs = services.runs()
    finally:
        services.kill()
    status = place.status()
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    assert status["pending_files"] == []
    assert status["tables"]["raw_data"]["rows"] == 500


def _busy(runs: list[dict[str, str]]) -> bool:
    return any(run["status"] not in {"SUCCESS", "FAILURE", "CANCELED"} for run in runs)
