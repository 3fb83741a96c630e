"""Input and output of the refinement loop: the task, its steps, its result, and checkpoints of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sfmttr.config import RefineConfig
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.inference import FeatureCache
from sfmttr.refinement.photometric_loss import TargetView
from sfmttr.refinement.targets import Targets


@dataclass(frozen=True)
class RefineTask:
    """Everything that a refinement is computed from. It can be pickled and is never modified."""

    network: DepthNetwork
    """Unrefined, on the CPU."""
    images: Tensor
    """(N, 3, h, w) float32 on the CPU: all frames at working size, indexed by `FrameTargets.frame`."""
    targets: Targets
    config: RefineConfig
    seed: int
    excluded_frames: tuple[int, ...] = ()
    """Frames whose pixels are never read, not even as source frames of others."""
    views: Mapping[int, TargetView] | None = None
    """Cameras and source views by frame, for photometric objectives."""
    feature_cache: FeatureCache = field(default_factory=dict)
    """Stem features by frame that are computed already, on the device that refines."""


@dataclass(frozen=True)
class RefineStep:
    """One step of the loop, after the optimizer's update."""

    index: int
    """1 for the first step."""
    total: int
    loss: float
    validation: float | None
    """Weighted mean relative error at validation points; None when it was not evaluated after this step."""
    seconds: float
    """Since the start of the refinement, setup included."""


@dataclass(frozen=True)
class RefineResult:
    """Refined weights, with the curves of their training."""

    weights: Mapping[str, Tensor]
    """State dict on the CPU."""
    steps: int
    """Number of steps that were made."""
    best_step: int
    """Step that the weights are taken from; 0 means unrefined."""
    rolled_back: bool
    """True if no step beat the unrefined network times its best scale; `weights` are then the original ones."""
    seconds: float
    losses: tuple[float, ...]
    """Training loss of every step."""
    validation: tuple[tuple[int, float], ...]
    """(step, error) of each validation; step 0 is the unrefined network times its best scale."""


@dataclass(frozen=True)
class RefineCheckpoint:
    """State of a refinement on the CPU. Another process continues from it with identical results."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """State dict of the optimizer."""
    best: tuple[int, float, Mapping[str, Tensor]]
    """Step, validation error and weights of the best step so far."""
    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    seconds: float


def copy_to_cpu(value: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: copy_to_cpu(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_cpu(each) for each in value)
    return value
