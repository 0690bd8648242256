"""The sensor, the schedule and the alert: what a tick decides, from the landing folder and the lake alone."""

import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import psutil
import pytest

from trainpipe_assets.pipeline import automation, executor, runs
from trainpipe_assets.pipeline.automation import failure_line, look_for_data, run_failure_alert
from trainpipe_assets.pipeline.executor import PROCESS_TAG, SILENCE_SECONDS, give_up_dead_runs, sign
from trainpipe_assets.pipeline.status import describe, pipeline_status
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import Workplace, make_workplace

ROWS = examples(60, seed=5)
ENOUGH = examples(200, seed=6)  # to train on


@pytest.fixture
def place(tmp_path: Path, instance: dg.DagsterInstance) -> Workplace:
    return make_workplace(tmp_path, instance)


def tick(place: Workplace, now: float | None = None) -> dg.RunRequest | dg.SkipReason:
    return look_for_data(place.settings, place.lake, dg.AssetKey("raw_data"), now or time.time())


def skipped(outcome: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(outcome, dg.SkipReason), outcome
    return outcome.skip_message or ""


def test_nothing_landed_is_no_reason_to_run(place: Workplace) -> None:
    assert "does not exist" in skipped(tick(place))
    (place.root / "landing" / "words").mkdir(parents=True)
    assert "empty" in skipped(tick(place))


def test_arrivals_are_asked_for_once_and_again_only_after_they_changed(place: Workplace) -> None:
    place.land("a.csv", as_csv(ROWS[:10]))
    place.land("b.csv", as_csv(ROWS[10:20]))
    now = time.time()
    first, same = tick(place, now), tick(place, now)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(same, dg.RunRequest)
    assert first.run_key == same.run_key  # a burst is one run
    assert first.tags["trainpipe/new_files"] == "2"
    assert place.run("ingest").success
    assert "nothing new" in skipped(tick(place))
    place.land("a.csv", as_csv(ROWS[:12]))
    changed = tick(place)
    assert isinstance(changed, dg.RunRequest)
    assert changed.run_key != first.run_key


def test_the_same_arrivals_are_tried_again_after_an_hour(place: Workplace) -> None:
    place.land("a.csv", as_csv(ROWS))
    now = time.time()
    keys = {request.run_key for request in (tick(place, now), tick(place, now + 3600)) if isinstance(request, dg.RunRequest)}
    assert len(keys) == 2


def test_a_file_that_is_only_touched_is_nothing_new(place: Workplace) -> None:
    path = place.land("a.csv", as_csv(ROWS))
    assert place.run("ingest").success
    path.touch()
    assert "nothing new" in skipped(tick(place, time.time() + 60))


def test_a_withdrawn_file_is_a_reason_to_run(place: Workplace) -> None:
    place.land("a.csv", as_csv(ROWS[:30]))
    gone = place.land("b.csv", as_csv(ROWS[30:]))
    assert place.run("ingest").success
    gone.unlink()
    request = tick(place)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["trainpipe/withdrawn_files"] == "1"


def test_files_that_still_arrive_are_waited_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, source={"uri": "words", "settle_seconds": 30})
    now = time.time()
    for name, age in (("a.csv", 60), ("b.csv", 0)):
        os.utime(place.land(name, as_csv(ROWS)), (now - age,) * 2)
    assert "1 new file(s), waiting for 1 that are still arriving" in skipped(tick(place, now))
    assert isinstance(tick(place, now + 31), dg.RunRequest)


def test_a_file_that_never_settles_does_not_hold_back_the_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, source={"uri": "words", "settle_seconds": 30})
    place.land("a.csv", as_csv(ROWS))  # an hour old
    growing = place.land("b.csv", as_csv(ROWS))
    growing.touch()
    request = tick(place)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["trainpipe/new_files"] == "1"
    growing.unlink()
    assert place.run("ingest").success
    place.land("b.csv", as_csv(ROWS)).touch()
    assert "1 file(s) still arriving" in skipped(tick(place))


def test_few_rows_are_waited_with(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, automation={"min_new_rows": 50})
    place.land("a.csv", as_csv(ROWS[:20]))
    assert "20 new rows so far, waiting for 50" in skipped(tick(place))
    place.land("b.csv", as_csv(ROWS[20:]))
    assert isinstance(tick(place), dg.RunRequest)


