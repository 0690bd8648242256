"""Retraining on drift, as a user meets it: the sensor, the jobs it asks for and the check, on texts that people wrote.

Before each sentence of a sample corpus stand made-up words that the tiny model can learn the label from.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from trainpipe_assets.pipeline.drift import CHECK
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.maintenance import pinned_versions
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import Workplace, make_workplace
from trainpipe_tests.sample_corpora import read_corpora

ON_DRIFT = {"max_retries": 0, "retrain": "on_drift"}
ROWS = 320


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, instance: dg.DagsterInstance) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("drift"), instance, automation=ON_DRIFT, cleaning={"labels": ["negative", "positive"]})


@pytest.fixture(scope="module")
def corpora() -> dict[str, list[str]]:
    return {name: rows["text"].to_list() for name, rows in read_corpora().items()}


def land(place: Workplace, name: str, sentences: list[str], seed: int) -> None:
    made_up = examples(len(sentences), seed=seed)
    place.land(name, as_csv([(f"{words} {sentence}", label) for sentence, (words, label) in zip(sentences, made_up, strict=True)]))


def tick(place: Workplace) -> dg.RunRequest | dg.SkipReason:
    definitions = place.definitions()
    sensor = definitions.resolve_sensor_def("words_new_data")
    repository = definitions.get_repository_def()
    outcome = sensor(dg.build_sensor_context(instance=place.instance, repository_def=repository, resources={"lake": place.lake}))
    assert isinstance(outcome, dg.RunRequest | dg.SkipReason)
    return outcome


def asked_for(outcome: dg.RunRequest | dg.SkipReason) -> str:
    return str(outcome.job_name) if isinstance(outcome, dg.RunRequest) else (outcome.skip_message or "")


def run(place: Workplace, job: str) -> dict[str, Any]:
    """Run what the sensor asked for: the metadata of drift_report, and the verdict of its check as `passed`."""
    result = place.run(job)
    assert result.success
    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == CHECK]
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("drift_report")]
    trained = any(event.asset_key == dg.AssetKey("eval_report") for event in result.get_asset_materialization_events())
    assert trained == (job == "retrain")
    found = {key: value.value for key, value in event.materialization.metadata.items()}
    return {
        **found,
        "passed": check.passed,
        "severity": check.severity,
        "check": {key: entry.value for key, entry in check.metadata.items()},
    }


def test_the_nightly_run_does_not_train_where_only_drift_is_a_reason(place: Workplace) -> None:
    assert place.definitions().resolve_schedule_def("words_nightly").job_name == "words_prepare"


def test_only_drift_is_a_reason_to_train(place: Workplace, corpora: dict[str, list[str]]) -> None:
    movies, tweets = corpora["movies"], corpora["tweets"]

    land(place, "movies.csv", movies[:600], seed=1)
    assert asked_for(tick(place)) == "words_retrain"  # there is no model to compare with
    first = run(place, "retrain")
    assert first["passed"]
    assert "no model of this task has passed the gate yet" in first["reason"]
    assert place.table("drift_report").rows == 0

    land(place, "more movies.csv", movies[600 : 600 + ROWS], seed=2)
    assert asked_for(tick(place)) == "words_prepare"
    same = run(place, "prepare")
    assert same["compared"]
    assert same["passed"], same["check"]
    assert asked_for(tick(place)) == "nothing new has arrived"

    land(place, "few.csv", tweets[:20], seed=3)
    assert asked_for(tick(place)) == "words_prepare"
    few = run(place, "prepare")
    assert (few["compared"], few["passed"]) == (False, True)
    assert "20 new example(s), 300 are needed" in few["reason"]

    land(place, "tweets.csv", tweets[20:ROWS], seed=4)
    assert asked_for(tick(place)) == "words_prepare"
    drifted = run(place, "prepare")
    assert not drifted["passed"]
    assert drifted["severity"] is dg.AssetCheckSeverity.WARN
    assert drifted["arrived"].startswith(f"{ROWS} examples")  # those that were too few are among them
    assert drifted["domain_auc"] > 0.8
    assert drifted["comparison"].startswith("![")
    assert drifted["check"]["comparison"] == drifted["comparison"]
    assert drifted["vocabulary_coverage"] < same["vocabulary_coverage"]

    request = tick(place)
    assert asked_for(request) == "words_retrain"
    assert isinstance(request, dg.RunRequest)
    assert request.tags["trainpipe/drift"] == place.rows("drift_report").sort("compared_at")["comparison_id"][-1]
    still = run(place, "prepare")
    assert (still["compared"], still["passed"]) == (False, False)  # the drift stands until a model was trained on it
    assert [still[name] for name in ("comparison_id", "comparison", "tests")] == [
        drifted[name] for name in ("comparison_id", "comparison", "tests")
    ]
    row = place.rows("drift_report").sort("compared_at").row(-1, named=True)
    pinned = pinned_versions(place.lake, PipelineKeys(place.settings.key_prefix), place.settings.task)[row["dataset_uri"]]
    assert {row["since_version"], row["dataset_version"]} <= pinned  # by which it is seen whether the arrival is withdrawn
    retrained = run(place, "retrain")
    assert not retrained["passed"]
    assert asked_for(tick(place)) == "nothing new has arrived"
    history = place.rows("eval_report").sort("evaluated_at")
    assert history.height == 2
    after = run(place, "prepare")
    assert after["passed"] == history["gate_passed"][-1]  # a model that did not pass is not the current one
    assert place.table("drift_report").rows == 2
