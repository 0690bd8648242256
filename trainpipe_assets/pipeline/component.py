"""The component: one folder under `defs/` with a `defs.yaml` becomes one training pipeline."""

import re
import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
from pydantic import BaseModel

from trainpipe_assets.pipeline.assets import build_assets
from trainpipe_assets.pipeline.automation import build_automation
from trainpipe_assets.pipeline.checks import build_checks
from trainpipe_assets.pipeline.failures import shortened
from trainpipe_assets.pipeline.maintenance import build_maintenance
from trainpipe_assets.pipeline.templates import Key, filled
from trainpipe_assets.settings import NAME, PipelineSettings

PACKAGE = "trainpipe_pipelines"


class TrainingPipeline(dg.Component, dg.Resolvable):
    """A governed training pipeline: raw_data, cleaned_features, rejected_rows, tokenized_dataset, fine_tuned_model, eval_report.

    Its attributes are `PipelineSettings`. A free string, such as `source.uri`, may be a template, e.g. "{{ env.REVIEWS_BUCKET }}".
    """

    def __init__(self, settings: PipelineSettings | None = None) -> None:
        self.settings = settings or PipelineSettings()

    @classmethod
    def model(cls) -> type[BaseModel]:
        """The schema of the attributes: what editors complete and what `dg check yaml` validates."""
        return PipelineSettings

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> "TrainingPipeline":
        """The component with the templates of its attributes filled in."""

        def where(path: tuple[Key, ...]) -> str:
            key, tree = ".".join(map(str, path)), context.source_position_tree
            if tree is None:
                return key
            position, _ = tree.lookup_closest_and_path([*context.path, *path], trace=None)
            return f"{shortened(position.filename)}:{position.start.line}: {key}"

        return cls(PipelineSettings.model_validate(filled(model.model_dump(exclude_unset=True), context.scope, where)))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Assets, checks, jobs, sensor and schedules of the pipeline, named after its folder; nothing of one that is not enabled."""
        if not self.settings.enabled:
            return dg.Definitions()
        return build_pipeline(checked_name(context.path.name), self.settings)


def checked_name(folder: str) -> str:
    """The name of the pipeline that is declared in `folder`.

    Raises:
        ValueError: Dagster takes no such name for its jobs, sensors and groups.
    """
    if not re.fullmatch(NAME, folder):
        raise ValueError(
            f"a pipeline cannot be called {folder!r}: jobs and sensors are named after its folder, and names have letters, digits and "
            f"underscores alone; rename the folder to {re.sub('[^A-Za-z0-9_]+', '_', folder)!r}"
        )
    return folder


def component_tree(folder: Path) -> dg.ComponentTree:
    """What is declared in a folder, made a package under a name of its own so that it may lie anywhere."""
    package = ModuleType(PACKAGE, "The pipelines of this code location.")
    package.__file__, package.__path__ = None, [str(folder)]
    sys.modules[PACKAGE] = package
    return dg.ComponentTree.from_module(package, project_root=folder.parent)


def build_pipeline(name: str, settings: PipelineSettings) -> dg.Definitions:
    """The definitions of the pipeline `name`, without resources: those are shared by all pipelines of a code location."""
    assets = dg.with_source_code_references(build_assets(name, settings))
    pipeline = dg.Definitions(assets=assets, asset_checks=build_checks(settings))
    return dg.Definitions.merge(pipeline, build_automation(name, settings), build_maintenance(name, settings))
