"""What a model scores on examples, batch by batch: the forward pass without training.

What is scored, and what a validation makes of it, is the task's.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.errors import MemoryRanOut, is_out_of_memory
from trainpipe_assets.training.inference import inference
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.task import Task

VALIDATION_TOKENS = 4
"""A batch that is scored holds so many times the tokens of a forward pass in training: without gradients each takes far less memory."""


def score(
    model: PreTrainedModel,
    examples: Sequences,
    batches: Sequence[Indices],
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    after_batch: Callable[[], None] = lambda: None,
    task: Task[Any] = CLASSIFICATION,
    idle: Sequence[Indices] | None = None,
) -> torch.Tensor:
    """What `task` scores of the examples in `batches`, 0 for all others, float32, on the model's device.

    A classifier: the log-probabilities, shape [examples, labels]. Disjoint shares of the batches, scored by several processes, therefore
    add up to the whole. A batch that does not fit the memory is halved, unless all processes have to do as many passes: they do if
    `idle` is given, batches whose scores count for nothing.

    Raises:
        MemoryRanOut: memory did not suffice, of processes that have to stay in step.
    """
    scores = torch.zeros(len(examples), task.columns(model), device=model.device)

    def scored(part: Indices) -> torch.Tensor:
        inputs = task.micro_batch(examples, part, model.config.pad_token_id).to(model.device)
        with autocast():
            return task.score(model, inputs)

    def fill(part: Indices) -> None:
        try:
            scores[torch.from_numpy(part).to(model.device)] = scored(part)
            return
        except (RuntimeError, MemoryError) as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            if idle is not None:
                tokens = len(part) * int(examples.lengths_of(part).max())
                message = f"{len(part)} examples of a validation, {tokens} tokens, do not fit the memory"
                raise MemoryRanOut(message, max(1, tokens // 2 // VALIDATION_TOKENS)) from error
        for half in (part[: len(part) // 2], part[len(part) // 2 :]):  # once the error is gone, so are the tensors that it holds
            fill(half)

    with inference(model):
        for batch in idle or ():
            scored(batch)
            after_batch()
        for batch in batches:
            fill(batch)
            after_batch()
    return scores
