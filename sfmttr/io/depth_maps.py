"""Depth maps of a whole clip in one npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file
from sfmttr.types import DepthKind, FrameSet


def write_maps(path: Path, maps: np.ndarray, kind: DepthKind, frames: FrameSet) -> None:
    """Write `maps` (N, h, w) with kind, frame names and frame size, atomically; uncompressed, for fast reading."""
    with atomic_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            depth=maps,
            kind=np.array(str(kind)),
            names=np.array(frames.names),
            frame_hw=np.array(frames.hw),
        )


def read_maps(path: Path) -> np.ndarray:
    """Return the (N, h, w) float32 maps that `write_maps` wrote. Raises `RunFolderError` when they are damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["depth"]
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{path.name} is damaged ({error}); delete it and run again.") from error


def read_aligned(folder: Path, network_scale: float) -> np.ndarray:
    """Return the unrefined depth with the best scale (and shift) as (N, h, w) float32. `folder`: `depth/` of a run.

    Raises `RunFolderError` when it is damaged.
    """
    path = folder / "aligned.npz"
    if path.is_file():
        return read_maps(path)
    return read_maps(folder / "before.npz") * np.float32(network_scale)
