"""Compare an exported file with the torch network, on frames of the clip and at sizes that it was not traced at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from sfmttr.networks.base import DepthNetwork, DepthPredictor, source_frames
from sfmttr.types import HW, FrameSet

from .errors import ExportError, ParityError
from .runtime import ModelError, OnnxDepth, Provider
from .spec import Tolerance, input_names
from .to_onnx import TRACED_CORE_BATCH, TRACED_IMAGE_HW, CoreGraph

CORE_BATCHES = (1, 3)
CORE_SIZES = 3
_SHAPES = ((480, 640), (640, 480), (375, 1242), (512, 512), (360, 640), (640, 360))
"""Image sizes whose working sizes a core graph is checked at."""


@dataclass(frozen=True)
class ParityCase:
    """One comparison of a file with the torch network."""

    batch: int
    hw: HW
    """Size of the input."""
    frame: str
    """Name of the (first) input frame."""
    max_relative: float
    """|onnx - torch| / torch, at the pixel where it is largest."""
    mean_relative: float
    where: tuple[int, ...]
    """Index of that pixel: row and column, for a core graph after the index in the batch."""
    torch_value: float
    onnx_value: float

    def __str__(self) -> str:
        pixel = f"row {self.where[-2]}, column {self.where[-1]}"
        return (
            f"on frame {self.frame} at {self.hw[0]} x {self.hw[1]}, batch {self.batch}, {pixel} is "
            f"{self.onnx_value:.6g} in onnxruntime and {self.torch_value:.6g} in torch: {self.max_relative:.2%} apart "
            f"(mean over the image {self.mean_relative:.2%})"
        )


def image_sizes(hw: HW) -> tuple[HW, ...]:
    """Return the sizes that an image graph is checked at: the frames' own, half, 5/4, and transposed."""
    h, w = hw
    sizes = (hw, (max(1, h // 2), max(1, w // 2)), (h + h // 4, w + w // 4), (w, h))
    return tuple(size for size in dict.fromkeys(sizes) if size != TRACED_IMAGE_HW)


def check_image_graph(predictor: OnnxDepth, exact: DepthPredictor, frames: FrameSet) -> tuple[ParityCase, ...]:
    """Compare `predictor` with the reference `exact`, in the same unit, at every size of `image_sizes`.

    Raises `ParityError` when the prediction fails, has another size, or is not finite.
    """
    cases = []
    for size, frame in zip(*_pair_with_frames(image_sizes(frames.hw), frames), strict=True):
        rgb = _resize(frames.read(frame).rgb, size)
        sources = [_resize(each, size) for each in source_frames(exact, frames, frame)]
        try:
            depth = predictor.predict(rgb, *sources)
        except ModelError as error:
            raise ParityError(_first_line(str(error))) from error
        cases.append(_case(depth, exact.predict(rgb, *sources), 1, size, frames.names[frame]))
    return tuple(cases)


def core_sizes(network: DepthNetwork, frame_hw: HW) -> tuple[HW, tuple[HW, ...]]:
    """Return the size to trace a core graph at, and the sizes to check it at; the network supports all of them.

    Raises `ExportError` when the network supports too few sizes.
    """
    if not network.supports_dynamic_size:
        raise ExportError(f"{network.info.name} cannot be exported with dynamic sizes: leave the core graph out")
    # Traced at a square size, height and width would become one and the same dimension.
    possible = list(dict.fromkeys(_input_hw(network, hw) for hw in (frame_hw, *_SHAPES)))
    traced = next((hw for hw in reversed(possible) if hw[0] != hw[1]), possible[-1])
    checked = [hw for hw in possible if hw != traced][:CORE_SIZES]
    if len(checked) < CORE_SIZES:
        raise ExportError(f"{network.info.name} supports one size only: leave the core graph out")
    return traced, tuple(checked)


def _input_hw(network: DepthNetwork, hw: HW) -> HW:
    """Return the size of the input of `forward` for an image of size `hw`."""
    cropped = network.crop(torch.empty((1, 3, *network.input_hw(hw)), device="meta"))
    return cropped.shape[2], cropped.shape[3]


@torch.inference_mode()
def check_core_graph(
    path: Path,
    network: DepthNetwork,
    sizes: Sequence[HW],
    scale: float,
    frames: FrameSet,
    providers: Sequence[Provider],
) -> tuple[ParityCase, ...]:
    """Compare the core graph at `path` with `network`, times `scale`, at `sizes` and every batch of `CORE_BATCHES`.

    Raises `ParityError` as `check_image_graph` does.
    """
    assert TRACED_CORE_BATCH not in CORE_BATCHES
    session = onnxruntime.InferenceSession(path, providers=list(providers))
    exact = CoreGraph(network, scale).eval()
    cases = []
    for size, frame in zip(*_pair_with_frames(sizes, frames), strict=True):
        for batch in CORE_BATCHES:
            chosen = [(frame + i) % len(frames) for i in range(batch)]
            steps = (0, *network.source_offsets)
            images = [
                torch.cat([network.prepare(frames.read((i + step) % len(frames)).rgb, size) for i in chosen])
                for step in steps
            ]
            feed = {name: image.numpy() for name, image in zip(input_names(steps[1:]), images, strict=True)}
            try:
                (depth,) = session.run(None, feed)
            except Exception as error:
                raise ParityError(_first_line(f"the network failed at batch {batch}, {size}: {error}")) from error
            cases.append(_case(np.asarray(depth), exact(*images).numpy(), batch, size, frames.names[frame]))
    return tuple(cases)


def violation(cases: Sequence[ParityCase], tolerance: Tolerance) -> str:
    """Return what is wrong with the worst of `cases`; empty when all are within `tolerance`."""
    worst = max(cases, key=lambda case: case.max_relative)
    if worst.max_relative > tolerance.max_relative:
        return f"{worst}, and {tolerance.max_relative:.2%} at most are allowed"
    worst = max(cases, key=lambda case: case.mean_relative)
    if worst.mean_relative > tolerance.mean_relative:
        return f"{worst}, and {tolerance.mean_relative:.3%} at most are allowed in the mean"
    return ""


def _pair_with_frames(sizes: Sequence[HW], frames: FrameSet) -> tuple[Sequence[HW], list[int]]:
    """Return `sizes` and one frame for each, evenly spaced over the clip."""
    return sizes, np.linspace(0, len(frames) - 1, len(sizes)).round().astype(int).tolist()


def _resize(rgb: np.ndarray, hw: HW) -> np.ndarray:
    if rgb.shape[:2] == hw:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((hw[1], hw[0]), Image.Resampling.BILINEAR))


def _case(depth: np.ndarray, exact: np.ndarray, batch: int, hw: HW, frame: str) -> ParityCase:
    context = f"for frame {frame} at {hw[0]} x {hw[1]}, batch {batch}, onnxruntime gives"
    if depth.shape != exact.shape:
        raise ParityError(f"{context} depth of shape {depth.shape} and torch {exact.shape}: a size became a constant")
    if not np.isfinite(depth).all():
        raise ParityError(f"{context} depth that is not finite at {(~np.isfinite(depth)).sum()} pixels")
    if not (np.isfinite(exact).all() and (exact > 0).all()):
        raise ParityError(f"{context} depth, where torch gives none at {(~(exact > 0)).sum()} pixel(s)")
    relative = np.abs(depth.astype(np.float64) - exact) / np.abs(exact)
    where = tuple(int(i) for i in np.unravel_index(relative.argmax(), relative.shape))
    largest, mean = float(relative[where]), float(relative.mean())
    return ParityCase(batch, hw, frame, largest, mean, where, float(exact[where]), float(depth[where]))


def _first_line(message: str) -> str:
    """Return the first line of an error message of onnxruntime."""
    return message.strip().splitlines()[0]
