"""The gradient of an embedding table by the rows that a batch touched: of a large vocabulary almost all are 0.

The backward pass leaves those rows alone instead of a whole table, norm and clipping look at them alone, and the optimizer, which moves
every row, finds the others in a table of zeros that is kept from step to step. On several processes, and where the table is the
output layer too, gradients are whole.
"""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from trainpipe_assets.training.distribution import local


class TouchedRows:
    """The input embedding of a model and its gradient. It has none where the gradient is to be whole."""

    def __init__(self, model: PreTrainedModel, processes: int) -> None:
        table: Any = model.get_input_embeddings()
        output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers lacks annotations
        usable = (
            isinstance(table, torch.nn.Embedding) and table.weight.requires_grad and (output is None or output.weight is not table.weight)
        )
        if usable and processes == 1 and table.weight.device.type == "cpu":
            table.sparse = True
        self.whole: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None

    def collect(self, parameters: Iterable[torch.nn.Parameter]) -> list[torch.Tensor]:
        """All values of the local gradients that can differ from 0, to be looked at and scaled in place."""
        found = []
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()  # the same row of several tokens, added up
                found.append(parameter.grad.values())
            elif parameter.grad is not None:
                found.append(local(parameter.grad))
        return found

    def fill(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Whole gradients for the optimizer."""
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                if self.whole is None:
                    self.whole = torch.zeros_like(parameter)
                self.rows = parameter.grad.indices()[0]
                self.whole.index_copy_(0, self.rows, parameter.grad.values())
                parameter.grad = self.whole

    def clear(self) -> None:
        """Zeros again for the next step."""
        if self.whole is not None and self.rows is not None:
            self.whole.index_fill_(0, self.rows, 0.0)
            self.rows = None
