"""Run config of the training step: the YAML's hyper-parameters as defaults, for the Launchpad and `--config`."""

from typing import Any, cast, get_args

import dagster as dg
from pydantic import Field, create_model, model_validator

from trainpipe_assets.settings import PipelineSettings, TrainingSettings


class TrainingRunConfig(dg.Config):
    """Hyper-parameters of one run; what is not given stays as the pipeline's YAML has it.

    Bounds are checked by `settings`, inside the step, where a value out of bounds becomes one clear message.
    """

    force: bool = Field(default=False, description="Train even where this very training was done before.")

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A null where none is allowed is not given."""
        return {
            name: value for name, value in values.items() if value is not None or name not in cls.model_fields or _may_be_null(cls, name)
        }

    def within(self, settings: PipelineSettings) -> TrainingSettings:
        """The hyper-parameters as plain settings, which fit the others of the pipeline.

        Raises:
            pydantic.ValidationError: a value is out of bounds, or does not go with the rest of `settings`.
        """
        chosen = TrainingSettings.model_validate(self.model_dump(include=set(TrainingSettings.model_fields)))
        return PipelineSettings.model_validate({**dict(settings), "training": chosen}).training


def _may_be_null(config: type[dg.Config], name: str) -> bool:
    return type(None) in get_args(config.model_fields[name].annotation)


def training_config(defaults: TrainingSettings) -> type[TrainingRunConfig]:
    """`TrainingRunConfig` with one field for each hyper-parameter, whose default is its value in `defaults`."""
    fields: dict[str, Any] = {
        name: (field.annotation, Field(default=getattr(defaults, name), description=field.description))
        for name, field in TrainingSettings.model_fields.items()
    }
    return cast(
        type[TrainingRunConfig], create_model("TrainingConfig", __base__=TrainingRunConfig, __doc__=TrainingRunConfig.__doc__, **fields)
    )
