"""`python -m benchmarks.language_trainers SPEC.json RESULT.json`: the same language model by the Trainers of Hugging Face and of TRL.

Same base model, adapters, documents, rows and their order, hyper-parameters and threads as the training program; how a row is computed is
the Trainer's. In a process of its own.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.language_spec import LanguageResult, LanguageTrainerSpec
from benchmarks.trainer import StepClock
from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.model import load_tokenizer
from trainpipe_assets.training.tasks.causal import CausalLM
from trainpipe_assets.training.tasks.pieces import Pieces

IGNORED = -100
Document = dict[str, list[int]]


@dataclass(frozen=True)
class Rows(torch.utils.data.Dataset[list[Document]]):
    """Rows in the order of the training program's first epoch; each is a list of documents."""

    rows: list[list[Document]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Document]:
        return self.rows[index]


def train(spec: LanguageTrainerSpec) -> LanguageResult:
    """Train one epoch and time it."""
    torch.set_num_threads(available_cores())
    job, task = spec.training, CausalLM(packing=False)  # so that the model keeps transformers' own attention
    pieces = task.load(job, "train")
    plan = CausalLM().plan(pieces, job.training, 0)
    rows = [[_document(pieces, int(number)) for number in pack] for pack in plan]
    model, clock = task.load_model(job), StepClock()
    trainer = _sft_trainer(spec, model, rows, clock) if spec.peer == "sft" else _trainer(spec, model, rows, clock)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return LanguageResult(seconds=clock.times[-1] - clock.times[0], losses=losses)


def _document(pieces: Pieces, number: int) -> Document:
    """A whole document as trainers take it: its labels are its own ids where they are learnt."""
    part = slice(pieces.offsets[number], pieces.offsets[number + 1])
    labels = np.where(pieces.learnt[part], pieces.targets[part], IGNORED)
    ids = [*pieces.tokens[part].tolist(), int(pieces.targets[part][-1])]
    return {"input_ids": ids, "labels": [IGNORED, *labels.tolist()]}


def _trainer(spec: LanguageTrainerSpec, model: Any, rows: list[list[Document]], clock: StepClock) -> Trainer:
    """Each row flattened by transformers' collator, with positions that begin anew in each document."""
    flatten = DataCollatorWithFlattening(return_position_ids=True)  # type: ignore[no-untyped-call]  # transformers lacks annotations
    arguments = TrainingArguments(**_arguments(spec), remove_unused_columns=False)
    return Trainer(model, arguments, data_collator=lambda batch: flatten(batch[0]), train_dataset=Rows(rows), callbacks=[clock])


def _sft_trainer(spec: LanguageTrainerSpec, model: Any, rows: list[list[Document]], clock: StepClock) -> SFTTrainer:
    """Rows as TRL's own packing leaves them, and what follows from its setting `packing`."""
    packed = datasets.Dataset.from_list(
        [
            {
                "input_ids": [token for document in row for token in document["input_ids"]],
                "labels": [label for document in row for label in document["labels"]],
                "seq_lengths": [len(document["input_ids"]) for document in row],
            }
            for row in rows
        ]
    )
    arguments = SFTConfig(
        **_arguments(spec), packing=True, dataset_kwargs={"skip_prepare_dataset": True}, bf16=False, gradient_checkpointing=False
    )
    tokenizer = load_tokenizer(spec.training.base_model)
    return SFTTrainer(model, arguments, train_dataset=packed, processing_class=tokenizer, callbacks=[clock])


def _arguments(spec: LanguageTrainerSpec) -> dict[str, Any]:
    settings = spec.training.training
    return {
        "output_dir": spec.training.work_dir,
        "per_device_train_batch_size": 1,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup_fraction,
        "lr_scheduler_type": settings.schedule,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch_fused",
        "seed": settings.seed,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(train(LanguageTrainerSpec.model_validate_json(source.read_text())).model_dump_json())
