"""The boundary to ZeroGPU, and the only file that knows `spaces`.

A GPU function there runs in a forked child that ends: what it changes in place is lost, so everything that is wanted
comes back as values on the CPU. Each call asks for the seconds that it is expected to take, at most `MAX_CALL_S`; a
refinement that takes longer is done in pieces, each going on from the checkpoint of the one before. Reconstruction,
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
"""The frame whose depth is shown while the network learns."""
MAX_CALL_S = 60.0
START_S = 6.0
"""Until a child computes, beside what weights take: the fork, CUDA, moving images."""
END_S = 4.0
"""Left over at the end of a piece, beside what weights take."""
PREDICT_S = 0.05
"""A frame, generously; larger networks than `LARGE` take longer in proportion."""
STEP_S = 0.06
"""A step, generously, before any was seen; likewise."""
LARGE = 100e6
"""Parameters."""
SENT_A_SECOND = 400e6
"""Bytes of weights that are packed and sent to or from a child."""
_LIVE_EVERY_S = 0.7


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def make_backend(device: str = "auto") -> Callable[[], Backend]:
    """What gives runs their backend. On ZeroGPU this must be called before the page is launched."""
    if on_zero_gpu():
        import spaces  # type: ignore[import-not-found,import-untyped,unused-ignore]

        zero = ZeroGpuBackend(spaces.GPU)
        return lambda: zero

    def local() -> Backend:
        from sfmttr.refinement.backend import LocalBackend  # torch takes seconds to import, and the page has to open

        return LocalBackend(device)

    return local


def free_memory() -> None:
    """Give back what a run left: the garbage of a stopped one may hold a whole network, also on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and not on_zero_gpu() and torch.cuda.is_available():
        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------- inside the child


@dataclass(frozen=True)
class StepUpdate:
    """One step, and now and then what the network says of `LIVE_FRAME`."""

    step: RefineStep
    depth: np.ndarray | None


@dataclass(frozen=True)
class Chunk:
    """The end of a piece: the whole result, or where to go on."""

    result: RefineResult | None
    checkpoint: RefineCheckpoint | None
    step_s: float
    """What a step took."""

    def packed(self) -> bytes:
        """For the way home. Tensors by themselves would travel in shared memory that goes with the child."""
        return pickle.dumps(self)


def predict_on_gpu(network: DepthNetwork, images: Tensor) -> np.ndarray:
    """(N, h', w') float32 of images (N, 3, h, w)."""
    from sfmttr.networks.inference import predict_maps
    from sfmttr.utils.device import choose_compute

    return predict_maps(network, images, choose_compute(), "predict")


def predict_duration(network: DepthNetwork, images: Tensor) -> int:
    """Seconds to ask for."""
    return _whole(START_S + _sending_s(network) + PREDICT_S * _size(network) * len(images))


def max_frames_per_call(network: DepthNetwork) -> int:
    """Frames that one call has time for."""
    return max(1, int((MAX_CALL_S - START_S - _sending_s(network)) / (PREDICT_S * _size(network))))


def refine_on_gpu(
    task: RefineTask, checkpoint: RefineCheckpoint | None, steps_left: int, step_s: float
) -> Iterator[StepUpdate | bytes]:
    """Go on from `checkpoint` until the seconds that were asked for are nearly over; last comes a packed `Chunk`."""
    from sfmttr.refinement.loop import Refinement
    from sfmttr.utils.device import choose_compute

    began = time.monotonic()
    until = began + refine_duration(task, checkpoint, steps_left, step_s) - end_s(task)
    refinement = Refinement(task, choose_compute(), checkpoint)
    started, told, steps = time.monotonic(), 0.0, 0
    for step in refinement.steps():
        steps += 1
        now = time.monotonic()
        shown = now - told >= _LIVE_EVERY_S or step.index == step.total
        told = now if shown else told
        yield StepUpdate(step, refinement.depth(LIVE_FRAME) if shown else None)
        if now > until and step.index < step.total:
            yield Chunk(None, refinement.checkpoint(), (now - started) / steps).packed()
            return
    yield Chunk(refinement.result(), None, (time.monotonic() - started) / max(steps, 1)).packed()


def refine_duration(task: RefineTask, checkpoint: RefineCheckpoint | None, steps_left: int, step_s: float) -> int:
    """Seconds to ask for."""
    return _whole(START_S + _sending_s(task.network) + end_s(task) + 1.3 * step_s * steps_left)


def end_s(task: RefineTask) -> float:
    """Left over at the end of a piece for sending its checkpoint: where it stands, and the best weights so far."""
    return END_S + 2 * _sending_s(task.network)


def _size(network: DepthNetwork) -> float:
    """How much longer than others a network takes."""
    return max(1.0, sum(value.numel() for value in network.parameters()) / LARGE)


def _sending_s(network: DepthNetwork) -> float:
    """Seconds until a network's weights are packed and sent."""
    return sum(value.numel() * value.element_size() for value in network.parameters()) / SENT_A_SECOND


def _whole(seconds: float) -> int:
    return int(min(MAX_CALL_S, seconds) + 0.999)


# ------------------------------------------------------------------------------ outside, the parent


class _Snapshot:
    """What came back of the network's depth last."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def depth(self, frame: int) -> np.ndarray:
        if frame != LIVE_FRAME or self.values is None:
            raise KeyError(f"no depth of frame {frame} came back")
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
        """As `Backend.predict`. `early` stays empty: what is rented for a moment hands over maps alone."""
        from sfmttr.types import Progress

        on_progress(Progress(stage, 0, len(images), "waiting for a GPU"))
        most = max_frames_per_call(network)
        parts = []
        for first in range(0, len(images), most):
            parts.append(self._predict(network, images[first : first + most]))
            on_progress(Progress(stage, min(first + most, len(images)), len(images)))
        return np.concatenate(parts)

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        snapshot, checkpoint, step_s = _Snapshot(), None, STEP_S * task.config.frames_per_step * _size(task.network)
        # An upper bound before the network has said how many steps it makes in the time of `steps` whole ones.
        left = (
            round(task.config.steps / task.network.cached_step_cost)
            if task.config.match_time_budget
            else task.config.steps
        )
        while True:
            piece: Chunk | None = None
            for news in self._refine(task, checkpoint, left, step_s):
                if isinstance(news, bytes):
                    piece = pickle.loads(news)  # from our own child
                    continue
                if news.depth is not None:
                    snapshot.values = news.depth
                left = news.step.total - news.step.index
                on_step(news.step, snapshot)
            if piece is None:
                raise RuntimeError("a GPU function ended without a word")
            if piece.result is not None:
                return piece.result
            checkpoint, step_s = piece.checkpoint, piece.step_s
