"""What `benchmarks.text_scorers` is asked and what it answers. Imports no torch, so that who asks stays small."""

from pydantic import BaseModel, ConfigDict, Field


class TextScoringSpec(BaseModel):
    """Which texts are to be scored by which model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Folder of the finished model, with its tokenizer.")
    texts: str = Field(description="Parquet with the column text.")
    max_length: int = Field(ge=1, description="Longer texts are cut to so many tokens.")
    batch_tokens: int = Field(ge=1, description="Token budget of our batches.")
    batch_sizes: tuple[int, ...] = Field(description="Batch sizes of the peer to choose the best from.")
    rounds: int = Field(ge=1)


class Round(BaseModel):
    """Seconds for all texts."""

    ours: float
    theirs: float


class TextScoringResult(BaseModel):
    """`tried` are the peer's examples per second by batch size; `largest_difference` is that of any two probabilities of a label."""

    texts: int
    tried: dict[int, float]
    batch_size: int
    rounds: list[Round]
    largest_difference: float
