"""Where the pipelines are declared; where the lake, the landing folder and the base models are, as a resource.

The one place that reads TRAINPIPE_* variables, and only when definitions are built or a run starts.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from trainpipe_assets.pipeline.failures import one_line
from trainpipe_assets.pipeline.launcher import LocalLauncher
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.uris import CHECKPOINTS, MODELS, TABLES, absolute, is_remote, is_s3, join

DEFAULT_LAKE, DEFAULT_LANDING, DEFAULT_MODELS, DEFAULT_SCRATCH = "data/lake", "data/landing", "data/models", "data/scratch"
DEFAULT_PIPELINES = Path(__file__).parents[1] / "defs"


class Lake(dg.ConfigurableResource[None]):
    """Names every place in the lake; a relative root is taken from the folder that Dagster was started in."""

    root: str = Field(default=DEFAULT_LAKE, description="Root of tables and models: a local folder or s3://bucket/prefix.")
    landing: str = Field(default=DEFAULT_LANDING, description="Root of the landing folders.")
    models: str = Field(default=DEFAULT_MODELS, description="Local folder of base models.")
    scratch: str = Field(default=DEFAULT_SCRATCH, description="Local folder for what a step sets down while it works.")

    @field_validator("root", "landing")
    @classmethod
    def _known_place(cls, uri: str) -> str:
        if is_remote(uri) and not is_s3(uri):
            raise ValueError("it is neither a local folder nor an s3:// URI")
        return uri

    @field_validator("root")
    @classmethod
    def _readable_place(cls, uri: str) -> str:
        if "%" in absolute(uri):
            raise ValueError(f"{absolute(uri)} holds a %, which the Delta Lake library takes for the beginning of an encoded character")
        if odd := re.search(r"::|\\|[\x00-\x1f]" + (r"|[?#]" if is_remote(uri) else ""), absolute(uri)):
            raise ValueError(f"{absolute(uri)!r} holds {odd[0]!r}, which libraries of storage take for something else; name another place")
        return uri

    @field_validator("models", "scratch")
    @classmethod
    def _local_folder(cls, folder: str, field: ValidationInfo) -> str:
        if is_remote(folder):
            why = {"models": "base models are read from local disk", "scratch": "steps set down files on local disk"}[str(field.field_name)]
            raise ValueError(f"it is not a local folder; {why}")
        return folder

    def table_uri(self, key: dg.AssetKey) -> str:
        """The Delta table of an asset."""
        return absolute(join(self.root, TABLES, *key.path))

    def models_uri(self, key: dg.AssetKey) -> str:
        """The folder that holds the models of an asset, one folder for each fingerprint."""
        return absolute(join(self.root, MODELS, *key.path))

    def checkpoints_uri(self, key: dg.AssetKey, fingerprint: str) -> str | None:
        """Where the checkpoints of a training of an asset are kept while it is under way; None where the lake is as local as they are."""
        folder = self.all_checkpoints_uri(key)
        return None if folder is None else join(folder, fingerprint)

    def all_checkpoints_uri(self, key: dg.AssetKey) -> str | None:
        """Where those of all trainings of an asset are, likewise."""
        return absolute(join(self.root, CHECKPOINTS, *key.path)) if is_remote(self.root) else None

    def landing_uri(self, source: SourceSettings) -> str:
        """The folder where a pipeline's files arrive."""
        return absolute(join(self.landing, source.uri))


def pipelines_folder() -> Path:
    """The folder whose subfolders with a `defs.yaml` are the pipelines: that of TRAINPIPE_PIPELINES, else the shipped `defs/`.

    Raises:
        ValueError: there is no such folder.
    """
    given = os.environ.get("TRAINPIPE_PIPELINES")
    folder = Path(given).absolute() if given else DEFAULT_PIPELINES
    if not folder.is_dir():
        raise ValueError(
            f"TRAINPIPE_PIPELINES: found {given!r}, which is no folder. It has to name one whose subfolders hold a defs.yaml each; "
            "without it, the pipelines that come with trainpipe are taken"
        )
    return folder


def lake_from_environment() -> Lake:
    """The lake that TRAINPIPE_LAKE, TRAINPIPE_LANDING, TRAINPIPE_MODELS and TRAINPIPE_SCRATCH name.

    AWS_REGION is made known to boto3, which looks for AWS_DEFAULT_REGION only.

    Raises:
        ValueError: one of them names a place that cannot be used; or AWS_S3_ALLOW_UNSAFE_RENAME is set, by which commits to a lake on S3
            would be lost.
    """
    root = os.environ.get("TRAINPIPE_LAKE") or DEFAULT_LAKE
    unsafe = os.environ.get("AWS_S3_ALLOW_UNSAFE_RENAME", "")
    if is_s3(root) and unsafe.lower() not in ("", "0", "false", "no"):
        raise ValueError(
            f"AWS_S3_ALLOW_UNSAFE_RENAME is {unsafe!r}: with it, two runs that commit to {root} at once both succeed and the rows of one "
            "are lost. Remove it from the environment; commits are conditional puts here and need no such option"
        )
    if region := os.environ.get("AWS_REGION"):
        os.environ.setdefault("AWS_DEFAULT_REGION", region)
    with _told_by_variable(root="TRAINPIPE_LAKE"):
        return Lake(
            root=root,
            landing=os.environ.get("TRAINPIPE_LANDING") or DEFAULT_LANDING,
            models=os.environ.get("TRAINPIPE_MODELS") or DEFAULT_MODELS,
            scratch=os.environ.get("TRAINPIPE_SCRATCH") or DEFAULT_SCRATCH,
        )


def launcher_from_environment() -> LocalLauncher:
    """The launcher with the compute that TRAINPIPE_DEVICE, _PROCESSES, _SHARDING, _PRECISION, _THREADS and _PRICE_PER_HOUR speak of.

    Raises:
        ValueError: one of them has a value that is not allowed.
    """
    names = ("device", "processes", "sharding", "precision", "threads", "price_per_hour", "scratch")
    given = {name: os.environ.get(f"TRAINPIPE_{name.upper()}") for name in names}
    with _told_by_variable():
        return LocalLauncher.model_validate({name: value for name, value in given.items() if value})


@contextmanager
def _told_by_variable(**others: str) -> Iterator[None]:
    """Name the variable, not the field, where a value is refused; `others` are those that are not named after their field."""
    try:
        yield
    except ValidationError as error:
        fields = [str(item["loc"][0]) for item in error.errors() if item["loc"]]
        raise ValueError(one_line(error, {field: others.get(field, f"TRAINPIPE_{field.upper()}") for field in fields})) from None
