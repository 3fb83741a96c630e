"""Backends that run a network: prediction and refinement, the only parts of a run that use a GPU.

`pipeline.run` hands both to a `Backend`. `LocalBackend` runs them in this process; a page on rented GPUs has its own,
which may be another process. So inputs and outputs can be pickled, and callers must not rely on changes to inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.inference import FeatureCache, predict_maps
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.task import RefineResult, RefineStep, RefineTask
from sfmttr.types import OnProgress
from sfmttr.utils.device import Compute, choose_compute


class LiveNetwork(Protocol):
    """The network with its current weights, during refinement."""

    def depth(self, frame: int) -> np.ndarray:
        """Return the current prediction (h', w') float32 for a frame, for a live picture."""
        ...


OnStep = Callable[[RefineStep, LiveNetwork], None]
"""Called after every step of the refinement. It may raise `Cancelled`."""


def ignore_step(step: RefineStep, live: LiveNetwork) -> None:
    """Ignore a step: the default `OnStep`."""


class Backend(Protocol):
    """Device that predicts and refines for a run."""

    @property
    def device(self) -> str:
        """Name of the device; part of the cache keys of stages."""
        ...

    @property
    def is_local(self) -> bool:
        """True if the device is available all the time, also to a second thread while the main one is busy."""
        ...

    def predict(
        self,
        network: DepthNetwork,
        images: Tensor,
        stage: str,
        on_progress: OnProgress,
        feature_cache: FeatureCache | None = None,
    ) -> np.ndarray:
        """Return the network's output (N, h', w') float32 for `images` (N, 3, h, w), as `predict_maps` does.

        Only local backends add stem features to `feature_cache`.
        """
        ...

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        """Run all steps; exceptions from `on_step` stop the refinement and propagate."""
        ...


class LocalBackend:
    """Runs in this process, on the device of this name (see `choose_compute`)."""

    is_local = True

    def __init__(self, device: str = "auto") -> None:
        self._device_name = device

    @cached_property
    def _compute(self) -> Compute:
        return choose_compute(self._device_name)

    @property
    def device(self) -> str:
        """Name of the device. Raises `DeviceError` when it is not available."""
        return str(self._compute.device)

    def predict(
        self,
        network: DepthNetwork,
        images: Tensor,
        stage: str,
        on_progress: OnProgress,
        feature_cache: FeatureCache | None = None,
    ) -> np.ndarray:
        return predict_maps(network, images, self._compute, stage, on_progress, feature_cache)

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        refinement = Refinement(task, self._compute)
        for step in refinement.steps():
            on_step(step, refinement)
        return refinement.result()
