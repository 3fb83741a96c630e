"""What a run leaves behind beside its report: depth, pictures, video, clouds, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file
from sfmttr.types import DepthKind, FrameSet


def write_maps(path: Path, maps: np.ndarray, kind: DepthKind, frames: FrameSet) -> None:
    """`maps` (N, h, w) of a clip with the names of its frames, uncompressed (they are read again), atomically."""
    with atomic_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            depth=maps,
            kind=np.array(str(kind)),
            names=np.array(frames.names),
            frame_hw=np.array(frames.hw),
        )


def read_maps(path: Path) -> np.ndarray:
    """(N, h, w) float32 of a file that `write_maps` wrote. Raises `RunFolderError` when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["depth"]
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{path.name} is damaged ({error}); delete it and run again.") from error


def read_aligned(folder: Path, network_scale: float) -> np.ndarray:
    """(N, h, w) float32: the unrefined network with the best scale (and shift), of the `depth/` folder of a run.

    Raises `RunFolderError` when it is damaged.
    """
    path = folder / "aligned.npz"
    if path.is_file():
        return read_maps(path)
    return read_maps(folder / "before.npz") * np.float32(network_scale)
