"""Schema drift where a person meets it: in the materialization, the check, and the message of a run that stops."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trainpipe_tests.pipelines import SETTINGS, Workplace, failure_of, make_workplace

STARS = b"text,label,stars\nw4 w5,negative,3\n"
WORDS = b"text,label,stars\nw8 w9,positive,three\n"


def ingest(place: Workplace) -> tuple[dict[str, Any], bool]:
    """What the materialization says, and whether the check is content."""
    result = place.run("ingest")
    assert result.success
    (raw,) = [event for event in result.get_asset_materialization_events() if event.asset_key.path[-1] == "raw_data"]
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    drift = checks["schema_is_stable"]
    assert drift.passed or drift.severity == dg.AssetCheckSeverity.WARN
    return {name: value.value for name, value in raw.materialization.metadata.items()}, drift.passed


@pytest.mark.parametrize(("drift", "content_after"), [("accept", True), ("quarantine", False)])
def test_drift_is_shown_with_what_it_is(tmp_path: Path, instance: dg.DagsterInstance, drift: str, content_after: bool) -> None:
    place = make_workplace(tmp_path, instance, source={**SETTINGS["source"], "schema_drift": drift})
    place.land("a.csv", STARS)
    metadata, content = ingest(place)
    assert metadata["files_with_schema_drift"] == 0
    assert content
    place.land("b.csv", WORDS)
    metadata, content = ingest(place)
    assert metadata["files_with_schema_drift"] == 1
    assert "| b.csv | stars | retyped | integer | string |" in metadata["schema_drift"]
    assert not content
    place.land("c.csv", STARS if drift == "quarantine" else WORDS)
    metadata, content = ingest(place)
    assert metadata["files_with_schema_drift"] == 0
    assert content == content_after  # what is quarantined waits for somebody to decide


def test_a_run_that_is_to_stop_says_why(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, source={**SETTINGS["source"], "schema_drift": "stop"})
    place.land("a.csv", STARS)
    place.land("b.csv", WORDS)
    message = failure_of(place.run("ingest"))
    assert message.startswith("schema drift in b.csv: column 'stars' was integer and is string. Nothing was written.")
