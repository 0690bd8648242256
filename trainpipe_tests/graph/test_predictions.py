"""`trainpipe predict`: the answers that the evaluation reported, to the texts of any file."""

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from trainpipe_assets.pipeline.predictions import predict
from trainpipe_assets.settings import ComputeSettings
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.graph.test_causal import reviews
from trainpipe_tests.graph.test_causal import workplace as language_model
from trainpipe_tests.graph.test_multi_label import as_jsonl, films
from trainpipe_tests.graph.test_multi_label import workplace as multi_label
from trainpipe_tests.pipelines import Workplace, make_workplace

COMPUTE = ComputeSettings(device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    with dg.DagsterInstance.ephemeral() as instance:
        place = make_workplace(tmp_path_factory.mktemp("predictions"), instance)
        place.land("a.csv", as_csv(examples(300, seed=6)))
        assert place.run().success
        return place


def answered(place: Workplace, name: str, content: bytes, output: str = "out.parquet", model: str | None = None) -> pl.DataFrame:
    """What is written for a file of this content."""
    file = place.root / name
    file.write_bytes(content)
    done = predict(file, place.root / output, place.lake, place.settings, COMPUTE, model)
    readers = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}
    rows = readers[Path(output).suffix](place.root / output)
    assert (done.records, done.problems) == (rows.height, rows["problem"].len() - rows["problem"].null_count())
    return rows


def reported(place: Workplace) -> pl.DataFrame:
    """The rows of the newest evaluation."""
    (uri,) = place.rows("eval_report")["report_uri"]
    return pl.read_parquet(uri.replace(".html", ".predictions.parquet"))


@pytest.mark.parametrize("output", ["out.parquet", "out.csv", "out.jsonl"])
def test_a_text_has_the_answer_that_the_evaluation_reported(trained: Workplace, output: str) -> None:
    test = reported(trained)
    rows = answered(trained, "test.jsonl", "".join(json.dumps({"text": f"  {text}\n"}) + "\n" for text in test["text"]).encode(), output)
    assert rows["predicted"].to_list() == test["predicted"].to_list()
    assert rows["probability of negative"].to_list() == pytest.approx(test["probabilities"].list.get(0).to_list(), abs=1e-4)
    assert rows["line_number"].to_list() == list(range(1, len(test) + 1))


def test_what_has_no_answer_says_why_and_all_stay_in_their_order(trained: Workplace) -> None:
    content = b'[{"text": "w3 w4", "id": 7}, {"text": " "}, {"name": "w5"}, {"text": "w60 w61", "label": "positive"}]'
    rows = answered(trained, "a.json", content)
    assert rows["text"].to_list()[::3] == ["w3 w4", "w60 w61"]
    assert rows["predicted"].is_null().to_list() == [False, True, True, False]
    assert rows["problem"].is_null().to_list() == [True, False, False, True]
    assert rows["problem"][1] == "there is no text, or nothing is left of it after normalisation"
    assert rows["problem"][2].startswith("the object has no key 'text'")
    assert [json.loads(extra) for extra in rows["extra"]][::3] == [{"id": 7}, {"label": "positive"}]
    nothing = answered(trained, "b.jsonl", b'{"text": ""}\n')
    assert nothing["problem"].null_count() == 0


def test_the_columns_are_the_same_wherever_the_bad_records_are(trained: Workplace) -> None:
    whole = answered(trained, "a.jsonl", b'{"text": "w3 w4"}\n').columns
    assert whole[-1] == "problem"
    assert answered(trained, "b.jsonl", b'{"text": null}\n{"text": ""}\n').columns == whole
    bad_first = b"".join(b'{"text": null}\n' for _ in range(70_000)) + b'{"text": "w3 w4"}\n'  # more than are read at a time
    rows = answered(trained, "c.jsonl", bad_first)
    assert rows.columns == whole
    assert rows["predicted"].null_count() == 70_000


def test_a_model_is_chosen_by_its_fingerprint(trained: Workplace) -> None:
    (fingerprint,) = trained.rows("eval_report")["model_fingerprint"]
    assert answered(trained, "a.csv", b"text\nw3 w4\n", model=fingerprint[:6])["predicted"].null_count() == 0
    with pytest.raises(ValueError, match="no models of this pipeline have a fingerprint that begins with 'nothing'"):
        answered(trained, "a.csv", b"text\nw3 w4\n", model="nothing")


@pytest.mark.parametrize(
    ("name", "content", "output", "message"),
    [
        ("a.csv", b"text\nw3\n", "out.xlsx", r"found the ending '.xlsx', expected one of .csv .jsonl .parquet"),
        ("a.csv", b"review\nw3\n", "out.csv", "a.csv cannot be read: there is no column 'text'; the columns are 'review'"),
        ("a.pdf", b"%PDF", "out.csv", "a.pdf cannot be read: unknown file format"),
        ("a.csv", b"text\nw3\n", "nothing/out.csv", r"nothing/out.csv cannot be written: there is no folder .*/nothing$"),
        ("a.csv", b"text\nw3\n", "landing/words/out.csv", "it is in the landing folder, so the next run would take the answers for data"),
    ],
)
def test_what_cannot_be_answered_is_one_message_and_no_file(
    trained: Workplace, name: str, content: bytes, output: str, message: str
) -> None:
    (trained.root / output).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message):
        answered(trained, name, content, output)
    assert not (trained.root / output).exists()
    assert not list(trained.root.glob(".*out*"))


def test_the_file_that_is_read_is_not_written_over(trained: Workplace) -> None:
    with pytest.raises(ValueError, match="it is the file that is read; name another with --output"):
        answered(trained, "a.csv", b"text\nw3\n", "a.csv")
    assert (trained.root / "a.csv").read_bytes() == b"text\nw3\n"


def test_without_a_model_that_passed_another_has_to_be_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    with pytest.raises(ValueError, match="no model of this pipeline has passed the gate yet; name another with --model"):
        answered(place, "a.csv", b"text\nw3\n")


def test_a_file_that_is_not_there_is_named(trained: Workplace) -> None:
    with pytest.raises(ValueError, match=r"nothing\.csv cannot be read: there is no such file"):
        predict(trained.root / "nothing.csv", trained.root / "out.csv", trained.lake, trained.settings, COMPUTE, None)


def test_a_language_model_writes_texts_and_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = language_model(tmp_path, instance, "prompt-completion")
    place.land("a.jsonl", reviews(60))
    assert place.run().success
    model = place.rows("eval_report")["model_fingerprint"][0]
    with pytest.raises(ValueError, match="is a language model, which writes texts"):
        answered(place, "a.csv", b"text\nw3\n", model=model)


def test_several_labels_are_a_list(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = multi_label(tmp_path, instance)
    place.land("a.jsonl", as_jsonl(films(80)))
    assert place.run().success
    test = reported(place)
    model = place.rows("eval_report")["model_fingerprint"][0]
    rows = answered(place, "test.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in test["text"]).encode(), model=model)
    assert [json.loads(labels) for labels in rows["predicted"]] == test["predicted"].to_list()
