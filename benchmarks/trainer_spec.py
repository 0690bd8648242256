"""What `benchmarks.trainer` is asked and what it answers. Imports no torch, so that who asks stays small."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trainpipe_assets.training.spec import TrainSpec


class TrainerSpec(BaseModel):
    """What the Trainer is to do with the data and settings of `training`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainSpec
    batch_size: int = Field(ge=1)
    padding: Literal["longest", "max_length"]
    grouped: bool = Field(description="Batches of like lengths.")
    max_steps: int | None = Field(default=None, description="Stop after so many steps; by default after one epoch.")
    untimed_steps: int = Field(default=0, ge=0, description="First steps that do not count.")
    save: bool = Field(default=True, description="Whether to write the model to `training.output_dir`.")


class TrainerResult(BaseModel):
    """Examples trained on in the steps that were timed, and their time."""

    examples: int
    seconds: float

    @property
    def examples_per_second(self) -> float:
        """The speed of training."""
        return self.examples / self.seconds
