"""How a training ends before its time, and what an error of the libraries below says: in a line, and whether memory does not suffice."""

import torch

MEMORY_IS_OUT = ("can't allocate memory", "out of memory", "bad_alloc", "_STATUS_ALLOC_FAILED", "could not create a primitive")
"""What torch, the C++ library, those of CUDA and oneDNN say of it; the last of these in other cases too, of which it says no more."""


class Interrupted(Exception):
    """The training was asked to stop, or cannot go on in these processes, and there is a checkpoint to go on from."""


class MemoryRanOut(Exception):
    """Memory did not suffice, and the processes are no longer in step: the training has to be started again, in these micro-batches."""

    def __init__(self, message: str, micro_batch_tokens: int) -> None:
        super().__init__(message)
        self.micro_batch_tokens = micro_batch_tokens


def first_line(error: Exception) -> str:
    """What an error says first, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether `error` says that a tensor, or an array that becomes one, did not fit the memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in MEMORY_IS_OUT)


def lack_of_memory(error: Exception) -> str | None:
    """What to do where memory ran out beside the examples that could be fewer at a time; None for any other error."""
    if not isinstance(error, RuntimeError | MemoryError) or not is_out_of_memory(error):
        return None
    return (
        f"memory does not suffice ({first_line(error)}): free some, or raise the limit of this process or container; a smaller base model "
        "and a lower training.batch_tokens take less. Run again to go on from the last checkpoint"
    )


def lack_of_determinism(error: Exception) -> str | None:
    """What to do where torch has no kernel for this device that gives the same bits every time; None for any other error."""
    if "does not have a deterministic implementation" not in str(error):
        return None
    return f"{first_line(error)}. Set training.deterministic to false: a training that is resumed may then differ in its last digits"
