"""A person's first hour in the Dagster UI, in a real browser: switch the sensor, materialize all, look at model and report.

The tests build on one another, in order: one webserver, one run.
"""

from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Locator, Page, expect

from trainpipe_assets.samples import Samples
from trainpipe_tests.programs import wait_until
from trainpipe_tests.ui.webserver import Webserver

ASSETS = ("raw_data", "cleaned_features", "rejected_rows", "drift_report", "tokenized_dataset", "fine_tuned_model", "eval_report")
ROWS = 240
RUN_SECONDS = 400.0
SENSOR_QUERY = (
    '{ sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: "trainpipe", '
    'sensorName: "reviews_new_data"}) { ... on Sensor { sensorState { status } } } }'
)


@pytest.fixture(scope="module")
def landed(samples: Samples, webserver: Webserver) -> int:
    """Every n-th of the movie reviews, landed; how many."""
    reviews = pl.read_csv(samples.corpora["movies"]).gather_every(40).head(ROWS)
    webserver.place.land("movies.csv", reviews.write_csv().encode())
    return reviews.height


def test_sensor_and_schedule_are_on_and_can_be_switched_off(page: Page, webserver: Webserver, pictures: Path) -> None:
    page.goto("/automation")
    for name in ("reviews_new_data", "reviews_nightly", "run_failure_alert"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.goto("/locations/trainpipe/sensors/reviews_new_data")
    expect(page.get_by_text("Retrains when new data has arrived", exact=False)).to_be_visible()
    assert _sensor_status(webserver) == "RUNNING"
    page.get_by_role("row", name="Running").locator("label").click()
    page.screenshot(path=pictures / "sensor.png")
    wait_until(lambda: _sensor_status(webserver) == "STOPPED", 60, "the sensor is stopped")


def test_materialize_all_runs_the_whole_graph(page: Page, webserver: Webserver, landed: int, pictures: Path) -> None:
    page.goto("/asset-groups")
    for asset in ASSETS:
        expect(_node(page, asset)).to_be_visible()
    page.screenshot(path=pictures / "graph_before.png")
    assert webserver.runs() == []
    page.get_by_role("button", name="Materialize all").click()
    wait_until(lambda: len(webserver.runs()) == 1, 60, "the click makes a run")
    (run,) = webserver.runs()
    assert {entry["path"][-1] for entry in run["assetSelection"]} == set(ASSETS)
    wait_until(lambda: webserver.runs()[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED"), RUN_SECONDS, "the run ends")
    assert webserver.runs()[0]["status"] == "SUCCESS", webserver.log.read_text()[-5000:]
    page.goto(f"/runs/{run['runId']}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    expect(page.get_by_text("Loading run logs")).to_have_count(0)
    page.screenshot(path=pictures / "run.png")
    page.goto("/assets")
    expect(page.get_by_text("Materialized", exact=True)).to_have_count(len(ASSETS))
    page.screenshot(path=pictures / "catalog.png")
    page.goto("/asset-groups")
    for asset in ASSETS:
        expect(_node(page, asset)).to_be_visible()
    page.wait_for_timeout(3000)  # the colours of the graph come last; only the picture needs them
    page.screenshot(path=pictures / "graph_after.png")
    assert webserver.place.table("raw_data").rows == landed
    assert webserver.place.table("cleaned_features").rows + webserver.place.table("rejected_rows").rows == landed


def test_a_table_shows_rows_columns_and_checks(page: Page, landed: int, pictures: Path) -> None:
    page.goto("/assets/raw_data")
    expect(page.get_by_text("Every record that arrived")).to_be_visible()
    expect(page.get_by_text(f"{landed:,}", exact=True).first).to_be_visible()
    for column in ("row_id", "source_file", "problem"):
        expect(page.get_by_text(column, exact=True).first).to_be_visible()
    page.screenshot(path=pictures / "raw_data.png")
    page.goto("/assets/cleaned_features?view=checks")
    checks = ("rows_are_conserved", "splits_do_not_leak", "few_records_are_rejected")
    for check in checks:
        expect(page.get_by_text(check, exact=True).first).to_be_visible()
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(len(checks))
    page.screenshot(path=pictures / "checks.png")


def test_the_model_shows_its_training_curves(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 1440, "height": 1800})
    page.goto("/assets/fine_tuned_model")
    for key in ("validation_accuracy", "examples_per_second", "base_model", "manifest", "model_uri"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.screenshot(path=pictures / "fine_tuned_model.png")
    _open_picture(page, "training_curves")
    page.screenshot(path=pictures / "training_curves.png")


def test_the_report_shows_metrics_pictures_and_the_verdict(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 1440, "height": 2200})
    page.goto("/assets/eval_report")
    for key in ("accuracy", "macro_f1", "gate_passed", "gate_reasons", "test_examples", "report"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.screenshot(path=pictures / "eval_report.png")
    for key in ("confusion_matrix", "reliability"):
        _open_picture(page, key)
        page.screenshot(path=pictures / f"{key}.png")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto("/assets/eval_report?view=checks")
    expect(page.get_by_text("The verdict of the gate on the newest evaluation.")).to_be_visible()
    page.screenshot(path=pictures / "gate.png")


def test_the_image_s_stop_signal_ends_every_service(webserver: Webserver) -> None:
    assert webserver.is_healthy()
    assert webserver.stop() == 0, webserver.log.read_text()[-3000:]
    wait_until(webserver.is_gone, 60, "all processes are gone")
    assert not webserver.is_healthy()


def _node(page: Page, asset: str) -> Locator:
    """The node of an asset in the graph, not its entry in the list beside it."""
    return page.locator("foreignObject").get_by_text(asset, exact=True).first


def _open_picture(page: Page, key: str) -> None:
    """Open the picture that is the value of `key`: drawn, and in full view."""
    page.get_by_role("row").filter(has=page.get_by_text(key, exact=True)).get_by_text("[Show Markdown]").click()
    image = page.get_by_role("dialog").locator("img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth > 300"), f"{key} is not drawn"
    inside = "image => image.getBoundingClientRect().right <= image.closest('[role=dialog]').getBoundingClientRect().right"
    assert image.evaluate(inside), f"{key} is wider than its dialog: {image.bounding_box()}"


def _sensor_status(webserver: Webserver) -> str:
    status: str = webserver.ask(SENSOR_QUERY)["sensorOrError"]["sensorState"]["status"]
    return status
