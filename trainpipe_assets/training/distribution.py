"""How a model lies on the processes of a training: whole on each of them, or shared out among them. One interface, `Distribution`.

Beyond this module and `local` only `memory.py` and `inference.py` know which it is, by torch's `FSDPModule`. Gradients and norms come
out the same but for rounding, and what is gathered for a checkpoint or the finished model is what one process would have.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

Tensors = Mapping[str, Any]
"""The states of a model and its optimizer, as they give them, with whole tensors."""


class Distribution(ABC):
    """Where the parameters, gradients and moments of a model are; `accelerator` stands for the processes."""

    kind: str
    """What `compute.sharding` calls it."""

    in_step: bool = False
    """Whether each process has to do as many passes as the others, each of them at the same time."""

    advice: str = ""
    """What else may help a training that does not fit the memory."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    @abstractmethod
    def place(self, model: PreTrainedModel) -> None:
        """Bring `model` from the CPU to where it is trained; its optimizer is made afterwards."""

    @abstractmethod
    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Have each gradient be the sum of those of all processes."""

    @abstractmethod
    def norm(self, own: torch.Tensor) -> torch.Tensor:
        """The norm of all gradients from that of the local ones."""

    @abstractmethod
    def gather(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Whole states, on the main process; every process has to ask."""

    @abstractmethod
    def load(self, tensors: Tensors, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Take up states that were gathered, however the model lay then."""

    @abstractmethod
    def finished(self, model: PreTrainedModel, base: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
        """The whole model on the CPU of the main process, None on others; `base` makes one of its kind."""

    @abstractmethod
    def whole_at_once(self, model: torch.nn.Module) -> int:
        """Bytes of parameters and gradients that are whole for a moment beside the local ones."""


def distribution_of(accelerator: Accelerator, sharding: str) -> Distribution:
    """What `compute.sharding` asks for. One process has nobody to share a model with, and holds it whole."""
    return Sharded(accelerator) if sharding == "full" and accelerator.num_processes > 1 else Replicated(accelerator)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of `tensor`, in the same memory: all of it, or its share."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def held_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of the weights, and of the weights and the optimizer's moments that this process holds of them."""
    weights, moments = list(model.parameters()), [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    return {
        "weights_bytes": _bytes(weights),
        "weights_bytes_each": _bytes(map(local, weights)),
        "moments_bytes_each": _bytes(map(local, moments)),
    }


class Replicated(Distribution):
    """The whole model on each process.

    Gradients are added up once a step, rather than by a wrapper around the model: so a process may split its share anew when memory does
    not suffice, or have no share at all, and the others never notice.
    """

    kind = "none"

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__(accelerator)
        if accelerator.num_processes > 1:
            self.advice = f", or share the model out among the {accelerator.num_processes} processes (TRAINPIPE_SHARDING=full)"

    def place(self, model: PreTrainedModel) -> None:
        """All of it."""
        model.to(self.accelerator.device)

    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """In one message; a parameter that no process used keeps none."""
        if self.accelerator.num_processes == 1:
            return
        present = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.accelerator.device)
        anywhere = self.accelerator.reduce(present, "sum").tolist()
        used = [parameter for parameter, count in zip(parameters, anywhere, strict=True) if count]
        flat = torch.cat([(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten() for parameter in used])
        sums = self.accelerator.reduce(flat, "sum").split([parameter.numel() for parameter in used])
        for parameter, total in zip(used, sums, strict=True):
            parameter.grad = total.view_as(parameter)

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        """Each process has all gradients."""
        return own

    def gather(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """As they are."""
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load(self, tensors: Tensors, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """As they are."""
        model.load_state_dict(tensors["model"])
        if optimizer is not None:
            optimizer.load_state_dict(tensors["optimizer"])

    def finished(self, model: PreTrainedModel, base: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
        """The model itself."""
        return model.cpu() if self.accelerator.is_main_process else None

    def whole_at_once(self, model: torch.nn.Module) -> int:
        """Nothing beside them."""
        return 0


class Sharded(Distribution):
    """Of each parameter, gradient and moment an equal share on each process (FSDP2, `torch.distributed.fsdp.fully_shard`).

    A layer is put together when it is computed, forward and backward, and taken apart again; its gradients are added up in the backward
    pass. So all processes compute the same layer at the same time.
    """

    kind = "full"
    in_step = True

    def place(self, model: PreTrainedModel) -> None:
        """Layer by layer: a device never holds more than one of them whole."""
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        for module in (*_units(model), model):
            unit = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            unit.set_gradient_divide_factor(1.0)  # a loss is divided by the examples of all processes already
            unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Done in the backward pass."""

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        """Squares add up."""
        squares: torch.Tensor = self.accelerator.reduce(own.square(), "sum")
        return squares.sqrt()

    def gather(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Tensor by tensor; the other processes let go of each at once."""
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        gathered: Tensors = _gathered(states, self.accelerator.is_main_process)
        return gathered

    def load(self, tensors: Tensors, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """This process's share of each tensor."""
        held = model.state_dict()
        model.load_state_dict({name: _share(whole, held[name]) for name, whole in tensors["model"].items()})
        if optimizer is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            saved = tensors["optimizer"]["state"].items()
            state = {index: {name: _share(value, parameters[index]) for name, value in moments.items()} for index, moments in saved}
            optimizer.load_state_dict({**tensors["optimizer"], "state": state})

    def finished(self, model: PreTrainedModel, base: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
        """A model of its own, with the weights gathered."""
        weights = _gathered(model.state_dict(), self.accelerator.is_main_process)
        if not self.accelerator.is_main_process:
            return None
        whole = base()
        whole.load_state_dict(weights)
        return whole

    def whole_at_once(self, model: torch.nn.Module) -> int:
        """The layer under way with its gradients, the next one, which is fetched meanwhile, and all that is in no layer, with gradients."""
        sizes = [_bytes(unit.parameters()) for unit in model.modules() if isinstance(unit, FSDPModule) and unit is not model]
        return 3 * max(sizes, default=0) + 2 * (_bytes(model.parameters()) - sum(sizes))


def _units(model: PreTrainedModel) -> Iterator[torch.nn.Module]:
    """What is put together by itself: each layer, and tables of embeddings that are not the output layer at the same time."""
    yield from (layer for layer in _layers(model) if any(True for _ in layer.parameters()))
    names = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[no-untyped-call]  # transformers lacks annotations
        if table is not None and sum(parameter is table.weight for parameter in names) == 1:
            yield table


def _layers(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The members of the outermost lists of modules: what every model of transformers keeps its layers in."""
    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else _layers(child)


def _gathered(state: Any, kept: bool) -> Any:
    """`state` with whole tensors on the CPU, or with None for them."""
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.cpu() if kept else None
    return {name: _gathered(value, kept) for name, value in state.items()} if isinstance(state, Mapping) else state


def _share(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What this process holds of `whole` where `like` is shared out; what has another shape, such as a count of steps, is not."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None).clone()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
