"""`python -m benchmarks.scoring MODEL SPEC.json`: accuracy of a trained model on the test split, as JSON on standard output.

The same for every trainer's model. It also counts the model's parameters, which the share of the machine's peak needs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.evaluation.metrics import accuracy
from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.model import load_trained
from trainpipe_assets.training.scoring import score as score_batches
from trainpipe_assets.training.spec import load_spec
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.examples import Examples, load_examples

BATCH_TOKENS = 4096


def encoder_parameters(model: torch.nn.Module) -> int:
    """Parameters that every token passes through: those of the encoder's layers, without embeddings, pooler and head."""
    layers = model.get_submodule("bert.encoder")
    return sum(parameter.numel() for parameter in layers.parameters())


def probabilities(model: PreTrainedModel, examples: Examples, batch_tokens: int) -> NDArray[np.float64]:
    """Of each label for each example, shape [n, labels], in batches as the assets make them."""
    return CLASSIFICATION.answers(model, score_batches(model, examples, CLASSIFICATION.plan_scoring(examples, batch_tokens)))


def score(folder: Path, spec_path: Path) -> dict[str, float]:
    """Accuracy on the test split of the spec's dataset, its size, and the encoder's parameters."""
    spec, model = load_spec(spec_path), load_trained(folder)
    examples = load_examples(spec.dataset_uri, spec.dataset_version, "test", len(spec.labels))
    predicted = probabilities(model, examples, BATCH_TOKENS).argmax(axis=1)
    return {
        "accuracy": accuracy(examples.labels, predicted),
        "examples": len(examples),
        "encoder_parameters": encoder_parameters(model),
    }


if __name__ == "__main__":
    torch.set_num_threads(available_cores())
    print(json.dumps(score(Path(sys.argv[1]), Path(sys.argv[2]))))
