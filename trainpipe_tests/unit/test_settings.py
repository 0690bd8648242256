"""Settings that contradict each other, or name what is not there, are refused when the definitions load."""

from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from trainpipe_assets.settings import PipelineSettings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cleaning": {"phone_region": "UK"}}, "'UK' is no country .* known are: .*GB"),
        ({"cleaning": {"min_chars": 30_000}}, "cleaning.min_chars is 30,000, and by default no labelled text is longer than 20,000"),
        ({"source": {"delimiter": "é"}}, "an ASCII character other than a line break is expected"),
        ({"source": {"delimiter": "\n"}}, "an ASCII character other than a line break is expected"),
        ({"source": {"quote_char": "\r"}}, "an ASCII character other than a line break is expected"),
        ({"source": {"delimiter": '"'}}, "source.delimiter and source.quote_char of CSV are both"),
        ({"source": {"format": "tsv", "delimiter": "|", "quote_char": "|"}}, "source.delimiter and source.quote_char of TSV are both"),
        ({"source": {"label_column": "text"}}, "source.text_column and source.label_column are both 'text'"),
        ({"split": {"test_files": "[a"}}, "is no pattern of files"),
        ({"owners": "bob"}, "'bob' is no owner: an e-mail address or team:NAME is expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PipelineSettings.model_validate(settings)


def test_what_only_looks_odd_is_allowed() -> None:
    odd: dict[str, Any] = {
        "owners": ["bob@example.org", "team:search"],
        "source": {"format": "tsv", "delimiter": '"'},
        "cleaning": {"phone_region": "GB", "min_chars": 30_000, "max_chars": 50_000},
        "split": {"test_files": "[ab].csv"},
    }
    assert PipelineSettings.model_validate(odd).owners == ("bob@example.org", "team:search")
    dg.AssetsDefinition(specs=[dg.AssetSpec("taken", owners=odd["owners"])])  # nor does Dagster refuse them later
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="owner"):
        dg.AssetsDefinition(specs=[dg.AssetSpec("refused", owners=["bob"])])
