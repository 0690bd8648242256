"""`python -m benchmarks.trainer SPEC.json RESULT.json`: the same training by Hugging Face's Trainer, in a process of its own.

Same base model and head, tokens, seed and hyper-parameters as the training program; only the loop and its batches are the Trainer's.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from benchmarks.trainer_spec import TrainerResult, TrainerSpec
from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.model import load_classifier, load_tokenizer
from trainpipe_assets.training.tasks.examples import Examples, load_examples


@dataclass(frozen=True)
class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples in the form that the Trainer takes: dictionaries of lists."""

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start, end = self.examples.offsets[index], self.examples.offsets[index + 1]
        ids = self.examples.tokens[start:end].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(self.examples.labels[index])}


class StepClock(TrainerCallback):
    """The time at which training began, and at which each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Training begins; the first batch is not made yet."""
        self.times.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step has been taken."""
        self.times.append(time.perf_counter())


def train(spec: TrainerSpec) -> TrainerResult:
    """Train and time it; the model is in `spec.training.output_dir` where it is to be saved."""
    torch.set_num_threads(available_cores())
    job = spec.training
    rows = Rows(load_examples(job.dataset_uri, job.dataset_version, "train", len(job.labels)))
    tokenizer, clock = load_tokenizer(job.base_model), StepClock()
    trainer = Trainer(
        model=load_classifier(job.base_model, job.labels, job.training.seed),
        args=_arguments(spec),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer, padding=spec.padding, max_length=job.model.max_length),
        callbacks=[clock],
    )
    trainer.train()
    if spec.save:
        trainer.save_model(job.output_dir)
    steps = len(clock.times) - 1
    examples = len(rows) if spec.max_steps is None else (steps - spec.untimed_steps) * spec.batch_size
    return TrainerResult(examples=examples, seconds=clock.times[-1] - clock.times[spec.untimed_steps])


def _arguments(spec: TrainerSpec) -> TrainingArguments:
    settings = spec.training.training
    return TrainingArguments(
        output_dir=spec.training.work_dir,
        per_device_train_batch_size=spec.batch_size,
        num_train_epochs=settings.epochs,
        max_steps=spec.max_steps or -1,
        train_sampling_strategy="group_by_length" if spec.grouped else "random",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_fraction,
        lr_scheduler_type=settings.schedule,
        max_grad_norm=settings.max_grad_norm,
        label_smoothing_factor=settings.label_smoothing,
        optim="adamw_torch_fused",
        seed=settings.seed,
        use_cpu=True,
        bf16=spec.training.compute.precision == "bf16",
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(train(TrainerSpec.model_validate_json(source.read_text())).model_dump_json())
