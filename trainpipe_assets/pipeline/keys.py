"""The names of a pipeline's assets and jobs in Dagster's catalog."""

from dataclasses import dataclass

import dagster as dg

DATA = ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")
MODEL = ("fine_tuned_model", "eval_report")
MONITORS = ("drift_report",)
ASSETS = (*DATA, *MONITORS, *MODEL)
TABLES = (*DATA, *MONITORS, "eval_report")  # all but the models
JOBS = ("ingest", "prepare", "retrain")


@dataclass(frozen=True)
class PipelineKeys:
    """The asset keys of one pipeline."""

    prefix: tuple[str, ...]

    def __getitem__(self, name: str) -> dg.AssetKey:
        return dg.AssetKey([*self.prefix, name])
