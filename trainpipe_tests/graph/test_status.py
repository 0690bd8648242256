"""`trainpipe status` and `trainpipe report`: where a pipeline stands, and where its newest report is."""

from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.pipeline import status
from trainpipe_assets.pipeline.status import describe, local_report, pipeline_status
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import SETTINGS, make_workplace
from trainpipe_tests.unprivileged import as_nobody, folder_for_everyone


def test_a_file_of_which_nothing_can_be_used_is_named_with_its_reason(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("good.csv", as_csv(examples(10, seed=1)))
    place.land("half.csv", as_csv(examples(10, seed=2)) + b"only one field\n")
    place.land("other.csv", b"name,price\nchair,12\n")
    assert place.run("ingest").success
    found = pipeline_status(place.lake, "words", place.settings)
    assert list(found["unusable_files"]) == ["other.csv"]
    assert "text" in found["unusable_files"]["other.csv"]  # the column that is missing
    assert "unusable   1 file(s), of which no record can be used: other.csv (" in describe("words", found)


def test_the_newest_report_is_found(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    with pytest.raises(ValueError, match="the pipeline 'words' has no evaluation yet"):
        local_report(place.lake, "words", place.settings)
    place.land("a.csv", as_csv(examples(200, seed=6)))
    assert place.run().success
    path = local_report(place.lake, "words", place.settings)
    assert path.read_text().startswith("<!DOCTYPE html>")
    path.unlink()
    with pytest.raises(ValueError, match="is not there any more; materialize eval_report again"):
        local_report(place.lake, "words", place.settings)
    assert place.run().success
    assert local_report(place.lake, "words", place.settings) == path
    assert place.table("eval_report").rows == 1


def test_a_model_that_passed_before_stays_the_current_one_and_status_says_so(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=6)))
    place.land("noise.csv", as_csv(examples(30, seed=7, labels=("positive", "negative"))))  # which nobody can have right with the others
    assert place.run().success
    assert "current " not in describe("words", pipeline_status(place.lake, "words", place.settings))
    place = make_workplace(tmp_path, instance, evaluation={"gate": {"min_value": 1.0}, "bootstrap_samples": 100})
    assert place.run().success
    found = pipeline_status(place.lake, "words", place.settings)
    assert not found["gate"]["passed"]
    assert found["model"]["uri"] == found["latest"]["uri"]
    assert "current    the same all the same: it passed before" in describe("words", found)


def test_settings_that_were_changed_since_are_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=6)))
    assert place.run().success
    assert pipeline_status(place.lake, "words", place.settings)["changed"] == {}
    assert "changed" not in describe("words", pipeline_status(place.lake, "words", place.settings))
    later = {  # packing is for language models
        "source": {**SETTINGS["source"], "settle_seconds": 1},  # changes no row
        "cleaning": {**SETTINGS["cleaning"], "min_chars": 3},
        "model": {**SETTINGS["model"], "max_length": 16},
        "training": {
            **SETTINGS["training"],
            "epochs": 1,
            "checkpoint_seconds": 5,
            "packing": False,
        },
        "evaluation": {"bootstrap_samples": 200, "gate": {"min_value": 0.1}},
    }
    place = make_workplace(tmp_path, instance, **later)
    found = pipeline_status(place.lake, "words", place.settings)
    assert found["changed"] == {
        "cleaned_features": ["cleaning.min_chars was 2 and is 3"],
        "tokenized_dataset": ["max_length was 32 and is 16"],
        "fine_tuned_model": ["model.max_length was 32 and is 16", "training.epochs was 2 and is 1"],
        "eval_report": ["evaluation.gate.min_value was 0.0 and is 0.1"],
    }
    told = describe("words", found)
    assert "  changed    cleaned_features is of other settings: cleaning.min_chars was 2 and is 3\n" in told
    assert place.run().success
    assert pipeline_status(place.lake, "words", place.settings)["changed"] == {}


def test_a_folder_of_a_pipeline_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_everyone() as folder:
        monkeypatch.setattr(status, "pipelines_folder", lambda: folder)
        assert status.load_pipelines() == {}
        (folder / "reviews").mkdir()
        (folder / "reviews" / "defs.yaml").write_text("type: trainpipe_assets.TrainingPipeline\n")
        (folder / "reviews").chmod(0)
        with pytest.raises(ValueError, match=r"Permission denied: .*/reviews'. Let whoever runs the pipeline read"):
            as_nobody(status.load_pipelines)
        (folder / "reviews").chmod(0o755)
        assert list(status.load_pipelines()) == ["reviews"]


def test_texts_of_a_pipeline_are_what_is_written_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stars").mkdir()
    written = "cleaning: {labels: ['1', '2', 'None', \"'a'\"]}\n  source: {text_column: '0', uri: '{{ env.YEAR }}'}\n"
    (tmp_path / "stars" / "defs.yaml").write_text(f"type: trainpipe_assets.TrainingPipeline\nattributes:\n  {written}")
    monkeypatch.setattr(status, "pipelines_folder", lambda: tmp_path)
    monkeypatch.setenv("YEAR", "2026")
    settings = status.load_pipelines()["stars"]
    assert settings.cleaning.labels == ("1", "2", "None", "'a'")
    assert (settings.source.text_column, settings.source.uri) == ("0", "2026")
    monkeypatch.delenv("YEAR")
    with pytest.raises(ValueError, match=r"stars/defs.yaml:4: source.uri: the template '{{ env.YEAR }}' names a variable that is not set"):
        status.load_pipelines()
