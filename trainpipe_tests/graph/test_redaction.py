"""A pipeline that redacts: personal data is in no text that is trained on or shown, and the materialization says how much there was."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import SETTINGS, Workplace, make_workplace

SECRET = "ann@example.org"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    cleaning = {**SETTINGS["cleaning"], "redact": ["email", "card"]}
    with dg.DagsterInstance.ephemeral() as instance:
        yield make_workplace(tmp_path, instance, cleaning=cleaning)


def test_personal_data_is_counted_and_shown_nowhere(place: Workplace) -> None:
    private = [(f"w4 w5 {SECRET} w6 4111 1111 1111 1111", "negative"), (f"w40 {SECRET}", "positive"), (f"mail {SECRET}", "neutral")]
    place.land("words.csv", as_csv([*examples(150), *private]))
    result = place.run()
    assert result.success
    events = {event.asset_key.to_user_string(): event.materialization for event in result.get_asset_materialization_events()}
    assert events["cleaned_features"].metadata["redacted"].value == 3
    texts = place.rows("cleaned_features")
    assert texts["n_redacted"].sum() == 3
    assert not texts["text"].str.contains(SECRET, literal=True).any()
    assert texts["text"].str.contains("w4 w5 [EMAIL] w6 [CARD]", literal=True).sum() == 1
    assert place.rows("raw_data")["text"].str.contains(SECRET, literal=True).sum() == 3  # as it arrived
    assert "redact" in events["raw_data"].metadata["preview"].value
    shown = "".join(str(event) for event in result.all_events)
    assert SECRET not in shown
    assert "4111 1111" not in shown  # four digits alone may be part of any identifier
