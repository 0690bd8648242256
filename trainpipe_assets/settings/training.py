"""The base model, how it is trained, and on what."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainpipe_assets.settings.base import Fraction, Settings


class LoraSettings(Settings):
    """Low-rank adapters (Hu et al., 2021): small matrices learn beside the frozen weights, and are added to them at the end."""

    rank: int = Field(default=16, ge=1, le=1024, description="Rank of the adapters.")
    alpha: int = Field(default=32, ge=1, le=4096, description="Adapters are scaled by alpha / rank.")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(default=0.0, description="Dropout of the adapters' inputs.")


class ModelSettings(Settings):
    """The base model, how long its inputs may be, and which of its weights learn."""

    base: str = Field(
        default="samples/all-MiniLM-L6-v2",
        min_length=1,
        description="Base model: a local folder or GGUF file (a relative one is looked for where the command is started, then under "
        "TRAINPIPE_MODELS), a folder on S3, or a Hugging Face hub id. Safetensors only; a GGUF file is converted.",
    )
    max_length: int = Field(
        default=128,
        ge=8,
        le=8192,
        description="Longest input in tokens. A classifier reads no more of a text; a document of causal-lm is cut into pieces of so many.",
    )
    template: str = Field(
        default="{prompt}\n{completion}",
        description="How a prompt and its completion are put together (source.kind prompt-completion). Spaces before {completion} are its.",
    )

    lora: LoraSettings | None = Field(
        default=None, description="causal-lm: train low-rank adapters ({} takes the defaults) instead of all weights (null)."
    )

    @field_validator("template")
    @classmethod
    def _both_places(cls, template: str) -> str:
        head, found, tail = template.partition("{completion}")
        if not found or tail or head.count("{prompt}") != 1:
            raise ValueError(f"model.template {template!r} needs {{prompt}} once and then {{completion}}, which ends it")
        return template


class TrainingSettings(Settings):
    """Hyper-parameters of fine-tuning. Each is also run config, for one run."""

    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over the training split at most.")
    learning_rate: float = Field(default=1e-4, gt=0.0, le=1.0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0, description="Decoupled weight decay; none on biases and norms.")
    warmup_fraction: Fraction = Field(default=0.1, description="Share of the steps over which the learning rate rises from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", description="Decay of the learning rate after warm-up.")
    batch_tokens: int = Field(default=1024, ge=16, le=1_048_576, description="Token budget of one optimizer step, padding included.")
    micro_batch_tokens: int | None = Field(
        default=None, ge=16, description="Token budget of one forward pass; by default the whole batch at once."
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0.0, allow_inf_nan=False, description="Gradients are clipped to this global norm; 1e9 clips none."
    )
    packing: bool = Field(
        default=True, description="causal-lm: documents share a row of the batch, none of which sees another; false pads them instead."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Label smoothing of the training loss (never of a reported one)."
    )
    early_stopping_patience: int = Field(default=2, ge=1, description="Epochs without a better validation loss before training stops.")
    deterministic: bool = Field(
        default=True,
        description="On a GPU, use only kernels that give the same bits every time, so that a resumed training ends with the very same "
        "model. False is faster there; a CPU always does.",
    )
    checkpoint_seconds: float = Field(
        default=60.0,
        ge=0.0,
        le=1e9,
        description="Seconds between checkpoints inside an epoch (one always follows a validation); 0 is every step.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the head's initial weights, dropout and batch order.")


class ComputeSettings(Settings):
    """The compute that training gets."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Device; auto takes the best one present.")
    processes: int = Field(default=1, ge=1, le=64, description="Training processes; more than one runs under torchrun.")
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="full shares parameters, gradients and optimizer state out among the processes (FSDP2), so that larger models fit; "
        "none keeps them whole on each, which is faster.",
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="auto is bf16 where the device computes it natively, else float32; for the figures of a report it is always float32.",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads of each process; by default the cores shared out.")
    price_per_hour: float | None = Field(
        default=None,
        ge=0.0,
        allow_inf_nan=False,
        description="Price of an hour of all that a training occupies, in any currency: each training then says its cost.",
    )
