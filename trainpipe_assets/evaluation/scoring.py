"""What a finished model answers to tokenized examples: probabilities of labels, or numbers.

Loading, batches and the forward pass are `training`'s, so that a test is scored as a validation is. torch is imported
where it is used: metrics, gate and report work without it, and importing this module stays quick.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.settings import ComputeSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from trainpipe_assets.training.tasks.examples import Examples


def score(
    model_folder: str, examples: pl.DataFrame, compute: ComputeSettings, batch_tokens: int, task: str = "text-classification"
) -> FloatArray:
    """The answers of the model to `examples`, in their order and in float64: probabilities of labels, [n, k], or numbers, [n].

    `examples` has the columns row_id and input_ids, ids of the model's own tokenizer. Batches hold examples of like
    length, `batch_tokens` tokens at most with padding (one example at least); one that does not fit the memory is halved.

    Raises ValueError when the folder holds no model, when compute is asked for that this machine lacks, or when there
    is no example, an empty one, or one that the model cannot take.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from trainpipe_assets.training.compute import resolve_scoring
    from trainpipe_assets.training.model import load_trained
    from trainpipe_assets.training.scoring import score as score_batches
    from trainpipe_assets.training.tasks.choice import TEXT_TASKS

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights: it would fill the run's log
    resolved, answering = resolve_scoring(compute), TEXT_TASKS[task]
    model = load_trained(model_folder)
    held = _checked(examples, model, model_folder)
    with threads(resolved.threads):
        torch.nn.Module.to(model, resolved.device)
        autocast = partial(torch.autocast, resolved.device, dtype=torch.bfloat16, enabled=resolved.precision == "bf16")
        scores = score_batches(model, held, answering.plan_scoring(held, batch_tokens), autocast, task=answering)
        return answering.answers(model, scores)


def align_labels(probabilities: FloatArray, found: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """`probabilities` [n, len(found)] of one model over the labels of another, [n, len(wanted)].

    Makes an older model comparable after labels came or went: a label that it does not know gets 0, one that is no longer
    wanted is ruled out, with what remains scaled to sum to 1 (equal shares where nothing remains). Raises ValueError when
    the two share no label: such models cannot be compared.
    """
    if tuple(found) == tuple(wanted):
        return probabilities
    if not set(found) & set(wanted):
        raise ValueError(f"a model of the labels {list(found)} cannot be compared on the labels {list(wanted)}: they share none")
    column = {label: index for index, label in enumerate(found)}
    aligned = np.zeros((len(probabilities), len(wanted)), dtype=np.float64)
    for index, label in enumerate(wanted):
        if label in column:
            aligned[:, index] = probabilities[:, column[label]]
    remaining = aligned.sum(axis=1, keepdims=True)
    equal_shares = np.full_like(aligned, 1.0 / len(wanted))
    return np.asarray(np.divide(aligned, remaining, out=equal_shares, where=remaining > 0.0), dtype=np.float64)


def align_label_sets(probabilities: FloatArray, found: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """The same for labels that do not rule each other out: one that the model does not know gets 0, others keep their probability."""
    column = {label: index for index, label in enumerate(found)}
    unknown = np.zeros(len(probabilities))
    return np.stack([probabilities[:, column[label]] if label in column else unknown for label in wanted], axis=1)


def _checked(examples: pl.DataFrame, model: "PreTrainedModel", folder: str) -> "Examples":
    """The examples as the model takes them; labels play no part in scoring and are all 0."""
    from trainpipe_assets.training.model import load_tokenizer, longest_input
    from trainpipe_assets.training.sequences import check_sequences
    from trainpipe_assets.training.tasks.examples import Examples

    if examples.is_empty():
        raise ValueError("there is no example to score: the test split is empty; raise split.test or land more data")
    empty = examples.filter(pl.col("input_ids").list.len().fill_null(0) == 0)
    if empty.height:
        raise ValueError(f"{empty.height} examples have no tokens, the first is row {empty['row_id'][0]!r}; rebuild the tokenized dataset")
    held = Examples.of(examples, np.zeros(examples.height, dtype=np.int64))
    check_sequences(held, model.config.vocab_size, longest_input(model, load_tokenizer(folder)))
    return held


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads, then with as many as before: scoring shares its process with others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