def test_no_second_run_while_one_is_under_way(place: Workplace, instance: dg.DagsterInstance) -> None:
    place.land("a.csv", as_csv(ROWS))
    definitions = place.definitions()
    sensor = definitions.resolve_sensor_def("words_new_data")
    repository = definitions.get_repository_def()

    def outcome() -> dg.SensorResult | object:
        context = dg.build_sensor_context(instance=instance, repository_def=repository, resources={"lake": place.lake})
        return sensor(context)

    assert isinstance(outcome(), dg.RunRequest)
    run = instance.create_run_for_job(definitions.resolve_job_def("words_ingest"), status=dg.DagsterRunStatus.STARTED)
    busy = outcome()
    assert isinstance(busy, dg.SkipReason)
    assert run.run_id in (busy.skip_message or "")


def test_a_run_of_a_job_of_ones_own_is_seen_by_what_it_makes(place: Workplace, instance: dg.DagsterInstance) -> None:
    said = []

    @dg.asset(deps=["raw_data"])
    def looking(context: dg.AssetExecutionContext) -> None:
        ticking = dg.build_sensor_context(
            instance=instance, repository_def=definitions.get_repository_def(), resources={"lake": place.lake}
        )
        outcome = definitions.resolve_sensor_def("words_new_data")(ticking)
        said.append((context.run_id, outcome.skip_message if isinstance(outcome, dg.SkipReason) else None))

    own = dg.define_asset_job("everything", dg.AssetSelection.assets("raw_data", "looking"))
    definitions = dg.Definitions.merge(place.definitions(), dg.Definitions(assets=[looking], jobs=[own]))
    place.land("a.csv", as_csv(ROWS))
    assert definitions.resolve_job_def("everything").execute_in_process(instance=instance).success
    ((run_id, message),) = said
    assert run_id in (message or "")


def sensed(place: Workplace, monkeypatch: pytest.MonkeyPatch, hours: int = 0) -> dg.RunRequest | dg.SkipReason:
    """What a tick of the sensor says so many hours from now."""
    now = time.time() + 3600 * hours
    monkeypatch.setattr(automation.time, "time", lambda: now)  # type: ignore[attr-defined]
    definitions = place.definitions()
    context = dg.build_sensor_context(
        instance=place.instance, repository_def=definitions.get_repository_def(), resources={"lake": place.lake}
    )
    outcome = definitions.resolve_sensor_def("words_new_data")(context)
    monkeypatch.undo()
    assert isinstance(outcome, dg.RunRequest | dg.SkipReason)
    return outcome


