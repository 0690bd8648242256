"""Where the lake, the landing folder and the base models are, as a resource.

The one place that reads TRAINPIPE_* variables, and only when definitions are built or a run starts.
"""

import os

import dagster as dg
from pydantic import Field

from trainpipe_assets.pipeline.launcher import LocalLauncher
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.uris import absolute, join

DEFAULT_LAKE, DEFAULT_LANDING, DEFAULT_MODELS = "data/lake", "data/landing", "data/models"


class Lake(dg.ConfigurableResource[None]):
    """Names every place in the lake; a relative root is taken from the folder that Dagster was started in."""

    root: str = Field(default=DEFAULT_LAKE, description="Root of tables and models: a local folder or s3://bucket/prefix.")
    landing: str = Field(default=DEFAULT_LANDING, description="Root of the landing folders.")
    models: str = Field(default=DEFAULT_MODELS, description="Folder of base models.")

    def table_uri(self, key: dg.AssetKey) -> str:
        """The Delta table of an asset."""
        return absolute(join(self.root, "tables", *key.path))

    def models_uri(self, key: dg.AssetKey) -> str:
        """The folder that holds the models of an asset, one folder for each fingerprint."""
        return absolute(join(self.root, "models", *key.path))

    def landing_uri(self, source: SourceSettings) -> str:
        """The folder where a pipeline's files arrive."""
        return absolute(join(self.landing, source.uri))


def lake_from_environment() -> Lake:
    """The lake that TRAINPIPE_LAKE, TRAINPIPE_LANDING and TRAINPIPE_MODELS name."""
    return Lake(
        root=os.environ.get("TRAINPIPE_LAKE") or DEFAULT_LAKE,
        landing=os.environ.get("TRAINPIPE_LANDING") or DEFAULT_LANDING,
        models=os.environ.get("TRAINPIPE_MODELS") or DEFAULT_MODELS,
    )


def launcher_from_environment() -> LocalLauncher:
    """The launcher with the compute that TRAINPIPE_DEVICE, _PROCESSES, _PRECISION and _THREADS ask for.

    Raises:
        pydantic.ValidationError: one of them has a value that is not allowed.
    """
    names = ("device", "processes", "precision", "threads", "scratch")
    given = {name: os.environ.get(f"TRAINPIPE_{name.upper()}") for name in names}
    return LocalLauncher.model_validate({name: value for name, value in given.items() if value})
