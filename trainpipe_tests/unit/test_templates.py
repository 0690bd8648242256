"""What of a `defs.yaml` is a template, and what it comes to."""

import re
from typing import Any

import pytest

from trainpipe_assets.pipeline.templates import Key, filled

SCOPE = {"env": {"YEAR": "2024", "BUCKET": "b", "MISSING": None}}


def where(path: tuple[Key, ...]) -> str:
    return f"defs.yaml:7: {'.'.join(map(str, path))}"


AS_WRITTEN = [
    "1",
    "0x10",
    "1e5",
    "None",
    "True",
    "'a'",
    '"spam"',
    "[0]",
    r"\{{2}",
    "{#.*#}",
    "{%",
    r"a\n",
    "x\n",
    " y ",
    "",
    1,
    0.5,
    None,
    True,
]


@pytest.mark.parametrize("value", AS_WRITTEN)
def test_what_names_nothing_stays_as_it_is_written(value: Any) -> None:
    assert filled({"labels": [value]}, SCOPE, where) == {"labels": [value]}


def test_a_template_is_filled_in_as_text() -> None:
    written = {"uri": "{{ env.YEAR }}", "more": ["s3://{{env.BUCKET}}/{{ env.YEAR|int + 1 }}\n"]}
    assert filled(written, SCOPE, where) == {"uri": "2024", "more": ["s3://b/2025\n"]}


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("s3://{{ env.MISSING }}/x", "names a variable that is not set; set it, or write the value itself"),
        ("{{ nowhere.column }}", "cannot be filled in: 'nowhere' is undefined"),
        ("{{ env.YEAR + }}", "cannot be filled in: unexpected 'end of print statement'"),
    ],
)
def test_a_template_that_comes_to_nothing_is_told_by_its_place(template: str, told: str) -> None:
    message = f"defs.yaml:7: source.columns.1: the template {template!r} {told}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        filled({"source": {"columns": ["text", template]}}, SCOPE, where)
