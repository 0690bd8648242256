"""Which task a spec asks for."""

from typing import Any

from trainpipe_assets.training.causal import CausalLM
from trainpipe_assets.training.classification import CLASSIFICATION
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.task import Task


def task_of(spec: TrainSpec) -> Task[Any]:
    """The task of `spec`."""
    return CausalLM(packing=spec.training.packing) if spec.task == "causal-lm" else CLASSIFICATION
