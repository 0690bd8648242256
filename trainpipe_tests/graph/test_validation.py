"""Validation rules where a person meets them: rejected records, warnings, the check's table, and a run that a rule ends."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace

STARS = {"name": "few_stars", "kind": "range", "column": "stars", "max": 5, "severity": "block"}
SHORT = {"name": "wordy", "kind": "range", "column": "n_words", "min": 2}
LANDED = b"text,label,stars\nw4 w5,negative,3\nw6 w7,negative,9\nw8,positive,1\nw9 w10,negative,\n"


def clean(place: Workplace) -> tuple[dg.ExecuteInProcessResult, dict[str, Any], str | None]:
    """A run up to the tokens; the check's metadata and its one message."""
    place.land("a.csv", LANDED)
    job = place.definitions().resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")]
    result = job.execute_in_process(instance=place.instance, asset_selection=keys, raise_on_error=False)
    checks = [check for check in result.get_asset_check_evaluations() if check.check_name == "validation_rules_are_kept"]
    return (
        result,
        {name: value.value for check in checks for name, value in check.metadata.items()},
        checks[0].description if checks else None,
    )


def test_records_are_rejected_or_kept_with_a_warning(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, validation={"rules": [STARS, SHORT]})
    result, metadata, message = clean(place)
    assert result.success
    assert place.rows("rejected_rows").select("rule", "reason").rows() == [("few_stars", "stars is 9, allowed is at most 5")]
    warnings = dict(place.rows("cleaned_features").select("text", "warnings").rows())
    assert warnings == {"w4 w5": None, "w8": ["wordy"], "w9 w10": None}
    assert (metadata["records_rejected"], metadata["records_with_warnings"], metadata["rules_not_kept"]) == (1, 1, 1)
    assert "| few_stars | range | block | at most 5 | 1 rejected | 1 | yes |" in metadata["rules"]
    assert message == "validation rules are not kept: wordy: found 1 kept with a warning, allowed is at least 2"


@pytest.mark.parametrize("severity", ["warn", "block"])
def test_a_rule_about_all_records_warns_or_ends_the_run(tmp_path: Path, instance: dg.DagsterInstance, severity: str) -> None:
    balanced = {"name": "balanced", "kind": "class_balance", "min_share": 0.4, "severity": severity}
    result, _, message = clean(make_workplace(tmp_path, instance, validation={"rules": [balanced]}))
    assert message == "validation rules are not kept: balanced: found negative 0.75, positive 0.25, allowed is at least 0.4"
    assert result.success == (severity == "warn")
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert ("tokenized_dataset" in made) == (severity == "warn")


def test_a_misspelt_column_ends_the_run_with_one_message(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    result, _, _ = clean(make_workplace(tmp_path, instance, validation={"rules": [{**STARS, "column": "star"}]}))
    assert failure_of(result).startswith("validation rule few_stars looks at column 'star', which no landed file has; there are: text, ")


def test_texts_in_other_languages_are_rejected(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, cleaning={"labels": ["negative", "positive"], "languages": ["en"]})
    place.land("b.csv", "text,label\nLeider funktioniert das Gerät nach zwei Wochen nicht mehr.,negative\n".encode())
    result, _, _ = clean(place)
    assert result.success
    (row,) = place.rows("rejected_rows").to_dicts()
    assert row["rule"] == "language"
    assert row["reason"].startswith("the language is de (confidence ")


def test_many_rejections_are_a_warning_of_what_came_last(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)

    def checked(name: str, content: str) -> dg.AssetCheckEvaluation:
        place.land(name, content.encode())
        keys = [dg.AssetKey(key) for key in ("raw_data", "cleaned_features", "rejected_rows")]
        job = place.definitions().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=place.instance, asset_selection=keys)
        assert result.success
        (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "few_records_are_rejected"]
        return check

    many = checked("a.csv", "text,label\nw4 w5,negative\nw6 w7,neutral\nw8 w9,neutral\nw10 w11,\n")
    assert not many.passed
    assert many.severity is dg.AssetCheckSeverity.WARN
    assert many.description == (
        "of the 4 records that came last 3 are rejected (75.0%, validation.max_rejected_share is 20.0%): unknown_label 2, missing_label 1. "
        "The table rejected_rows has the reason of each"
    )
    few = checked("b.csv", "text,label\nw4 w5,negative\nw12 w13,negative\nw14 w15,positive\n")  # the first repeats one of the other file
    assert few.passed
    assert few.metadata["records_that_came_last"].value == 3
