"""Whether an installation can do its work: each thing that a run needs is tried, and what is wrong with it is said in one line.

Looks and tries only: nothing is repaired, and what a trial writes it takes away again. What the checks mean is in their remedies.
"""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import dagster as dg
import yaml
from packaging.requirements import Requirement
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.pipeline.failures import one_line
from trainpipe_assets.pipeline.launcher import LocalLauncher
from trainpipe_assets.pipeline.resources import Lake, lake_from_environment, launcher_from_environment
from trainpipe_assets.pipeline.status import load_pipelines
from trainpipe_assets.settings import PipelineSettings, SourceSettings
from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.model_cache import cache_folder
from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.s3_problems import S3Problem
from trainpipe_assets.storage.uris import absolute, is_s3, open_filesystem

Verdict = Literal["ok", "warn", "fail"]

SHOWN = ("dagster", "polars", "deltalake", "torch", "transformers", "s3fs")  # libraries whose versions are printed
FREE_WARN_BYTES, FREE_FAIL_BYTES = 5 * 1024**3, 512 * 1024**2
COMPUTE_SECONDS = 180.0  # torch takes seconds to import, more on a cold disk
MISTAKES = (ValueError, OSError, dg.DagsterError)

# Run in a process of its own, because torch is imported there only.
_COMPUTE = """
import dataclasses, json, sys
from trainpipe_assets.settings import ComputeSettings
from trainpipe_assets.training.compute import resolve_compute
settings = ComputeSettings.model_validate_json(sys.argv[1])
try:
    print(json.dumps(dataclasses.asdict(resolve_compute(settings, settings.processes))))
except ValueError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class Finding:
    """What came of one check, and what to do about it where it is not `ok`."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Every check in turn, as its result is known."""
    yield check_python()
    yield check_libraries()
    lake = _attempt("settings", lake_from_environment)
    launcher = _attempt("settings", launcher_from_environment)
    pipelines = _attempt("pipelines", load_pipelines)
    yield from (found for found in (lake, launcher, pipelines) if isinstance(found, Finding))
    if isinstance(pipelines, dict):
        yield Finding("pipelines", "ok" if pipelines else "warn", ", ".join(pipelines) or "none", "" if pipelines else "add a defs.yaml")
    if isinstance(lake, Lake):
        yield from check_places(lake, pipelines if isinstance(pipelines, dict) else {})
    if isinstance(launcher, LocalLauncher):
        yield check_compute(launcher)
        yield _guarded("scratch", check_writable, absolute(launcher.scratch))
        yield _guarded("disk for scratch", check_disk, Path(launcher.scratch))
    yield check_dagster_home()


def describe(finding: Finding, width: int = 22) -> str:
    """One finding on one line."""
    line = f"{finding.verdict:<4}  {finding.check:<{width}}  {' '.join(finding.found.split())}"
    return f"{line} → {finding.remedy}" if finding.remedy else line


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """The findings ready for JSON."""
    return {"ok": not failed(findings), "checks": [asdict(finding) for finding in findings]}


def failed(findings: list[Finding]) -> bool:
    """Whether anything has to be mended before a run can succeed."""
    return any(finding.verdict == "fail" for finding in findings)


def _attempt(check: str, action: Callable[[], Any]) -> Any:
    """The result of `action`, or the finding that it failed."""
    try:
        return action()
    except ValidationError as error:
        return Finding(check, "fail", one_line(error), "correct the value")
    except (*MISTAKES, yaml.YAMLError, SQLAlchemyError) as error:
        return Finding(check, "fail", str(error) or type(error).__name__)


def _guarded(check: str, action: Callable[..., Finding], *arguments: Any) -> Finding:
    """The finding of `action(check, *arguments)`, whatever becomes of it."""
    found: Finding = _attempt(check, functools.partial(action, check, *arguments))
    return found


