"""The entry point: every pipeline in the folder of pipelines, and what they share."""

import functools
import warnings

import dagster as dg

from trainpipe_assets.pipeline.automation import run_failure_alert
from trainpipe_assets.pipeline.component import component_tree
from trainpipe_assets.pipeline.declared import pipeline_files
from trainpipe_assets.pipeline.executor import signing_in_process_executor
from trainpipe_assets.pipeline.failures import ending_with_one_message
from trainpipe_assets.pipeline.io_managers import DeltaIOManager, ModelIOManager
from trainpipe_assets.pipeline.resources import lake_from_environment, launcher_from_environment, pipelines_folder


@dg.definitions
@functools.cache
def defs() -> dg.Definitions:
    """All definitions of this code location; made once for the process, where a single run asks for them six times."""
    _expect_beta()
    with ending_with_one_message():
        return dg.Definitions.merge(_pipelines(), shared())


def shared(executor: dg.ExecutorDefinition | None = signing_in_process_executor) -> dg.Definitions:
    """What pipelines need beside themselves, to be merged into a code location of one's own: resources, the alert, and the executor, which
    is then that of all jobs of the location; None where it has one.

    The resources are `lake`, `launcher`, `delta_io_manager` and `model_io_manager`. A TRAINPIPE_* variable that cannot be used ends the
    loading with one message.
    """
    _expect_beta()
    with ending_with_one_message():
        lake, launcher = lake_from_environment(), launcher_from_environment()
    return dg.Definitions(
        resources={
            "lake": lake,
            "launcher": launcher,
            "delta_io_manager": DeltaIOManager(lake=lake),
            "model_io_manager": ModelIOManager(lake=lake),
        },
        sensors=[run_failure_alert],
        executor=executor,
    )


def _expect_beta() -> None:
    """Data versions and code references are used on purpose."""
    warnings.filterwarnings("ignore", category=dg.BetaWarning)


def _pipelines() -> dg.Definitions:
    """What the folder of pipelines defines.

    `dg.load_from_defs_folder` would also import every component type of every installed package, to list them to Dagster+: half
    the time of loading. Nor does it say well, or at all, which files cannot live together.
    """
    folder = pipelines_folder()
    pipeline_files(folder)
    tree = component_tree(folder)
    return dg.Definitions.merge(tree.build_defs(tree.defs_module_path), dg.Definitions(component_tree=tree))
