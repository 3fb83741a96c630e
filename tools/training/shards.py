"""Generated scenes, held in memory: one `.npz` a scene."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.scenes.dataset import read_shard

HELD_OUT_SHARE = 25
"""One scene in so many is never trained on."""


@dataclass(frozen=True)
class Scene:
    """Pictures of one place."""

    name: str
    rgb: np.ndarray
    """(V, H, W, 3) uint8."""
    depth: np.ndarray
    """(V, H, W) float16 metres, 0 = sky."""
    fx_px: np.ndarray
    """(V,) float32, focal lengths at this size."""

    def __post_init__(self) -> None:
        views = self.rgb.shape[0]
        if self.rgb.shape != (*self.depth.shape, 3) or self.fx_px.shape != (views,):
            raise ValueError(f"{self.rgb.shape=} {self.depth.shape=} {self.fx_px.shape=} do not agree")

    def __len__(self) -> int:
        return len(self.rgb)


def read_scene(path: Path) -> Scene:
    """One file of `tools/scenes/dataset.py`."""
    shard = read_shard(path)
    return Scene(path.stem, shard.rgb, shard.depth_m.astype(np.float16), shard.fx_px)


def _read_if_whole(path: Path) -> Scene | None:
    try:
        return read_scene(path)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError):
        return None


def is_held_out(name: str) -> bool:
    """Return True for validation scenes. The name alone decides, so that the split is stable when data grows."""
    return zlib.crc32(name.encode()) % HELD_OUT_SHARE == 0


class Library:
    """All scenes of some folders; `refresh` takes in those that came since."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._known: set[Path] = set()
        self.train: list[Scene] = []
        self.held_out: list[Scene] = []

    def refresh(self) -> int:
        """Read what is new, in the order of names; how many scenes that was. A file half written is left for later."""
        paths = sorted(path for folder in self._folders for path in folder.rglob("*.npz") if path not in self._known)
        before = len(self._known)
        with ThreadPoolExecutor(2) as pool:  # unpacking releases the GIL
            for path, scene in zip(paths, pool.map(_read_if_whole, paths), strict=True):
                if scene is not None:
                    self._known.add(path)
                    (self.held_out if is_held_out(scene.name) else self.train).append(scene)
        return len(self._known) - before

    def describe(self) -> str:
        views = sum(map(len, self.train))
        return f"{len(self.train)} scenes with {views} views to learn from, {len(self.held_out)} scenes held out"
