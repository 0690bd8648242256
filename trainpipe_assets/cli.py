"""The `trainpipe` command: for what Dagster has no verb for.

Parses, delegates and prints. Materializing, scheduling and browsing are done with `dagster` and `dg`.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
from dotenv import load_dotenv

from trainpipe_assets import __version__

DEFAULT_PIPELINE = "by default the only one, or the one without a key prefix"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trainpipe")
def main() -> None:
    """Land data, fetch the samples, check an installation, see where a training pipeline stands, and ask its model."""
    load_dotenv(Path.cwd() / ".env")  # as Dagster does


@main.command()
@click.option(
    "--folder", default="data/samples", show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Where the corpora go."
)
@click.option("--assistant", is_flag=True, help="Also the language model of the pipeline `assistant`, 98 MB; so too where that is enabled.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def samples(folder: Path, assistant: bool, as_json: bool) -> None:
    """Fetch the sample corpora and the sample base model, checked by SHA-256."""
    from trainpipe_assets.samples import ASSISTANT_MODEL, fetch_samples

    wanted = assistant or any(settings.model.base == ASSISTANT_MODEL for settings in _or_exit(_load_pipelines, None).values())
    fetched = _or_exit(fetch_samples, folder, Path(_lake().models), assistant=wanted)
    models = {"base_model": fetched.base_model, **({"assistant_model": fetched.assistant_model} if fetched.assistant_model else {})}
    report = {**{name: str(path) for name, path in models.items()}, "corpora": {name: str(path) for name, path in fetched.corpora.items()}}
    lines = [
        *(f"{name.replace('_', ' '):<10}  {path}" for name, path in models.items()),
        *(f"corpus      {path}" for path in fetched.corpora.values()),
    ]
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(lines))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pipeline", default=None, help=f"The pipeline whose landing folder takes the files; {DEFAULT_PIPELINE}.")
@click.option("--force", is_flag=True, help="Land a file even if it does not look like one the pipeline can read.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def land(files: tuple[Path, ...], pipeline: str | None, force: bool, as_json: bool) -> None:
    """Check FILES, and those in folders among them, and copy each, whole or not at all, into the landing folder."""
    from trainpipe_assets.data.landing import land as land_files

    source = _or_exit(_load_pipeline, pipeline)[1].source
    landed = _or_exit(land_files, list(files), _lake().landing_uri(source), source, force=force)
    click.echo(json.dumps({"landed": landed}, indent=2) if as_json else "\n".join(f"landed {uri}" for uri in landed))


@main.command()
@click.option("--pipeline", default=None, help="Only this pipeline; by default all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(pipeline: str | None, as_json: bool) -> None:
    """What has arrived, what is pending, the current model and its verdict."""
    from trainpipe_assets.pipeline.status import describe, pipeline_status

    lake = _lake()
    settings = _or_exit(_load_pipelines, pipeline)
    report: dict[str, Any] = {name: _or_exit(pipeline_status, lake, name, chosen) for name, chosen in settings.items()}
    text = "\n\n".join(describe(name, found) for name, found in report.items())
    click.echo(json.dumps({"pipelines": report}, indent=2) if as_json else text)


@main.command()
@click.option("--pipeline", default=None, help="Only this pipeline; by default all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(pipeline: str | None, as_json: bool) -> None:
    """All models, how each was judged, and in what its training differs from the one before."""
    from trainpipe_assets.pipeline.models import describe_models, list_models

    lake = _lake()
    settings = _or_exit(_load_pipelines, pipeline)
    found: dict[str, Any] = {name: _or_exit(list_models, lake, chosen) for name, chosen in settings.items()}
    text = "\n\n".join(describe_models(name, found[name], chosen) for name, chosen in settings.items())
    click.echo(json.dumps({"pipelines": found}, indent=2) if as_json else text)


@main.command()
@click.option("--pipeline", default=None, help=f"The pipeline whose newest evaluation is shown; {DEFAULT_PIPELINE}.")
@click.option("--open", "browse", is_flag=True, help="Open it in the browser.")
def report(pipeline: str | None, browse: bool) -> None:
    """Where the newest evaluation report is; one on S3 is copied to the scratch folder."""
    from trainpipe_assets.pipeline.status import local_report

    path = _or_exit(local_report, _lake(), *_or_exit(_load_pipeline, pipeline))
    click.echo(path)
    if browse and click.launch(path.as_uri()):
        _stop("there is no browser here; open the file above in one")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", default=None, type=click.Path(path_type=Path), help="By default NAME.predictions.csv here; .jsonl, .parquet.")
@click.option("--pipeline", default=None, help=f"The pipeline whose model answers; {DEFAULT_PIPELINE}.")
@click.option("--model", default=None, help="Fingerprint of the model, or its beginning; by default that of the current one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(file: Path, output: Path | None, pipeline: str | None, model: str | None, as_json: bool) -> None:
    """What a model answers to the texts of FILE."""
    from trainpipe_assets.data.sources import without_endings
    from trainpipe_assets.pipeline.predictions import predict as predict_file
    from trainpipe_assets.pipeline.resources import launcher_from_environment

    settings, compute = _or_exit(_load_pipeline, pipeline)[1], _or_exit(launcher_from_environment).compute
    written = output or Path(f"{without_endings(file.name)}.predictions.csv")
    done = _or_exit(predict_file, file, written, _lake(), settings, compute, model)
    unanswered = f", {done.problems:,} of which have a problem instead of an answer" if done.problems else ""
    text = f"{done.output}: {done.records:,} records{unanswered}\nby the model {done.model}"
    click.echo(json.dumps(asdict(done), indent=2) if as_json else text)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Try all that a run needs, and say what is wrong; exit code 1 if a run would fail."""
    from trainpipe_assets.pipeline import doctor as checks

    findings = []
    for finding in checks.examine():
        findings.append(finding)
        if not as_json:
            click.echo(checks.describe(finding))
    if as_json:
        click.echo(json.dumps(checks.as_json(findings), indent=2))
    raise SystemExit(1 if checks.failed(findings) else 0)


@main.command()
def schema() -> None:
    """Print the JSON schema of a pipeline's defs.yaml, for editors."""
    from trainpipe_assets.settings import defs_schema

    click.echo(json.dumps(defs_schema(), indent=2))


def _lake() -> Any:
    from trainpipe_assets.pipeline.resources import lake_from_environment

    return _or_exit(lake_from_environment)


def _load_pipelines(only: str | None) -> Any:
    from trainpipe_assets.pipeline.status import load_pipelines

    return load_pipelines(only)


def _load_pipeline(name: str | None) -> Any:
    from trainpipe_assets.pipeline.status import load_pipeline

    return load_pipeline(name)


def _or_exit(action: Any, *arguments: Any, **options: Any) -> Any:
    """The result of `action`; a mistake that a person can mend ends the command with its one message."""
    try:
        return action(*arguments, **options)
    except Exception as error:  # libraries raise what disks and servers refuse as errors of many kinds
        from trainpipe_assets.pipeline.failures import message_of

        message = message_of(error) or (str(error) if isinstance(error, OSError) else None)
        if message is None:
            raise
        _stop(message)


def _stop(message: str) -> NoReturn:
    click.echo(f"trainpipe: {message}", err=True)
    raise SystemExit(2)
