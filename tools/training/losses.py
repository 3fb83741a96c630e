"""Training loss in log depth: a nearly scale-invariant error, gradients at several scales, and a far sky."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tools.training.batches import Batch

_EPSILON = 1e-6


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    invariance: float = 0.85
    """1 lets a picture choose its scale, 0 asks for the unit. Nearly 1 keeps the unit steady within a clip, which a
    refinement wants, as it has one scale for all frames."""
    gradient: float = 0.5
    scales: int = 4
    sky: float = 0.05


def scale_invariant_loss(error: Tensor, valid: Tensor, invariance: float) -> Tensor:
    """Mean over pictures of sqrt(mean e^2 - invariance (mean e)^2) (Eigen et al., NeurIPS 2014).

    `error` (B, 1, h, w) is predicted minus true log depth; only where `valid` (same shape, bool). The root keeps a
    picture that is hopeless from ruling the batch.
    """
    count = valid.sum((1, 2, 3)).clamp(min=1)
    error = torch.where(valid, error, 0.0)
    mean = error.sum((1, 2, 3)) / count
    mean_square = error.square().sum((1, 2, 3)) / count
    return (mean_square - invariance * mean.square()).clamp(min=0.0).add(_EPSILON).sqrt().mean()


def gradient_loss(error: Tensor, valid: Tensor, scales: int) -> Tensor:
    """Mean absolute difference of neighbouring errors (B, 1, h, w), at every pixel, every second, every fourth ...

    Zero when depth is right up to a factor; smooths where the truth is smooth, and sharpens where it jumps.
    """
    total = error.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        e, v = error[..., ::step, ::step], valid[..., ::step, ::step]
        for axis in (-1, -2):
            size = e.shape[axis] - 1
            if size < 1:
                continue
            difference = (e.narrow(axis, 1, size) - e.narrow(axis, 0, size)).abs()
            both = v.narrow(axis, 1, size) & v.narrow(axis, 0, size)
            total = total + torch.where(both, difference, 0.0).sum() / both.sum().clamp(min=1)
    return total / (2 * scales)


def sky_loss(log_depth: Tensor, batch: Batch) -> Tensor:
    """Return the mean amount, over all pixels, by which predicted sky is nearer than far; farther costs nothing."""
    nearer = functional.relu(batch.log_far - log_depth)
    return torch.where(batch.valid, 0.0, nearer).mean()


def total_loss(log_depth: Tensor, batch: Batch, config: LossConfig) -> Tensor:
    """Return the loss of a prediction (B, 1, h', w'), which is first resized to the batch's size as in inference."""
    if log_depth.shape[-2:] != batch.log_depth.shape[-2:]:
        size = (batch.log_depth.shape[-2], batch.log_depth.shape[-1])
        log_depth = functional.interpolate(log_depth, size, mode="bilinear", align_corners=False)
    error = log_depth - batch.log_depth
    return (
        scale_invariant_loss(error, batch.valid, config.invariance)
        + config.gradient * gradient_loss(error, batch.valid, config.scales)
        + config.sky * sky_loss(log_depth, batch)
    )
