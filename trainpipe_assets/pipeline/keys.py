"""The names of a pipeline's assets in Dagster's catalog."""

from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True)
class PipelineKeys:
    """The asset keys of one pipeline."""

    prefix: tuple[str, ...]

    def __getitem__(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([*self.prefix, name])
