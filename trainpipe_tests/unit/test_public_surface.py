"""What others rely on changes only on purpose: settings, tables, the command line, and what the shipped definitions are called.

A test that fails here asks whether the change is meant. If it is, write it into CHANGELOG.md and take the new surface with

    python -m trainpipe_tests.unit.test_public_surface --update

which rewrites `public_surface.json` beside this file and `docs/defs.schema.json`; the difference then shows in the review.
"""

import json
import sys
from pathlib import Path
from typing import Any

import click
import dagster as dg
import polars as pl
import pytest

from trainpipe_assets import schemas
from trainpipe_assets.cli import main
from trainpipe_assets.definitions import defs
from trainpipe_assets.settings import defs_schema

SNAPSHOT = Path(__file__).with_name("public_surface.json")
SCHEMA = Path(__file__).parents[2] / "docs" / "defs.schema.json"
ADVICE = "if that is meant: python -m trainpipe_tests.unit.test_public_surface --update"


def tables() -> dict[str, dict[str, str]]:
    """Columns and dtypes of each table, in order."""
    found = {name: value for name, value in vars(schemas).items() if isinstance(value, pl.Schema)}
    return {name.lower(): {column: str(dtype) for column, dtype in schema.items()} for name, schema in sorted(found.items())}


def command_line() -> dict[str, dict[str, dict[str, Any]]]:
    """Arguments and options of each `trainpipe` verb."""
    return {
        name: {_spelling(parameter): _described(parameter, click.Context(verb)) for parameter in verb.params}
        for name, verb in sorted(main.commands.items())
    }


def _spelling(parameter: click.Parameter) -> str:
    return " ".join(parameter.opts) if isinstance(parameter, click.Option) else str(parameter.name).upper()


def _described(parameter: click.Parameter, context: click.Context) -> dict[str, Any]:
    default = None if parameter.required else parameter.get_default(context)
    return {
        "type": parameter.type.name,
        "required": parameter.required,
        "nargs": parameter.nargs,
        "default": str(default) if isinstance(default, Path) else default,
    }


def definitions() -> dict[str, Any]:
    """Keys, groups, kinds and upstream assets of the assets, and the names of all else that the shipped pipeline defines."""
    loaded: dg.Definitions = defs()
    repository = loaded.get_repository_def()
    checks = loaded.resolve_asset_graph().asset_check_keys
    return {
        "assets": {
            spec.key.to_user_string(): {
                "group": spec.group_name,
                "kinds": sorted(spec.kinds),
                "upstream": sorted(dependency.asset_key.to_user_string() for dependency in spec.deps),
            }
            for spec in sorted(loaded.resolve_all_asset_specs(), key=lambda spec: spec.key)
        },
        "checks": sorted(check.to_user_string() for check in checks),
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
        "resources": sorted(loaded.resources or {}),
    }


PARTS = {"tables": tables, "command_line": command_line, "definitions": definitions}


@pytest.mark.parametrize("part", PARTS)
def test_the_surface_is_the_one_written_down(part: str) -> None:
    written = json.loads(SNAPSHOT.read_text(encoding="utf-8"))[part]
    assert PARTS[part]() == written, f"the public surface changed ({part}); {ADVICE}"


def test_columns_keep_their_order() -> None:
    written = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["tables"]
    assert {name: list(columns) for name, columns in tables().items()} == {name: list(columns) for name, columns in written.items()}, ADVICE


def test_the_settings_are_those_of_the_published_schema() -> None:
    assert defs_schema() == json.loads(SCHEMA.read_text(encoding="utf-8")), f"the settings changed; {ADVICE}"


def update() -> None:
    """Take the surface as it is now."""
    surface = {part: look() for part, look in PARTS.items()}
    SNAPSHOT.write_text(json.dumps(surface, indent=1) + "\n", encoding="utf-8")
    SCHEMA.write_text(json.dumps(defs_schema(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(f"usage: python -m {__spec__.name} --update")
    update()
