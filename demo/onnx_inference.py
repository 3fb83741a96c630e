"""Predictions of the exported network for one photo."""

from __future__ import annotations

import io
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError, RunFolderError

from .export_package import import_export
from .run_view import RunView
from .sessions import Session

if TYPE_CHECKING:
    from export.runtime import OnnxDepth

MAX_BYTES = 60_000_000
MAX_SIDE = 1920
"""Long side to which larger photos are reduced: the network's input is smaller still."""


def read_photo(path: Path, config: VideoConfig) -> np.ndarray:
    """Read an uploaded photo as (H, W, 3) uint8, upright, long side at most `MAX_SIDE`. Raises `ClipError`."""
    from PIL import Image

    from sfmttr.frames.images import UnreadableImageError, read_image

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ClipError(f"This photo has more than {MAX_BYTES // 1_000_000} MB: please reduce its size.")
        image, _ = read_image(io.BytesIO(path.read_bytes()), path.name, config)
    except (UnreadableImageError, OSError) as error:
        raise ClipError("This file is not a picture that can be read: upload a JPEG, PNG or WebP.") from error
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def read_frame(view: RunView, frame: int) -> np.ndarray:
    """Read a frame of the clip as (H, W, 3) uint8. Raises `ClipError`."""
    if not 0 <= frame < len(view.frames):
        raise ClipError(f"There is no frame {frame}: the clip has frames 0 to {len(view.frames) - 1}.")
    return view.frames.read(frame).rgb


def depth_of(session: Session, rgb: np.ndarray, variant: str) -> tuple[np.ndarray, list[str]]:
    """Predict depth (H, W) with the exported file; also return facts about it. Raises `RunFolderError`."""
    path = session.run / "export" / f"depth-{variant}.onnx"
    if variant not in ("fp32", "fp16", "int8") or not path.is_file():
        raise RunFolderError(f"This run has no exported network ({variant}): export it first, under Download.")
    network = _network(path, path.stat().st_mtime_ns)
    started = time.perf_counter()
    depth = network.predict(rgb)
    milliseconds = 1000 * (time.perf_counter() - started)
    near, far = (float(value) for value in np.percentile(depth, (1, 99)))
    return depth, [
        f"{path.name}, {path.stat().st_size / 1e6:.1f} MB",
        f"{milliseconds:.0f} ms on {network.provider.removesuffix('ExecutionProvider')}",
        f"{rgb.shape[1]} × {rgb.shape[0]}",
        f"{near:.3g} to {far:.3g} {network.unit}",
    ]


@lru_cache(maxsize=4)
def _network(path: Path, changed_ns: int) -> OnnxDepth:
    runtime = import_export("runtime")
    try:
        network: OnnxDepth = runtime.OnnxDepth(path)
    except runtime.ModelError as error:
        raise RunFolderError("The exported network cannot be loaded: export it again, under Download.") from error
    return network
