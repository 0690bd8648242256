"""What `benchmarks.language_trainers` is asked and what it answers. Imports no torch, so that who asks stays small."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainpipe_assets.training.spec import TrainSpec

Peer = Literal["trainer", "sft"]


class LanguageTrainerSpec(BaseModel):
    """One epoch of `training` by Hugging Face's Trainer or TRL's SFTTrainer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainSpec
    peer: Peer


class LanguageResult(BaseModel):
    """The time from the first batch to the end of the last step, and the training loss of each step."""

    seconds: float
    losses: list[float]
