"""Boundary to ZeroGPU, and the only module that imports `spaces`.

A GPU function of ZeroGPU runs in a forked child that ends: what it changes in place is lost, so all results are
returned as values on the CPU. Each call requests the seconds that it is expected to take, at most `MAX_CALL_S`; a
longer refinement is split into chunks, each of which continues from the checkpoint of the previous one. Reconstruction,
outputs and export need no GPU and stay outside. Elsewhere the network simply runs in this process.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from sfmttr.networks.base import DepthNetwork
    from sfmttr.networks.inference import FeatureCache
    from sfmttr.refinement.backend import Backend, OnStep
    from sfmttr.refinement.task import RefineCheckpoint, RefineResult, RefineStep, RefineTask
    from sfmttr.types import OnProgress

LIVE_FRAME = 0
"""Frame whose depth is shown during the refinement."""
MAX_CALL_S = 60.0
"""Seconds that one call may request."""
# Seconds until a child computes (fork, CUDA, sending images), without the transfer of weights.
START_S = 6.0
# Seconds reserved for the end of a chunk, without the transfer of weights.
END_S = 4.0
# Seconds per frame and, before any was timed, per step: generous, and for networks of up to LARGE parameters. Larger
# ones take longer in proportion.
PREDICT_S = 0.05
STEP_S = 0.06
LARGE = 100e6
# Bytes of weights that are packed and sent to or from a child in one second.
SENT_A_SECOND = 400e6
# Safety factor on the measured time of a step.
_STEP_MARGIN = 1.3
_LIVE_EVERY_S = 0.7


def on_zero_gpu() -> bool:
    """Return whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def make_backend(device: str = "auto") -> Callable[[], Backend]:
    """Return the function that gives a run its backend. On ZeroGPU, call this before the page is launched."""
    if on_zero_gpu():
        import spaces  # type: ignore[import-not-found,import-untyped,unused-ignore]

        zero = ZeroGpuBackend(spaces.GPU)
        return lambda: zero

    def local() -> Backend:
        from sfmttr.refinement.backend import LocalBackend  # torch takes seconds to import, and the page has to open

        return LocalBackend(device)

    return local


def free_memory() -> None:
    """Free the memory of a run: the garbage of a stopped one may hold a whole network, also on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and not on_zero_gpu() and torch.cuda.is_available():
        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------- inside the child


@dataclass(frozen=True)
class StepUpdate:
    """One step, and now and then the current depth of `LIVE_FRAME`."""

    step: RefineStep
    depth: np.ndarray | None


@dataclass(frozen=True)
class Chunk:
    """The end of a chunk: the whole result, or the checkpoint to continue from."""

    result: RefineResult | None
    checkpoint: RefineCheckpoint | None
    step_s: float
    """Measured seconds per step."""

    def to_bytes(self) -> bytes:
        """Serialize for the parent. Tensors as such would be sent in shared memory, which ends with the child."""
        return pickle.dumps(self)


def predict_on_gpu(network: DepthNetwork, images: Tensor) -> np.ndarray:
    """Predict maps (N, h', w') float32 for images (N, 3, h, w)."""
    from sfmttr.networks.inference import predict_maps
    from sfmttr.utils.device import choose_compute

    return predict_maps(network, images, choose_compute(), "predict")


def predict_duration(network: DepthNetwork, images: Tensor) -> int:
    """Return the seconds to request."""
    return _round_up(START_S + _transfer_s(network) + PREDICT_S * _relative_cost(network) * len(images))


def max_frames_per_call(network: DepthNetwork) -> int:
    """Return the number of frames that one call has time for."""
    return max(1, int((MAX_CALL_S - START_S - _transfer_s(network)) / (PREDICT_S * _relative_cost(network))))


def refine_on_gpu(
    task: RefineTask, checkpoint: RefineCheckpoint | None, steps_left: int, step_s: float
) -> Iterator[StepUpdate | bytes]:
    """Continue from `checkpoint` until the requested seconds are nearly over; finally yield a serialized `Chunk`."""
    from sfmttr.refinement.loop import Refinement
    from sfmttr.utils.device import choose_compute

    began = time.monotonic()
    until = began + refine_duration(task, checkpoint, steps_left, step_s) - end_s(task)
    refinement = Refinement(task, choose_compute(), checkpoint)
    started, sent_at, steps = time.monotonic(), 0.0, 0
    for step in refinement.steps():
        steps += 1
        now = time.monotonic()
        shown = now - sent_at >= _LIVE_EVERY_S or step.index == step.total
        sent_at = now if shown else sent_at
        yield StepUpdate(step, refinement.depth(LIVE_FRAME) if shown else None)
        if now > until and step.index < step.total:
            yield Chunk(None, refinement.checkpoint(), (now - started) / steps).to_bytes()
            return
    yield Chunk(refinement.result(), None, (time.monotonic() - started) / max(steps, 1)).to_bytes()


def refine_duration(task: RefineTask, checkpoint: RefineCheckpoint | None, steps_left: int, step_s: float) -> int:
    """Return the seconds to request."""
    return _round_up(START_S + _transfer_s(task.network) + end_s(task) + _STEP_MARGIN * step_s * steps_left)


def end_s(task: RefineTask) -> float:
    """Return the seconds reserved for sending a checkpoint, which holds current and best weights."""
    return END_S + 2 * _transfer_s(task.network)


def _relative_cost(network: DepthNetwork) -> float:
    """Return how much longer a network takes than one of up to `LARGE` parameters."""
    return max(1.0, sum(value.numel() for value in network.parameters()) / LARGE)


def _transfer_s(network: DepthNetwork) -> float:
    """Return the seconds until a network's weights are packed and sent."""
    return sum(value.numel() * value.element_size() for value in network.parameters()) / SENT_A_SECOND


