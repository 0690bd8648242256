"""The report: complete, self-contained, and deaf to hostile texts."""

import base64
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from trainpipe_assets.evaluation.classification import Evaluation, evaluate
from trainpipe_assets.evaluation.composition import SHOWN, Composition, Part, composition
from trainpipe_assets.evaluation.report import MAX_TEXT, ReportContext, render_report, summary_markdown
from trainpipe_assets.settings import EvaluationSettings, GateSettings

ATTACK = '<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} & "quoted" \''
LABELS = ("negative", f"positive {ATTACK}")
CONTEXT = ReportContext(
    title=f"reviews {ATTACK}",
    evaluation_id="0123abcd",
    evaluated_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    model_uri="s3://lake/models/fine_tuned_model/cafe",
    model_fingerprint="cafe",
    dataset_uri="s3://lake/tables/tokenized_dataset",
    dataset_version=41,
    base_model="samples/all-MiniLM-L6-v2",
    previous_fingerprint="beef",
    composition=Composition(
        Part("all examples", 8_460, 940, 600),
        [Part(f"positive {ATTACK}", 8_000, 900, 560), Part("negative", 460, 40, 40)],
        [Part("movies.csv", 8_460, 940, 600)],
        ["unheard of"],
    ),
    n_cut=7,
    longest=64,
    trained_on={"train": 8_460, "validation": 940},
    settings={"training": {"epochs": 3, "note": ATTACK}},
    lineage={"Code version": "v9"},
    history=[{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5}],
    validations=[{"step": 2, "loss": 0.6, "accuracy": 0.7}],
    efficiency={
        "verdict": "the device waited 31% of the time for data",
        "phases": {"data": 3.1, "forward": 6.9},
        "computing": ["forward"],
        "cost": 1.25,
    },
    warnings=[f"step 3: the loss jumped {ATTACK}"],
)


