"""Where a network runs: predicting and refining, the only parts of a run that a GPU is for.

`pipeline.run` hands both to a `Backend`. `LocalBackend` does them in this process; a page on rented GPUs brings one of
its own, which may be another process: everything that goes in or comes out can be pickled, and nothing that goes in is
expected to change.
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
    """The network as it is while it is refined."""

    def depth(self, frame: int) -> np.ndarray:
        """(h', w') float32: what it says of a frame now, for a live picture."""
        ...


OnStep = Callable[[RefineStep, LiveNetwork], None]
"""Called after every step of the refinement. It may raise `Cancelled`."""


def ignore_step(step: RefineStep, live: LiveNetwork) -> None:
    """The `OnStep` of callers that do not want any."""


class Backend(Protocol):
    """Does the work of networks for a run."""

    @property
    def device(self) -> str:
        """Name of the device that results are made on; part of what a stage was made from."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether it is at hand all the time, so that it may be used in another thread while something else is done."""
        ...

    def predict(
        self,
        network: DepthNetwork,
        images: Tensor,
        stage: str,
        on_progress: OnProgress,
        early: FeatureCache | None = None,
    ) -> np.ndarray:
        """(N, h', w') float32: the network's output for `images` (N, 3, h, w), as `predict_maps`.

        `early` stays empty where the backend is not here.
        """
        ...

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        """Run all steps; what `on_step` raises ends it and passes through."""
        ...


class LocalBackend:
    """In this process, on the device that is named."""

    is_here = True

    def __init__(self, device: str = "auto") -> None:
        self._wanted = device

    @cached_property
    def _compute(self) -> Compute:
        return choose_compute(self._wanted)

    @property
    def device(self) -> str:
        """Raises `DeviceError` when it is not there."""
        return str(self._compute.device)

    def predict(
        self,
        network: DepthNetwork,
        images: Tensor,
        stage: str,
        on_progress: OnProgress,
        early: FeatureCache | None = None,
    ) -> np.ndarray:
        return predict_maps(network, images, self._compute, stage, on_progress, early)

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        refinement = Refinement(task, self._compute)
        for step in refinement.steps():
            on_step(step, refinement)
        return refinement.result()
