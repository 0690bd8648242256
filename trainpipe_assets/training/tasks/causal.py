"""A language model: each token from those before it, in pieces of documents that share rows, or are padded where they cannot.

Losses are averaged over the tokens that are learnt, in a batch, a validation and a test alike.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.finished import save_weights
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import load_language_model, save_tokenizer
from trainpipe_assets.training.sequences import padded
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks import lora
from trainpipe_assets.training.tasks.packing import cut_packs, pack, packed_logits, plan_packs, use_packed_attention
from trainpipe_assets.training.tasks.pieces import Pieces, load_pieces
from trainpipe_assets.training.tasks.task import Task, label_losses

log = logging.getLogger(__name__)

LOSS, HITS = 0, 1  # columns of a score
SCORED = 512  # tokens whose probabilities are held at once: a vocabulary is large


@dataclass
class CausalLM(Task[Pieces]):
    """The task of a language model; see `task.Task` for its methods. `packing` goes off where the model cannot do it."""

    packing: bool = True

    def load(self, spec: TrainSpec, split: str) -> Pieces:
        """Pieces of documents."""
        return load_pieces(spec.dataset_uri, spec.dataset_version, split, spec.model.max_length)

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model, with adapters where asked for."""
        model = load_language_model(spec.base_model, spec.training.seed)
        self.packing = self.packing and _packs(model, spec.base_model)
        return model if spec.model.lora is None else lora.adapt(model, spec.model.lora)

    def spare_work(self, model: PreTrainedModel) -> None:
        """Nothing to do: what is not learnt never passes through the output layer, and a piece ends where its last token is learnt."""

    def plan(self, data: Pieces, settings: TrainingSettings, epoch: int) -> list[Indices]:
        """Packs, or batches cut from length order."""
        if not self.packing:
            return super().plan(data, settings, epoch)
        return plan_packs(data.lengths, settings.batch_tokens, settings.seed, epoch)

    def plan_scoring(self, data: Pieces, budget: int) -> list[Indices]:
        """Runs in order of length, the longest first."""
        if not self.packing:
            return super().plan_scoring(data, budget)
        return cut_packs(np.argsort(-data.lengths, kind="stable"), data.lengths, budget)

    def cut(self, data: Pieces, share: Indices, budget: int | None) -> Sequence[Indices]:
        """By tokens; by rectangles, padding included, where they are padded."""
        if not self.packing:
            return super().cut(data, share, budget)
        return cut_packs(share, data.lengths, int(data.lengths.sum()) if budget is None else budget)

    def micro_batch(self, data: Pieces, run: Indices, pad_id: int) -> MicroBatch:
        """One row, or a rectangle, of token ids; and the tokens that are learnt, with where they follow."""
        lengths, flat = data.lengths_of(run), data.places_of(run)
        learnt = data.learnt[flat]
        owners = np.repeat(np.arange(len(run)), lengths)
        labels, owned = torch.from_numpy(data.targets[flat][learnt].astype(np.int64)), torch.from_numpy(owners[learnt])
        if self.packing:
            row = torch.from_numpy(data.tokens[flat].astype(np.int64))[None]
            return MicroBatch(len(run), row, None, labels, torch.from_numpy(np.flatnonzero(learnt)), owned, pack(lengths))
        input_ids, mask = padded(data, run, pad_id)
        places = torch.from_numpy(np.flatnonzero(learnt)) if mask is None else mask.flatten().nonzero()[torch.from_numpy(learnt), 0]
        return MicroBatch(len(run), input_ids, mask, labels, places, owned)

    def weight(self, data: Pieces, indices: Indices) -> int:
        """Tokens that are learnt."""
        return int(data.answers[indices].sum())

    def log_probabilities(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """Of each token of the vocabulary in each place that is learnt."""
        return torch.log_softmax(logits(model, inputs).float(), dim=-1)

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Negative log-likelihoods of the tokens that are learnt."""
        return label_losses(self.log_probabilities(model, inputs), inputs.labels, smoothing)

    def columns(self, model: PreTrainedModel) -> int:
        """The loss and the hits."""
        return 2

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """Sum of the losses in nats, and how many tokens were the most probable ones, of each piece."""
        assert inputs.owners is not None
        found = torch.zeros(inputs.count, 2, device=inputs.input_ids.device)
        scores = logits(model, inputs)
        for start in range(0, len(scores), SCORED):
            part = slice(start, start + SCORED)
            losses = torch.nn.functional.cross_entropy(scores[part].float(), inputs.labels[part], reduction="none")
            hits = (scores[part].argmax(dim=-1) == inputs.labels[part]).float()
            found.index_add_(0, inputs.owners[part], torch.stack([losses, hits], dim=1))
        return found

    def metrics(self, data: Pieces, scores: torch.Tensor) -> dict[str, float]:
        """Each a mean over the tokens that are learnt."""
        sums, tokens = as_sums(scores).sum(axis=0), int(data.answers.sum())
        return {"loss": float(sums[LOSS] / tokens), "accuracy": float(sums[HITS] / tokens), "tokens": tokens}

    def save(self, model: PreTrainedModel, base: str, folder: Path) -> None:
        """Weights, config and tokenizer; of adapters also themselves."""
        save_weights(lora.merge(model, folder), folder)
        save_tokenizer(base, folder)


def logits(model: Any, inputs: MicroBatch) -> torch.Tensor:
    """Logits in each place that is learnt, shape [learnt, vocabulary]."""
    assert inputs.learnt is not None
    if inputs.packed is not None:
        return packed_logits(model, inputs.input_ids, inputs.packed, inputs.learnt)
    found: torch.Tensor = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False).logits
    return found.flatten(0, 1)[inputs.learnt]


def as_sums(scores: torch.Tensor) -> NDArray[np.float64]:
    """Scores in float64."""
    return np.asarray(scores.cpu().numpy().astype(np.float64))


def _packs(model: PreTrainedModel, base: str) -> bool:
    able = use_packed_attention(model)
    if not able:
        log.warning("documents are padded, not packed: %s (%s) does not answer alike when they share a row", base, model.config.model_type)
    return able