def test_what_a_failed_run_left_unfinished_is_asked_for_an_hour_later_and_not_for_ever(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_workplace(tmp_path, instance, training={"epochs": 1, "batch_tokens": 256})
    place.land("a.csv", as_csv(ENOUGH))
    config = place.root / "models" / "tiny" / "config.json"
    kept = config.read_bytes()
    config.unlink()
    assert not place.run().success
    assert pipeline_status(place.lake, "words", place.settings)["unfinished"] == ["tokenized_dataset", "eval_report"]
    assert "failed; it is tried again 60 minutes after its end" in skipped(sensed(place, monkeypatch))
    for attempt in range(3):
        request = sensed(place, monkeypatch, hours=1)
        assert isinstance(request, dg.RunRequest)
        assert request.job_name == "words_retrain"
        assert (request.run_key or "").startswith(f"trainpipe/unfinished-{request.tags['trainpipe/unfinished']}-{attempt}-")
        assert not place.run(tags=dict(request.tags)).success
    assert "3 runs did not mend it" in skipped(sensed(place, monkeypatch, hours=1))
    landing = place.root / "landing" / "words"
    landing.rename(place.root / "away")
    assert "does not exist" in skipped(sensed(place, monkeypatch, hours=1))  # no run is asked for that cannot succeed
    (place.root / "away").rename(landing)
    config.write_bytes(kept)
    assert place.run().success
    assert "nothing new" in skipped(sensed(place, monkeypatch))
    found = pipeline_status(place.lake, "words", place.settings)
    assert found["unfinished"] == []
    assert "unfinished" not in describe("words", found)


def test_what_a_person_canceled_is_not_begun_again_until_new_data_arrives(
    place: Workplace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.land("a.csv", as_csv(ROWS[:30]))
    assert place.run("ingest").success
    canceled = instance.create_run_for_job(place.definitions().resolve_job_def("words_retrain"), status=dg.DagsterRunStatus.CANCELED)
    said = skipped(sensed(place, monkeypatch, hours=5))
    assert "cleaned_features, rejected_rows, drift_report, tokenized_dataset, eval_report do not cover raw_data" in said
    assert canceled.run_id in said
    place.land("b.csv", as_csv(ROWS[30:]))
    assert isinstance(sensed(place, monkeypatch), dg.RunRequest)


def test_what_a_run_elsewhere_may_be_at_is_left_to_it_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as elsewhere, dg.DagsterInstance.ephemeral() as here:
        place = make_workplace(tmp_path, elsewhere)
        place.land("a.csv", as_csv(ROWS))
        assert place.run("ingest").success
        place = make_workplace(tmp_path, here)
        assert "a run elsewhere may be at it" in skipped(sensed(place, monkeypatch))
        assert isinstance(sensed(place, monkeypatch, hours=2), dg.RunRequest)


def test_a_run_that_others_have_long_followed_is_still_known_as_canceled(
    place: Workplace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LOOKED_AT", 3)
    place.land("a.csv", as_csv(ROWS))
    assert place.run("ingest").success
    definitions = place.definitions()
    canceled = instance.create_run_for_job(
        definitions.resolve_job_def("words_retrain"), status=dg.DagsterRunStatus.CANCELED, tags={"trainpipe/pipeline": "words"}
    )
    for _ in range(5):
        instance.create_run_for_job(another_job, status=dg.DagsterRunStatus.SUCCESS)
    assert canceled.run_id in skipped(sensed(place, monkeypatch, hours=5))


@dg.job
def another_job() -> None:
    """Of another pipeline."""


def test_the_first_model_does_not_wait_where_the_nightly_run_prepared_the_data(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_workplace(tmp_path, instance, automation={"retrain": "on_drift", "min_new_rows": 500})
    place.land("a.csv", as_csv(ENOUGH))
    assert "waiting for 500" in skipped(sensed(place, monkeypatch))
    assert place.run("prepare").success
    request = sensed(place, monkeypatch)
    assert isinstance(request, dg.RunRequest)
    assert request.job_name == "words_retrain"


def test_only_what_a_run_leaves_unfinished_is_unfinished(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    place.land("a.csv", as_csv(ENOUGH))
    assert place.run().success
    assert "nothing new" in skipped(sensed(place, monkeypatch))
    place.land("the same again.csv", as_csv(ENOUGH[:10]))  # nothing but duplicates: no new example, and no new training
    assert isinstance(sensed(place, monkeypatch), dg.RunRequest)
    assert place.run().success
    assert "nothing new" in skipped(sensed(place, monkeypatch))
    assert place.table("eval_report").rows == 1


def test_a_run_whose_process_is_gone_is_given_up(place: Workplace, instance: dg.DagsterInstance) -> None:
    job = place.definitions().resolve_job_def("words_ingest")
    alive, dead, unsigned = (instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED) for _ in range(3))
    sign(instance, alive.run_id)
    signature = {"host": json.loads(_tags(instance, alive.run_id)[PROCESS_TAG])["host"], "pid": psutil.Process().pid, "since_boot": 1.0}
    instance.add_run_tags(dead.run_id, {PROCESS_TAG: json.dumps({"run_id": dead.run_id, **signature})})
    instance.add_run_tags(unsigned.run_id, {PROCESS_TAG: json.dumps({"run_id": dead.run_id, **signature})})  # as its re-execution has
    elsewhere = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.add_run_tags(elsewhere.run_id, {PROCESS_TAG: json.dumps({**signature, "run_id": elsewhere.run_id, "host": "another-machine"})})
    away, silent = (instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED) for _ in range(2))
    for run, ago in ((away, SILENCE_SECONDS / 2), (silent, 2 * SILENCE_SECONDS)):
        said = {**signature, "run_id": run.run_id, "host": "another-machine", "at": time.time() - ago}
        instance.add_run_tags(run.run_id, {PROCESS_TAG: json.dumps(said)})
    assert set(give_up_dead_runs(instance)) == {dead.run_id, silent.run_id}
    failed = {run.run_id for run in instance.get_runs() if run.status is dg.DagsterRunStatus.FAILURE}
    assert failed == {dead.run_id, silent.run_id}


def test_a_clock_that_is_set_ends_no_run(place: Workplace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    run = instance.create_run_for_job(place.definitions().resolve_job_def("words_ingest"), status=dg.DagsterRunStatus.STARTED)
    sign(instance, run.run_id)
    booted, created = psutil.boot_time, psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 7200.0)  # both are told by the clock on the wall
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 7200.0)
    assert give_up_dead_runs(instance) == []


def test_the_schedule_asks_for_no_run_beside_another_and_the_one_in_progress_is_named(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        definitions = make_workplace(tmp_path, instance, automation={"schedule": "0 3 * * *"}).definitions()
        schedule, job = definitions.resolve_schedule_def("words_nightly"), definitions.resolve_job_def("words_retrain")

        def asked() -> list[str]:
            with dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC)) as context:
                decided = schedule.evaluate_tick(context)
                return [decided.skip_message] if decided.skip_message else ["a run" for _ in decided.run_requests or ()]

        assert asked() == ["a run"]
        started = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        sign(instance, started.run_id)
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
        (why,) = asked()
        assert f"run {started.run_id} of this pipeline is under way" in why


def test_a_run_that_is_over_keeps_no_place_in_a_pool(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        pools = instance.event_log_storage
        pools.set_concurrency_slots("gpu", 1)
        killed, waiting = (instance.create_run_for_job(another_job, status=dg.DagsterRunStatus.STARTED) for _ in range(2))
        sign(instance, waiting.run_id)
        assert pools.claim_concurrency_slot("gpu", killed.run_id, "fine_tuned_model").is_claimed
        assert not pools.claim_concurrency_slot("gpu", waiting.run_id, "fine_tuned_model").is_claimed
        instance.report_run_failed(killed)  # as Dagster does where it finds the process gone: the place stays taken
        assert not pools.claim_concurrency_slot("gpu", waiting.run_id, "fine_tuned_model").is_claimed
        assert give_up_dead_runs(instance) == []
        assert pools.claim_concurrency_slot("gpu", waiting.run_id, "fine_tuned_model").is_claimed
        assert give_up_dead_runs(instance) == []
        assert pools.get_concurrency_info("gpu").active_run_ids == {waiting.run_id}


def test_a_run_goes_on_saying_that_it_is_alive(place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SIGN_SECONDS", 0.02)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # one in memory cannot be read while a thread writes to it
        run = instance.create_run_for_job(place.definitions().resolve_job_def("words_ingest"), status=dg.DagsterRunStatus.STARTED)
        seen = set()
        with executor._signed_again(instance, run.run_id):
            deadline = time.monotonic() + 30
            while len(seen) < 3 and time.monotonic() < deadline:
                seen.add(json.loads(_tags(instance, run.run_id).get(PROCESS_TAG, '{"at": 0}'))["at"])
        assert len(seen) == 3
        last = _tags(instance, run.run_id)
        time.sleep(0.2)
        assert _tags(instance, run.run_id) == last, "the signature of a run outlived it"


def test_a_file_of_the_future_stops_no_arrivals(place: Workplace) -> None:
    ahead = place.land("a.csv", as_csv(ENOUGH[:10]))
    os.utime(ahead, (time.time() + 86_400,) * 2)
    assert isinstance(tick(place), dg.RunRequest)
    assert place.run("ingest").success
    assert "nothing new" in skipped(tick(place))
    place.land("b.csv", as_csv(ENOUGH[10:20]))
    request = tick(place)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["trainpipe/new_files"] == "1"


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def _tags(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    return dict(_run(instance, run_id).tags)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook on loopback and what was posted to it."""
    posted: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posted
    server.shutdown()
    server.server_close()


def test_a_failed_run_is_told_in_one_line(
    place: Workplace, instance: dg.DagsterInstance, webhook: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, posted = webhook
    monkeypatch.setenv("TRAINPIPE_WEBHOOK_URL", url)
    result = place.run("ingest")
    assert not result.success
    run_failure_alert(failed(result, instance))
    (alert,) = posted
    assert "words_ingest failed at raw_data: " in alert["text"]
    assert "does not exist" in alert["text"]
    assert "\n" not in alert["text"]
    assert alert["steps"] == "raw_data"
    assert alert["text"] == failure_line(result.dagster_run, alert["text"].split("raw_data: ", 1)[1], ["raw_data"])
    assert "dagster." not in alert["text"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/hook", "nowhere", "http://a b/", "silent"])
def test_a_webhook_that_does_not_take_the_alert_ends_nothing(
    place: Workplace, instance: dg.DagsterInstance, url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()  # hangs up without an answer
        answering = url.replace("silent", f"http://127.0.0.1:{server.getsockname()[1]}/hook")
        monkeypatch.setenv("TRAINPIPE_WEBHOOK_URL", answering)
        run_failure_alert(failed(place.run("ingest"), instance))
    assert "the webhook of TRAINPIPE_WEBHOOK_URL did not take the alert: " in capfd.readouterr().err


def failed(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> dg.RunFailureSensorContext:
    """What Dagster hands to those that look at the failed run `result`."""
    return dg.build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()
