"""A model is of the settings it says it is of, and a report of the examples it says it is of, whatever was selected."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace

MODEL = ("fine_tuned_model", "eval_report")


def run(place: Workplace, *selected: str) -> dg.ExecuteInProcessResult:
    """A run of some of the assets alone."""
    job = place.definitions().resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in selected]
    return job.execute_in_process(instance=place.instance, asset_selection=keys, raise_on_error=False)


def changed(place: Workplace, section: str, **values: object) -> Workplace:
    """The same place with other settings of a section."""
    return replace(
        place,
        settings=place.settings.model_validate(
            {**place.settings.model_dump(), section: {**getattr(place.settings, section).model_dump(), **values}}
        ),
    )


@pytest.fixture
def place(tmp_path: Path, instance: dg.DagsterInstance) -> Workplace:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert place.run().success
    return place


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        (
            "cleaning",
            {"labels": ("positive", "negative")},
            "cleaned_features was made by other settings than the pipeline has now: cleaning.labels was",
        ),
        ("split", {"seed": 7}, "cleaned_features was made by other settings than the pipeline has now: split.seed was 0 and is 7"),
        ("model", {"max_length": 8}, "tokenized_dataset was made by other settings than the pipeline has now: max_length was"),
        (
            "source",
            {"max_record_bytes": 4096},
            "cleaned_features was made by other settings than the pipeline has now. Materialize it first",
        ),
    ],
)
def test_no_model_is_trained_on_examples_of_other_settings(
    place: Workplace, section: str, values: dict[str, object], expected: str
) -> None:
    other = changed(place, section, **values)
    assert failure_of(run(other, *MODEL)).startswith(expected)
    assert other.run().success
    assert run(other, *MODEL).success


def test_tokens_and_texts_of_two_versions_are_not_evaluated(place: Workplace) -> None:
    other = changed(place, "split", seed=7)
    assert run(other, "cleaned_features").success
    for selected in (("eval_report",), MODEL):
        message = failure_of(run(other, *selected))
        assert message.startswith("tokenized_dataset was made of version 1 of cleaned_features, which is at version 2 now")
    assert place.rows("eval_report").height == 1


def test_a_model_of_another_task_is_not_evaluated(place: Workplace) -> None:
    other = replace(
        place,
        settings=place.settings.model_validate(
            {**place.settings.model_dump(), "task": "text-regression", "cleaning": {}, "evaluation": {}}
        ),
    )
    result = run(other, "eval_report")
    assert "is of task text-classification, and the pipeline's task is text-regression now" in failure_of(result)