def check_python() -> Finding:
    """Whether this Python is one that the package is for."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Finding("python", "ok", found)
    return Finding("python", "fail", found, "use Python 3.11 or 3.12")


def check_libraries() -> Finding:
    """Whether the installed libraries are of the versions that the package asks for."""
    try:
        requirements = [Requirement(line) for line in metadata.requires("trainpipe") or []]
    except metadata.PackageNotFoundError:
        return Finding("libraries", "warn", "the package trainpipe is not installed", "run make setup, or pip install --editable .")
    wrong = [text for wanted in requirements if (text := _unmet(wanted)) is not None]
    if wrong:
        return Finding("libraries", "fail", "; ".join(wrong), "run make setup, or pip install --constraint constraints.txt --editable .")
    return Finding("libraries", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN))


def _unmet(wanted: Requirement) -> str | None:
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return None
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    return None if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} is {found}, wanted is {wanted.specifier}"


def check_places(lake: Lake, pipelines: dict[str, PipelineSettings]) -> Iterator[Finding]:
    """Lake, landing folders and base models, and what S3 needs where one of them is there."""
    root = absolute(lake.root)
    landings = {name: lake.landing_uri(settings.source) for name, settings in pipelines.items()}
    if any(map(is_s3, (root, *landings.values()))):
        yield _guarded("credentials", check_credentials)
    yield _guarded("lake", check_lake, root)
    if is_s3(root):
        yield _guarded("conditional puts", check_conditional_puts, root)
        yield _guarded("disk for model cache", check_disk, cache_folder())
    else:
        yield _guarded("disk for lake", check_disk, Path(root))
    for name, settings in pipelines.items():
        yield _guarded(f"landing of {name}", check_landing, landings[name], settings.source)
        yield _guarded(f"base model of {name}", check_base_model, settings.model.base, lake.models)


def check_credentials(check: str) -> Finding:
    """Where AWS credentials come from. They themselves are never shown."""
    from trainpipe_assets.storage import s3_client

    source = s3_client.credentials_source()
    if source is None:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
        return Finding(check, "fail", "no AWS credentials were found", remedy)
    return Finding(check, "ok", f"found in {source}, for {s3_client.endpoint()}")


def check_conditional_puts(check: str, root: str) -> Finding:
    """Whether the S3 server keeps two commits from overwriting each other."""
    from trainpipe_assets.storage.conditional_puts import require_conditional_puts

    proof = require_conditional_puts(root)
    assert proof is not None
    return Finding(check, "ok", f"honoured by {proof.endpoint}, proven {proof.proven_at}")


def check_lake(check: str, uri: str) -> Finding:
    """Whether a lake can be written to; on local disk also every table, log and model that is in it, which another user may have made."""
    found = check_writable(check, uri)
    if is_s3(uri) or found.verdict != "ok":
        return found
    folders = (Path(root, name) for root, names, _ in os.walk(uri) for name in names)
    closed = next((folder for folder in folders if not _is_open(folder)), None)
    return found if closed is None else _closed(check, closed)


def check_writable(check: str, uri: str) -> Finding:
    """Whether a file can be written to a place, read back and removed."""
    if not is_s3(uri):
        return _check_folder(check, Path(uri))
    filesystem, path = open_filesystem(f"{uri}/_trial-{uuid4().hex[:12]}")
    with explained(uri):
        filesystem.pipe_file(path, b"a trial of trainpipe doctor")
        filesystem.cat_file(path)
        filesystem.rm_file(path)
    return Finding(check, "ok", f"{uri}: reachable, writable")


def _nearest(folder: Path) -> Path:
    """What is there of `folder`: itself, or that in which it will be made."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _check_folder(check: str, folder: Path) -> Finding:
    existing = _nearest(folder)
    if not existing.is_dir():
        return Finding(check, "fail", f"{existing} is not a folder", "correct the variable that names it: a folder is expected")
    if not _is_open(existing):
        return _closed(check, existing)
    return Finding(check, "ok", f"{folder}: writable" if existing == folder else f"{folder}: not there yet, will be made in {existing}")


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def _closed(check: str, folder: Path) -> Finding:
    return Finding(check, "fail", f"{folder}: this user may not write there", "grant it, or name another place")