class Page(HTMLParser):
    """The elements, attributes and words of a page, as a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def make_evaluation(text: str = ATTACK, *, strength: float = 1.0, with_previous: bool = True, **settings: object) -> Evaluation:
    random = np.random.default_rng(0)
    ids = random.integers(2, size=60)
    examples = pl.DataFrame(
        {
            "row_id": [f"row{index}" for index in range(60)],
            "source_file": [f"{ATTACK}{index % 2}.csv" for index in range(60)],
            "text": [f"{text} {index}" for index in range(60)],
            "label": [LABELS[index] for index in ids],
            "label_id": ids,
            "n_tokens": random.integers(4, 30, size=60),
        }
    )
    share = 1 / (1 + np.exp(-random.normal(size=60) - strength * (2 * ids - 1)))
    probabilities = np.column_stack([1 - share, share])
    previous = probabilities[::-1] if with_previous else None
    return evaluate(examples, LABELS, probabilities, previous, EvaluationSettings(bootstrap_samples=100, **settings))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return make_evaluation()


@pytest.fixture(scope="module")
def html(evaluation) -> str:
    return render_report(evaluation, CONTEXT)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_hostile_texts_stay_texts(page, html):
    assert "script" not in page.elements
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ATTACK in page.text
    assert "<script>alert" not in html


def test_the_page_needs_nothing_beside_it(page):
    loads = [value for name, value in page.attributes if name in ("src", "srcset", "href", "data", "action", "poster")]
    assert loads
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.elements)


def test_the_page_forbids_itself_scripts_and_the_network(page):
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_the_style_loads_nothing(html):
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_every_picture_comes_for_light_and_dark(page):
    pictures = [value for name, value in page.attributes if name in ("src", "srcset")]
    assert len(pictures) == 2 * page.elements.count("picture") == 2 * 5
    assert len(set(pictures)) == len(pictures)
    for picture in pictures:
        assert base64.b64decode(picture.split(",", 1)[1], validate=True).startswith(b"\x89PNG")
    assert all(value for name, value in page.attributes if name == "alt")


def test_the_page_has_the_numbers_of_the_evaluation(page, evaluation):
    for estimate in evaluation.metrics.values():
        assert f"{estimate.value:.4f}" in page.text
        assert f"{estimate.low:.4f} to {estimate.high:.4f}" in page.text
    for reason in evaluation.verdict.reasons:
        assert reason in page.text
    for row in evaluation.slices:
        assert f"{row.accuracy.low:.4f} to {row.accuracy.high:.4f}" in page.text
    for row in evaluation.classes:
        assert f"{row.recall.low:.4f} to {row.recall.high:.4f}" in page.text
    for difference in evaluation.comparison.differences.values():
        assert f"{difference.value:+.4f}" in page.text
    for row_id in evaluation.mistakes["row_id"]:
        assert row_id in page.text


def test_the_page_says_where_the_model_comes_from(page):
    for expected in (
        CONTEXT.model_uri,
        CONTEXT.dataset_uri,
        "41",
        CONTEXT.base_model,
        "0123abcd",
        "beef",
        "2026-01-02T03:04:05+00:00",
        "v9",
        "the device waited 31% of the time for data. Cost: 1.25.",
        "7 of the 60 test examples fill the longest input of 64 tokens",
        "No training example: unheard of . The model cannot know this label.",
        "trained on 8,460 examples and validated on 940",
        "all examples 8,460 940 600 100.0%",
        "negative 460 40 40 5.4%",
        "movies.csv 8,460 940 600 100.0%",
        "warning step 3: the loss jumped",
    ):
        assert expected in page.text
    assert '"epochs": 3' in page.text


def test_a_first_model_without_slices_mistakes_or_curves_has_a_page():
    first = make_evaluation(strength=20.0, with_previous=False, slices=())
    assert first.mistakes.is_empty()
    bare = ReportContext("t", "e", CONTEXT.evaluated_at, "m", "f", "d", 0, "b")
    page = Page(render_report(first, bare))
    assert "There is no previous model to compare with." in page.text
    assert "None to show." in page.text
    assert page.elements.count("picture") == 2
    assert "None" not in page.text.replace("None to show", "")


def test_long_texts_are_cut():
    evaluation = make_evaluation("z" * 5000, mistakes=1)
    page = Page(render_report(evaluation, CONTEXT))
    assert "z" * MAX_TEXT in page.text
    assert "z" * (MAX_TEXT + 1) not in page.text


@pytest.mark.parametrize(("floor", "word"), [(0.0, "passed"), (1.0, "failed")])
def test_page_and_summary_say_the_verdict(floor, word):
    evaluation = make_evaluation(with_previous=False, gate=GateSettings(min_value=floor))
    assert f"Gate: {word}" in Page(render_report(evaluation, CONTEXT)).text
    assert f"**Gate {word}**" in summary_markdown(evaluation)


def test_the_page_is_a_function_of_its_input(evaluation, html):
    assert render_report(evaluation, CONTEXT) == html


@pytest.mark.parametrize("with_previous", [True, False])
def test_the_summary_is_a_well_formed_table(with_previous):
    evaluation = make_evaluation(with_previous=with_previous)
    summary = summary_markdown(evaluation)
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert {line.count("|") for line in rows} == {6 if with_previous else 4}
    for reason in evaluation.verdict.reasons:
        assert f"- {reason}" in summary
    for estimate in evaluation.metrics.values():
        assert f"{estimate.value:.4f}" in summary


def test_the_composition_counts_labels_and_files_of_each_split():
    rows = [("train", "a", "x.csv")] * 3 + [("test", "a", "y.csv"), ("train", "b", "x.csv"), ("validation", "b", "x.csv")]
    frame = pl.LazyFrame(rows, schema=["split", "label", "source_file"], orient="row")
    made_of = composition(frame, "text-classification", ["a", "b", "c"])
    assert made_of.untrained == ["c"]
    assert made_of.everything == Part("all examples", 4, 1, 1)
    assert made_of.labels == [Part("a", 3, 0, 1), Part("b", 1, 1, 0)]
    assert made_of.files == [Part("x.csv", 4, 1, 0), Part("y.csv", 0, 0, 1)]


def test_the_composition_of_sets_counts_each_label_of_a_text():
    rows = [("train", '["a","b"]', "x"), ("test", '["b"]', "x"), ("train", "[]", "x")]
    frame = pl.LazyFrame(rows, schema=["split", "label", "source_file"], orient="row")
    made_of = composition(frame, "multi-label-classification")
    assert made_of.everything.total == 3
    assert made_of.labels == [Part("b", 1, 0, 1), Part("a", 1, 0, 0)]
    assert composition(frame, "causal-lm").labels == []


def test_the_composition_sums_up_what_would_be_too_long_a_list():
    rows = [("train", f"label {number:03}", "x") for number in range(SHOWN + 5)]
    made_of = composition(pl.LazyFrame(rows, schema=["split", "label", "source_file"], orient="row"), "text-classification")
    assert [part.name for part in made_of.labels[-2:]] == [f"label {SHOWN - 1:03}", "5 more"]
    assert sum(part.total for part in made_of.labels) == SHOWN + 5