def _round_up(seconds: float) -> int:
    return int(min(MAX_CALL_S, seconds) + 0.999)


# ------------------------------------------------------------------------------ outside, the parent


class _Snapshot:
    """The latest depth that a child sent."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def depth(self, frame: int) -> np.ndarray:
        if frame != LIVE_FRAME or self.values is None:
            raise KeyError(f"no depth of frame {frame} was sent")
        return self.values


class ZeroGpuBackend:
    """`Backend` whose work is done by functions that `gpu` wraps (`spaces.GPU`)."""

    device = "cuda"
    is_local = False

    def __init__(self, gpu: Callable[..., Any]) -> None:
        self._predict = gpu(duration=predict_duration)(predict_on_gpu)
        self._refine = gpu(duration=refine_duration)(refine_on_gpu)

    def predict(
        self,
        network: DepthNetwork,
        images: Tensor,
        stage: str,
        on_progress: OnProgress,
        early: FeatureCache | None = None,
    ) -> np.ndarray:
        """Predict as `Backend.predict` does. `early` stays empty: a child sends maps alone."""
        from sfmttr.types import Progress

        on_progress(Progress(stage, 0, len(images), "waiting for a GPU"))
        most = max_frames_per_call(network)
        parts = []
        for first in range(0, len(images), most):
            parts.append(self._predict(network, images[first : first + most]))
            on_progress(Progress(stage, min(first + most, len(images)), len(images)))
        return np.concatenate(parts)

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        snapshot, checkpoint = _Snapshot(), None
        step_s = STEP_S * task.config.frames_per_step * _relative_cost(task.network)
        # An upper bound until the first step tells how many steps fit into the time budget.
        left = (
            round(task.config.steps / task.network.cached_step_cost)
            if task.config.match_time_budget
            else task.config.steps
        )
        while True:
            chunk: Chunk | None = None
            for update in self._refine(task, checkpoint, left, step_s):
                if isinstance(update, bytes):
                    chunk = pickle.loads(update)  # from our own child
                    continue
                if update.depth is not None:
                    snapshot.values = update.depth
                left = update.step.total - update.step.index
                on_step(update.step, snapshot)
            if chunk is None:
                raise RuntimeError("a GPU function ended without a result")
            if chunk.result is not None:
                return chunk.result
            checkpoint, step_s = chunk.checkpoint, chunk.step_s
