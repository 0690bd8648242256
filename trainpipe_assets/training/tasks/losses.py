"""Losses that several tasks share."""

import torch


def label_losses(log_probabilities: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the labels of the loss that is trained, and of the one that is reported, which is never smoothed.

    Args:
        log_probabilities: of each class, shape [labels, classes].
        labels: ids of the classes, shape [labels].
        smoothing: the share of a label that is spread over all classes.
    """
    reported = -log_probabilities.gather(1, labels[:, None]).sum()
    trained = (1.0 - smoothing) * reported - smoothing * log_probabilities.mean(dim=1).sum() if smoothing else reported
    return trained, reported
