"""Which task a spec asks for."""

from collections.abc import Mapping
from typing import Any

from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks.causal import CausalLM
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.multi_label import MULTI_LABEL
from trainpipe_assets.training.tasks.regression import REGRESSION
from trainpipe_assets.training.tasks.task import Task
from trainpipe_assets.training.tasks.text_task import TextTask

TEXT_TASKS: Mapping[str, TextTask] = {
    "text-classification": CLASSIFICATION,
    "multi-label-classification": MULTI_LABEL,
    "text-regression": REGRESSION,
}
"""The tasks that answer a text."""


def task_of(spec: TrainSpec) -> Task[Any]:
    """The task of `spec`."""
    return CausalLM(packing=spec.training.packing) if spec.task == "causal-lm" else TEXT_TASKS[spec.task]
