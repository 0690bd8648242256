"""The units of what a regression predicts: numbers are learnt standardized, and given in their own units.

Without torch, so that the numbers in a finished model's config can be read by whoever evaluates it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, STD = "target_mean", "target_std"  # keys of the model's config
ROUNDING = 1e-12  # of the largest number


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the numbers of the training split."""

    mean: float
    std: float

    def standardized(self, targets: NDArray[np.float64]) -> NDArray[np.float32]:
        """`targets` as a model learns them: of mean 0 and standard deviation 1 in the training split."""
        return ((targets - self.mean) / self.std).astype(np.float32)

    def restored(self, standardized: NDArray[Any]) -> NDArray[np.float64]:
        """What is standardized, in the units of the numbers."""
        return np.asarray(standardized.astype(np.float64) * self.std + self.mean)

    def as_config(self) -> dict[str, float]:
        """The entries of a model's config."""
        return {MEAN: self.mean, STD: self.std}


def scale_of_targets(targets: NDArray[np.float64]) -> TargetScale:
    """The scale of the training split's numbers.

    Raises:
        ValueError: they are all the same, but for rounding, or too large to be told apart.
    """
    std = float(targets.std())
    if not np.isfinite(std) or std <= ROUNDING * np.abs(targets).max():
        raise ValueError(f"the numbers of the training split have the standard deviation {std:g}: they cannot be standardized; land others")
    return TargetScale(float(targets.mean()), std)


def scale_from_config(config: Mapping[str, Any], whose: str) -> TargetScale:
    """The scale in the config of the model `whose`.

    Raises:
        ValueError: it has none.
    """
    if MEAN not in config or STD not in config:
        raise ValueError(f"the model {whose} has no {MEAN} and {STD} in its config: it was not trained for text-regression")
    return TargetScale(float(config[MEAN]), float(config[STD]))


def scale_of_model(folder: Path) -> TargetScale:
    """The scale of the finished model in `folder`.

    Raises:
        ValueError: it has none.
    """
    return scale_from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), str(folder))
