"""The entry point: every pipeline under `defs/`, and the resources they share."""

import warnings
from pathlib import Path

import dagster as dg

from trainpipe_assets.pipeline.automation import run_failure_alert
from trainpipe_assets.pipeline.executor import signing_in_process_executor
from trainpipe_assets.pipeline.io_managers import DeltaIOManager, ModelIOManager
from trainpipe_assets.pipeline.resources import lake_from_environment, launcher_from_environment


@dg.definitions
def defs() -> dg.Definitions:
    """All definitions of this code location."""
    warnings.filterwarnings("ignore", category=dg.BetaWarning)  # data versions and code references: used on purpose
    lake = lake_from_environment()
    shared = dg.Definitions(
        resources={
            "lake": lake,
            "launcher": launcher_from_environment(),
            "delta_io_manager": DeltaIOManager(lake=lake),
            "model_io_manager": ModelIOManager(lake=lake),
        },
        sensors=[run_failure_alert],
        executor=signing_in_process_executor,
    )
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), shared)
