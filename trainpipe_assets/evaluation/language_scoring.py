"""What a finished language model makes of documents: sums of losses over each, and samples of what it would write.

Pieces, batches and the forward pass are `training`'s, so that a test is scored as a validation is. torch is imported where it is used.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from trainpipe_assets.evaluation.language import DocumentSums, Generation
from trainpipe_assets.evaluation.scoring import threads
from trainpipe_assets.settings import ComputeSettings

if TYPE_CHECKING:
    from trainpipe_assets.training.compute import Compute
    from trainpipe_assets.training.tasks.causal import CausalLM
    from trainpipe_assets.training.tasks.pieces import Pieces

PROMPT_TOKENS = 32  # of a document that is all learnt, at most, are the prompt of a sample


class TooLong(ValueError):
    """A model takes fewer tokens at once than the documents are cut into."""


def score_documents(folder: str, documents: pl.DataFrame, max_length: int, compute: ComputeSettings, batch_tokens: int) -> DocumentSums:
    """The sums over each of `documents` (columns row_id, input_ids, loss_mask), cut as in training.

    Raises:
        TooLong: the model takes fewer tokens at once.
        ValueError: the folder holds no language model, or compute is asked for that this machine lacks.
    """
    import torch

    from trainpipe_assets.training.compute import resolve_scoring
    from trainpipe_assets.training.model import load_tokenizer, load_trained_language_model, longest_input
    from trainpipe_assets.training.tasks.causal import HITS, LOSS, CausalLM, as_sums
    from trainpipe_assets.training.tasks.packing import use_packed_attention
    from trainpipe_assets.training.tasks.pieces import cut_documents

    _be_quiet()
    resolved, model = resolve_scoring(compute), load_trained_language_model(folder)
    tokenizer = load_tokenizer(folder)
    pieces, longest = cut_documents(documents.select("row_id", "input_ids", "loss_mask"), max_length), longest_input(model, tokenizer)
    if pieces.lengths.max(initial=0) > longest:
        raise TooLong(f"it takes {longest} tokens at once, of pieces of up to {max_length}")
    with threads(resolved.threads):
        torch.nn.Module.to(model, resolved.device)
        task = CausalLM(packing=use_packed_attention(model))
        if len(pieces):
            task.check(pieces, model, tokenizer)
        found = as_sums(_score_within_memory(model, task, pieces, batch_tokens, resolved))
    sums = pl.DataFrame({"row_id": pieces.row_ids, "tokens": pieces.answers, "losses": found[:, LOSS], "hits": found[:, HITS]})
    of_documents = (
        documents.select("row_id").join(sums.group_by("row_id").sum(), on="row_id", how="left", maintain_order="left").fill_null(0)
    )
    return DocumentSums(*(of_documents[name].to_numpy() for name in ("tokens", "losses", "hits")))


def generate(folder: str, documents: pl.DataFrame, count: int, longest: int, compute: ComputeSettings) -> tuple[Generation, ...]:
    """The most probable continuation, of at most `longest` tokens and within the model's context, of the first `count` documents
    that have tokens.

    The prompt is what comes before the first token that is learnt; of a document that is all learnt, its beginning.
    """
    import torch

    from trainpipe_assets.training.compute import resolve_scoring
    from trainpipe_assets.training.model import load_tokenizer, load_trained_language_model, longest_input

    _be_quiet()
    resolved, model, tokenizer = resolve_scoring(compute), load_trained_language_model(folder), load_tokenizer(folder)
    window = longest_input(model, tokenizer)
    room = max(1, window - longest, window // 2)  # for a prompt: a sample may be shorter, but has something to go on from
    samples = []
    with threads(resolved.threads), torch.inference_mode():
        torch.nn.Module.to(model, resolved.device)
        told = documents.filter(pl.col("input_ids").list.len() > 0).head(count)  # a chat that its template refused has none
        for ids, mask in told.select("input_ids", "loss_mask").iter_rows():
            start = _start_of_answer(ids, mask)
            prompt = torch.tensor([ids[:start][-room:]], device=resolved.device)
            written: Any = model.generate(  # type: ignore[operator]  # transformers' annotations do not say that a model can
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=min(longest, window - prompt.shape[1]),
                do_sample=False,
                pad_token_id=model.config.pad_token_id,
            )
            parts = (ids[:start], ids[start : start + longest], written[0, prompt.shape[1] :].tolist())
            samples.append(Generation(*(str(tokenizer.decode(part, skip_special_tokens=True)) for part in parts)))
    return tuple(samples)


def _start_of_answer(ids: list[int], mask: list[bool]) -> int:
    first = mask.index(True) if True in mask else len(ids)
    return first if 0 < first < len(ids) else max(1, min(PROMPT_TOKENS, len(ids) // 2))


def _score_within_memory(model: Any, task: "CausalLM", pieces: "Pieces", batch_tokens: int, compute: "Compute") -> Any:
    """Scores in batches of `batch_tokens`, or of half as many where they do not fit the memory, down to one piece each."""
    import torch

    from trainpipe_assets.training.errors import is_out_of_memory
    from trainpipe_assets.training.scoring import score

    autocast = partial(torch.autocast, compute.device, dtype=torch.bfloat16, enabled=compute.precision == "bf16")
    if not len(pieces):
        return torch.zeros(0, 2)
    try:
        return score(model, pieces, task.plan_scoring(pieces, batch_tokens), autocast, task=task)
    except RuntimeError as error:
        if batch_tokens <= int(np.max(pieces.lengths)) or not is_out_of_memory(error):
            raise
    return _score_within_memory(model, task, pieces, batch_tokens // 2, compute)


def _be_quiet() -> None:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights: it would fill the run's log
