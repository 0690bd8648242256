"""Two whole runs of one pipeline, started at the same instant by the same command on one lake and one instance, end as one."""

import json
from pathlib import Path

import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import MATERIALIZE, TABLES, Installation, stop, trainings_of

CONFIG = ("--config-json", json.dumps({"ops": {"fine_tuned_model": {"config": {"epochs": 2, "batch_tokens": 64}}}}))
CONTENT = as_csv([*examples(300, seed=8), ("w4 w5", "neutral"), *examples(300, seed=8)[:5]])
PATIENCE_SECONDS = 900


@pytest.mark.timeout(1800)
def test_two_runs_started_together_end_as_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_stand_in(models)
    alone, place = Installation(tmp_path / "alone", models), Installation(tmp_path / "together", models)
    for installation in (alone, place):
        installation.land("words.csv", CONTENT)
    place.run("dagster", "instance", "info")  # Dagster itself fails where two processes make the tables of a new instance at once

    processes = [place.start(*MATERIALIZE, *CONFIG) for _ in range(2)]
    try:
        outputs = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            stop(process)
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-5000:]
    assert sum("this very training made" in output for output in outputs) == 1, "not exactly one of the two reused the other's model"
    assert sum("step 1/" in output for output in outputs) == 1, "trained other than once"
    assert not trainings_of(place)
    assert not any((tmp_path / "together" / "scratch").iterdir())

    alone.materialize(*CONFIG)
    for table in TABLES:
        assert place.rows(table).equals(alone.rows(table)), f"{table} differs from that of one run"
    raw, cleaned, rejected, tokens = (place.rows(table)["row_id"] for table in TABLES[:4])
    assert raw.to_list() == sorted([*cleaned, *rejected])
    assert tokens.to_list() == cleaned.to_list()
    weights = [installation.model_manifest()["files"]["model.safetensors"]["sha256"] for installation in (place, alone)]
    assert weights[0] == weights[1]
