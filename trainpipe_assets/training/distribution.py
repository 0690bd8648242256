"""How a model lies on the processes of a training: whole on each of them, `Distribution`, or shared out among them, `Sharded`.

Beyond this module and `local` only `memory.py` and `inference.py` know which it is, by torch's `FSDPModule`. Gradients and norms come
out the same but for rounding, and what is gathered for a checkpoint or the finished model is what one process would have. Parameters that
do not learn are never gathered nor taken up: they are the base model's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainpipe_assets.training.processes import agree

Tensors = Mapping[str, Any]
"""The states of a model, without what does not learn, and of its optimizer, as they give them, with whole tensors."""

AnyTensor = TypeVar("AnyTensor", bound=torch.Tensor)

MESSAGE_BYTES = 2**26
"""Tensors are gathered, and gradients added up, so many bytes at a time, or one that is larger: no process holds more of them beside."""


class Distribution:
    """Where the parameters, gradients and moments of a model are: all of them on each process.

    Gradients are added up once a step, rather than by a wrapper around the model: so a process may split its share anew when memory does
    not suffice, or have no share at all, and the others never notice. `accelerator` stands for the processes.
    """

    kind: ClassVar[str] = "none"
    """What `compute.sharding` calls it."""

    in_step: ClassVar[bool] = False
    """Whether each process has to do as many passes as the others, each of them at the same time."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    @property
    def advice(self) -> str:
        """What else may help a training that does not fit the memory."""
        processes = self.accelerator.num_processes
        return f", or share the model out among the {processes} processes (TRAINPIPE_SHARDING=full)" if processes > 1 else ""

    def place(self, model: PreTrainedModel) -> None:
        """Bring `model` from the CPU to where it is trained; its optimizer is made afterwards."""
        model.to(self.accelerator.device)

    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Have each gradient be the sum of those of all processes; a parameter that no process used keeps none."""
        if self.accelerator.num_processes == 1:
            return
        _, used = agree(self.accelerator, None, *(parameter.grad is not None for parameter in parameters))
        for message in _messages(parameter for parameter, anywhere in zip(parameters, used, strict=True) if anywhere):
            own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in message]
            flat = [gradient.flatten() for gradient in own]
            sums = torch.cat(flat) if len(flat) > 1 else flat[0]  # a large one is added up where it lies
            torch.distributed.all_reduce(sums)
            for parameter, gradient, total in zip(message, own, torch.split(sums, [len(one) for one in flat]), strict=True):
                parameter.grad = gradient.copy_(total.view_as(gradient))

    def norm(self, own: torch.Tensor) -> torch.Tensor:
        """The norm of all gradients from that of the local ones."""
        return own

    def gather(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Whole states, on the main process; every process has to ask."""
        return {"model": _learnt(model), "optimizer": optimizer.state_dict()}

    def load(self, tensors: Tensors, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Take up states that were gathered, however the model lay then."""
        _take_up(model, tensors["model"])
        if optimizer is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            saved = tensors["optimizer"]["state"].items()
            state = {index: {name: _share(value, parameters[index]) for name, value in moments.items()} for index, moments in saved}
            optimizer.load_state_dict({**tensors["optimizer"], "state": state})

    def finished(self, model: PreTrainedModel, base: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
        """The whole model on the CPU of the main process, None on others; `base` makes one of its kind."""
        return model.cpu() if self.accelerator.is_main_process else None

    def whole_at_once(self, model: torch.nn.Module) -> int:
        """Bytes of parameters and gradients that are whole for a moment beside the local ones."""
        return 0


class Sharded(Distribution):
    """Of each parameter, gradient and moment an equal share on each process (FSDP2, `torch.distributed.fsdp.fully_shard`).

    A layer is put together when it is computed, forward and backward, and taken apart again; its gradients are added up in the backward
    pass. So all processes compute the same layer at the same time.
    """

    kind: ClassVar[str] = "full"
    in_step: ClassVar[bool] = True
    advice = ""

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
        """In messages of many tensors each."""
        gathered: Tensors = self._gathered({"model": _learnt(model), "optimizer": optimizer.state_dict()})
        return gathered

    def finished(self, model: PreTrainedModel, base: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
        """A model of its own, with the weights gathered."""
        weights = self._gathered(_learnt(model))
        if not self.accelerator.is_main_process:
            return None
        whole = base()
        _take_up(whole, weights)
        return whole

    def _gathered(self, state: Any) -> Any:
        """`state` with whole tensors on the CPU in place of shares; those of other processes than the main one are empty."""
        shares = list(_shares(state))
        wholes = [whole for message in _messages(shares) for whole in self._sent(message)]
        return _replaced(state, dict(zip(map(id, shares), wholes, strict=True)))

    def _sent(self, shares: Sequence[DTensor]) -> list[torch.Tensor]:
        """The whole tensors. They are sent as bytes, which asks nothing of their types, and padded to be of one length everywhere."""
        heights = [-(-share.shape[0] // self.accelerator.num_processes) for share in shares]  # rows of a share, unless it is among the last
        own = [_padded(local(share), height).view(-1).view(torch.uint8) for share, height in zip(shares, heights, strict=True)]
        sizes, message = [len(part) for part in own], torch.cat(own)
        main = self.accelerator.is_main_process
        received = [torch.empty_like(message) for _ in range(self.accelerator.num_processes)] if main else None
        torch.distributed.gather(message, received, dst=0)
        if received is None:
            return [torch.empty(0)] * len(shares)
        parts = zip(*(torch.split(one, sizes) for one in received), strict=True)
        return [_joined(part, share).cpu() for part, share in zip(parts, shares, strict=True)]

    def whole_at_once(self, model: torch.nn.Module) -> int:
        """The layer under way with its gradients, the next one, which is fetched meanwhile, and all that is in no layer, with gradients."""
        sizes = [_bytes(unit.parameters()) for unit in model.modules() if isinstance(unit, FSDPModule) and unit is not model]
        return 3 * max(sizes, default=0) + 2 * (_bytes(model.parameters()) - sum(sizes))


def distribution_of(accelerator: Accelerator, sharding: str) -> Distribution:
    """What `compute.sharding` asks for. One process has nobody to share a model with, and holds it whole."""
    return Sharded(accelerator) if sharding == "full" and accelerator.num_processes > 1 else Distribution(accelerator)


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


def _learnt(model: torch.nn.Module) -> Tensors:
    """The state of `model` without parameters that do not learn."""
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _take_up(model: torch.nn.Module, tensors: Tensors) -> None:
    """Load what `_learnt` gave, or this process's share of it."""
    held = model.state_dict()
    missing, unknown = model.load_state_dict({name: _share(whole, held[name]) for name, whole in tensors.items()}, strict=False)
    assert (held.keys() - _learnt(model).keys(), []) == (set(missing), unknown)


def _shares(state: Any) -> Iterator[DTensor]:
    """The tensors in nested mappings that are shared out."""
    if isinstance(state, DTensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _shares(value)


def _replaced(state: Any, by: Mapping[int, torch.Tensor]) -> Any:
    """`state` with other tensors in the place of those that have these ids."""
    if isinstance(state, Mapping):
        return {name: _replaced(value, by) for name, value in state.items()}
    return by.get(id(state), state)


def _messages(tensors: Iterable[AnyTensor]) -> Iterator[list[AnyTensor]]:
    """Runs of tensors of `MESSAGE_BYTES` at most, or of a larger one."""
    message: list[AnyTensor] = []
    room = MESSAGE_BYTES
    for tensor in tensors:
        size = _bytes([tensor])
        if message and size > room:
            yield message
            message, room = [], MESSAGE_BYTES
        message.append(tensor)
        room -= size
    if message:
        yield message


def _padded(share: torch.Tensor, height: int) -> torch.Tensor:
    """`share` with `height` rows."""
    return torch.cat([share, share.new_zeros(height - len(share), *share.shape[1:])])


def _joined(parts: Iterable[torch.Tensor], like: DTensor) -> torch.Tensor:
    """The bytes of all processes as one tensor; the padding, if any, is at its end."""
    whole = torch.cat(tuple(parts)).view(like.dtype).view(-1, *like.shape[1:])
    return whole if len(whole) == len(like) else whole[: len(like)].clone()  # a part would be saved with all of it


def _share(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What this process holds of `whole` where `like` is shared out; what has another shape, such as a count of steps, is not."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None).clone()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
