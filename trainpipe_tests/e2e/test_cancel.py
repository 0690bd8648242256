"""Canceling a run from the UI while it trains: it ends as canceled, leaves a checkpoint and no process, and can be gone on with."""

import json
from pathlib import Path

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import Installation, trainings_of, wait_until
from trainpipe_tests.ui.webserver import start_webserver

PATIENCE = 240.0
CANCEL_SECONDS = 120.0  # more than the 20 s that a training has for its last checkpoint: the machine may be busy
LONG = {"epochs": 400, "batch_tokens": 64, "early_stopping_patience": 400}
SHORT = json.dumps({"ops": {"fine_tuned_model": {"config": {"epochs": 1}}}})


def test_a_canceled_run_is_over_and_the_next_one_goes_on(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_stand_in(models)
    place = Installation(tmp_path / "place", models)
    (tmp_path / "place" / "landing" / "reviews").mkdir(parents=True)
    services = start_webserver(place, tmp_path / "dagster_dev.log")
    try:
        services.wait_until_healthy()
        services.stop_sensors()
        place.land("words.csv", as_csv(examples(400, seed=11)))
        run_id = services.launch("reviews_retrain", {"ops": {"fine_tuned_model": {"config": LONG}}})
        wait_until(lambda: bool(trainings_of(place)) and any(_checkpoints(place)), PATIENCE, "training is under way", pause=0.1)
        assert place.status()["run"] == run_id
        services.cancel(run_id)
        wait_until(lambda: services.runs()[0]["status"] == "CANCELED", CANCEL_SECONDS, "the run is canceled")
        wait_until(lambda: not trainings_of(place), CANCEL_SECONDS, "its training has ended")
        assert [run["status"] for run in services.runs()] == ["CANCELED"]
    finally:
        print(services.log.read_text()[-6000:])  # shown where this fails
        services.kill()
    assert any(_checkpoints(place))
    found = place.status()
    assert (found["run"], found["unfinished"]) == (None, ["eval_report"])
    place.materialize("--config-json", SHORT)
    assert place.table("eval_report").rows == 1
    assert place.status()["unfinished"] == []


def _checkpoints(place: Installation) -> list[Path]:
    return list((place.root / "scratch").glob("*/checkpoints/step-*"))