def check_landing(check: str, uri: str, source: SourceSettings) -> Finding:
    """Whether a landing folder is there and can be read; writing to it is only `trainpipe land`'s need."""
    if not is_s3(uri) and not Path(uri).is_dir():
        if not _nearest(Path(uri)).is_dir():
            return _check_folder(check, Path(uri))
        return Finding(check, "warn", f"{uri} is not there yet", "land a file: trainpipe land FILE")
    files = f"{uri}: {len(list_landed(uri, source)):,} file(s)"
    try:
        writable = check_writable(check, uri)
    except S3Problem as problem:
        writable = Finding(check, "warn", str(problem))
    if writable.verdict == "ok":
        return Finding(check, "ok", f"{files}, writable")
    remedy = "trainpipe land cannot be used here; others may land files"
    return Finding(check, "warn", f"{files}, not writable: {writable.found}", remedy)


def check_base_model(check: str, name: str, models: str) -> Finding:
    """Whether the base model is on this machine, whole."""
    found = _attempt(check, lambda: base_models.resolve(name, models, download=False))
    if isinstance(found, base_models.BaseModel):
        return Finding(check, "ok", f"{name} in {found.folder}")
    assert isinstance(found, Finding)
    if name.startswith("samples/"):
        return Finding(check, "fail", found.found, "run: trainpipe samples")
    return Finding(check, "warn", found.found, "the first run fetches it from the Hugging Face hub, if the name is right")


def check_compute(launcher: LocalLauncher) -> Finding:
    """The device, precision and threads that training would get, resolved by the training program's own code in its own process."""
    command = [sys.executable, "-c", _COMPUTE, launcher.compute.model_dump_json()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPUTE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding("compute", "fail", f"torch did not answer within {COMPUTE_SECONDS:.0f} s", "is the machine overloaded?")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Finding("compute", "fail", said[-1] if said else f"exit code {done.returncode}", "correct TRAINPIPE_DEVICE and its like")
    found = json.loads(done.stdout.splitlines()[-1])
    each = f" each, {launcher.processes} processes" if launcher.processes > 1 else ""
    return Finding("compute", "ok", f"{found['device']}, {found['precision']}, {found['threads']} thread(s){each}")


def check_disk(check: str, folder: Path) -> Finding:
    """Free space where `folder` is or will be."""
    existing = _nearest(folder.absolute())
    free = shutil.disk_usage(existing).free
    found = f"{free / 1024**3:.1f} GiB free at {existing}"
    verdict: Verdict = "fail" if free < FREE_FAIL_BYTES else "warn" if free < FREE_WARN_BYTES else "ok"
    return Finding(check, verdict, found, "" if verdict == "ok" else "make room, or name another place")


def check_dagster_home() -> Finding:
    """Whether Dagster has an instance that lasts, whose configuration it accepts."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return Finding("DAGSTER_HOME", "warn", "not set: the history of runs is not kept", "set it to an absolute folder, as make does")
    if not Path(home).is_absolute() or not Path(home).is_dir():
        return Finding("DAGSTER_HOME", "fail", f"{home} is not an absolute path of a folder", "make the folder, or correct DAGSTER_HOME")
    configured = (Path(home) / "dagster.yaml").is_file()
    opened = _attempt("DAGSTER_HOME", _open_instance)
    if isinstance(opened, Finding):
        return Finding(opened.check, "fail", f"{home}: {opened.found}", "correct dagster.yaml there")
    if not configured:
        return Finding("DAGSTER_HOME", "warn", f"{home} has no dagster.yaml", "copy dagster.yaml there: it bounds what runs at once")
    return Finding("DAGSTER_HOME", "ok", f"{home}: dagster.yaml is valid, {opened} run(s) on record")


def _open_instance() -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count()
