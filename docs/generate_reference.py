"""Writes `docs/reference/settings.md` and `docs/reference/tables.md` from the code, so that they cannot differ from it.

`python docs/generate_reference.py` writes them; `trainpipe_tests/unit/test_reference.py` fails where they are out of date. What a
setting means is said in `settings/`, what a column means in `schemas.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainpipe_assets import schemas
from trainpipe_assets.settings import ComputeSettings, PipelineSettings, Rule, Settings

FOLDER = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/generate_reference.py: change the code and run it again. -->"

SETTINGS_INTRODUCTION = """\
# Settings

The `attributes` of a `defs.yaml`. Every one has a default, so a `defs.yaml` with no `attributes` at all is a pipeline. A key that is
not listed here, or a value out of its bounds, is an error when the definitions load. The same in machine-readable form, for editors:
[defs.schema.json](../defs.schema.json). A free string, such as `source.uri` or `model.base`, may be a template,
such as `"{{ env.REVIEWS_BUCKET }}"`; a number, a choice, or what is checked as it is written (owners, key prefix, encoding, region,
schedules, time zone) may not.
"""

RUN_CONFIG = """\
Each of these is also run config of the step `fine_tuned_model`, with the value of the YAML as its default, and so is one more:
`force` (boolean, default `false`): train even where this very training was done before.
See [Training](../guide/training.md#run-config).
"""

COMPUTE_INTRODUCTION = """\
## Compute

Not part of a `defs.yaml`: the compute is the `launcher` resource's, and is set by environment variables. The definitions do not load
where one has a value that is not allowed.
"""

TABLES_INTRODUCTION = """\
# Tables

All tables but `predictions` are Delta tables at `<lake>/tables/<asset key>`. `row_id` is the key of each table that has it. A row is
immutable: under the same settings the same `row_id` always means the same content. How to read them:
[Querying the lake](../guide/querying-the-lake.md).
"""

TABLES = {
    "RAW_DATA": "One row is a record as it arrived, usable or not. A file that cannot be read at all is one row with its problem.",
    "CLEANED_FEATURES": "One row is a cleaned example. Made together with `rejected_rows`: each `row_id` of `raw_data` is in exactly one "
    "of the two.",
    "REJECTED_ROWS": "One row is a record that did not become an example. The rules are explained in "
    "[Landing data](../guide/landing-data.md#what-becomes-of-a-record).",
    "TOKENIZED_DATASET": "One row is a tokenized example; each row of `cleaned_features` has one.",
    "TOKENIZED_LABEL_SETS": "The form of `tokenized_dataset` where `task` is multi-label-classification. Ids are positions in "
    "`cleaning.labels`, or among the labels found, sorted.",
    "TOKENIZED_TARGETS": "The form of `tokenized_dataset` where `task` is text-regression.",
    "TOKENIZED_DOCUMENTS": "The form of `tokenized_dataset` where `task` is causal-lm. One row is a whole tokenized document; each row of "
    "`cleaned_features` has one. Training cuts it into pieces of `model.max_length`.",
    "DRIFT_REPORT": "The history of comparisons: one row is one arrival against what the model that was the current one was trained on. "
    "[Drift](../guide/drift.md) explains the tests.",
    "LABEL_SET_PREDICTIONS": "The form of `predictions` where `task` is multi-label-classification: one row is one test example of one "
    "evaluation.",
    "TARGET_PREDICTIONS": "The form of `predictions` where `task` is text-regression: one row is one test example of one evaluation.",
    "DOCUMENT_SCORES": "The form of `predictions` where `task` is causal-lm: one row is one test document of one evaluation.",
    "EVAL_REPORT": "The history: one row is one evaluation of one model on one test split. Nothing is ever removed from it.",
    "PREDICTIONS": "One row is one test example of one evaluation. Not a Delta table: one Parquet file for each evaluation, "
    "`<lake>/models/<asset key of fine_tuned_model>/<fingerprint>.reports/<evaluation_id>.predictions.parquet`.",
}


def pages() -> dict[str, str]:
    """Each generated page by its file name."""
    return {"settings.md": settings_page(), "tables.md": tables_page()}


def settings_page() -> str:
    """The reference of all settings."""
    sections = [f"{NOTICE}\n\n{SETTINGS_INTRODUCTION}", *_settings_sections("", PipelineSettings)]
    rows = [(f"`{name}`", f"`TRAINPIPE_{name.upper()}`", *_facts(ComputeSettings, name)) for name in ComputeSettings.model_fields]
    header = ("setting", "variable", "type", "default", "meaning")
    sections[_position(sections, "## split")] = f"{_rules_section()}\n{sections[_position(sections, '## split')]}"
    return "\n".join([*sections, f"{COMPUTE_INTRODUCTION}\n{_markdown(header, rows)}"])


def tables_page() -> str:
    """The reference of all tables."""
    sections = []
    for table, meaning in TABLES.items():
        schema: pl.Schema = getattr(schemas, table)
        meanings = schemas.meanings_of(schema)
        rows = [(f"`{name}`", f"`{dtype}`", meanings[name]) for name, dtype in schema.items()]
        sections.append(f"## {table.lower()}\n\n{meaning}\n\n{_markdown(('column', 'type', 'meaning'), rows)}")
    return "\n".join([f"{NOTICE}\n\n{TABLES_INTRODUCTION}", *sections])


def _settings_sections(path: str, model: type[Settings]) -> Iterator[str]:
    """A section for `model`, and then for each of the models inside it."""
    nested = {name: field.annotation for name, field in model.model_fields.items() if _is_settings(field)}
    plain = [name for name in model.model_fields if name not in nested]
    summary = (model.__doc__ or "").strip().splitlines()[0]
    rows = [(f"`{path}{name}`", *_facts(model, name)) for name in plain]
    title = path.removesuffix(".") or "The pipeline itself"
    note = f"{RUN_CONFIG}\n" if path == "training." else ""
    yield f"## {title}\n\n{summary}\n\n{note}{_markdown(('setting', 'type', 'default', 'meaning'), rows)}"
    for name, inner in (nested | {name: _optional(model.model_fields[name]) for name in plain}).items():
        if inner is not None:
            assert isinstance(inner, type)
            yield from _settings_sections(f"{path}{name}.", inner)


def _position(sections: Sequence[str], beginning: str) -> int:
    return next(number for number, section in enumerate(sections) if section.startswith(beginning))


def _rules_section() -> str:
    """The kinds of validation rules, each with its settings."""
    kinds = [model for model in Rule.__subclasses__() if "kind" in model.model_fields]
    common = [(f"`{name}`", *_facts(Rule, name)) for name in Rule.model_fields]
    parts = [f"Each rule has a `kind` and\n\n{_markdown(('setting', 'type', 'default', 'meaning'), common)}"]
    for model in kinds:
        (kind,) = get_args(model.model_fields["kind"].annotation)
        rows = [(f"`{name}`", *_facts(model, name)) for name in model.model_fields if name not in (*Rule.model_fields, "kind")]
        parts.append(f"`kind: {kind}`: {model.__doc__}\n\n{_markdown(('setting', 'type', 'default', 'meaning'), rows)}")
    return "\n".join(parts)


def _is_settings(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Settings)


def _optional(field: FieldInfo) -> type[Settings] | None:
    """The settings that may be null, as those of LoRA are."""
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, type) and issubclass(choice, Settings)]
    return choices[0] if type(None) in get_args(field.annotation) and choices else None


def _facts(model: type[Settings], name: str) -> tuple[str, str, str]:
    """Type with bounds, default, and meaning of a setting."""
    field = model.model_fields[name]
    schema = model.model_json_schema()["properties"][name]
    default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]  # ours take no argument
    if default is PydanticUndefined:
        assert issubclass(model, Rule), f"{model.__name__}.{name} has no default"
        return _type(schema), "required", str(field.description)
    return _type(schema), f"`{json.dumps(default)}`", str(field.description)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "oneOf" in schema:
        return "rule"
    kind = schema.get("type", "any")
    if "prefixItems" in schema:
        return f"list of {', '.join(_type(item) for item in schema['prefixItems'])}"
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return "mapping of string to string"
    return ", ".join([kind, *_bounds(schema)])


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    for key, text in words.items():
        if key in schema:
            yield text.format(f"{schema[key]:,}" if isinstance(schema[key], int) else f"{schema[key]:g}")
    if schema.get("minLength") == schema.get("maxLength") == 1:
        yield "one character"
    elif schema.get("maxLength") == 1:
        yield "one character or empty"
    elif schema.get("minLength"):
        yield "not empty"


def _markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("&", "&amp;").replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, text in pages().items():
        (FOLDER / file_name).write_text(text, encoding="utf-8")
