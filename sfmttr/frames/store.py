"""Frames on disk: lossless PNG files and a `frames.json`, written atomically."""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_folder, explain_disk_errors
from sfmttr.io.json_files import read_model, write_json
from sfmttr.types import HW, FrameSet, SkippedFrame

INDEX = "frames.json"
VERSION = 1
_MAX_PENDING = 4
"""Maximum number of pictures held in memory until they are written."""


class FrameStore:
    """Writer of frames, one after the other; `frame_store` publishes or discards the result.

    Compressing a picture takes longer than decoding it, so the executor `writers` compresses a few in parallel.
    """

    def __init__(self, part: Path, folder: Path, writers: Executor) -> None:
        """Write into `part`, the temporary folder that is renamed to `folder`; `folder` appears in error messages."""
        self._part, self._folder, self._writers = part, folder, writers
        self._hash = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()
        self.files: list[str] = []

    @property
    def content_hash(self) -> str:
        """SHA-256 over sizes and pixels of the frames added so far."""
        return self._hash.hexdigest()

    def add(self, rgb: Image.Image) -> None:
        """Store a picture. Raises `RunFolderError` when this or an earlier picture cannot be written."""
        self._wait(_MAX_PENDING - 1)
        name = f"{len(self.files):06d}.png"
        pixels = np.asarray(rgb)  # decodes lazily loaded pictures here, because two threads must not do so at once
        # Run-length encoding is faster than deflate's match search and, on filtered photographs, smaller too.
        save = partial(rgb.save, self._part / name, compress_level=1, compress_type=zlib.Z_RLE)
        self._pending.append(self._writers.submit(save))
        self._hash.update(repr(pixels.shape).encode())
        self._hash.update(pixels.tobytes())
        self.files.append(name)

    def write_index(self, frames: FrameSet) -> None:
        """Write `frames.json` last. Raises `RunFolderError` when it or an earlier picture cannot be written."""
        self._wait(0)
        write_json(self._part / INDEX, FramesIndex.of(frames), indent=1)

    def _wait(self, max_pending: int) -> None:
        """Block until at most `max_pending` pictures are still being written."""
        while len(self._pending) > max_pending:
            with explain_disk_errors(self._folder):
                self._pending.popleft().result()


@contextmanager
def frame_store(folder: Path) -> Iterator[FrameStore]:
    """Yield a store that is renamed to `folder` on success and deleted when the block raises.

    An earlier frame set in `folder` is replaced. Raises `RunFolderError` when `folder` holds anything else.
    """
    with explain_disk_errors(folder):
        _refuse_foreign(folder)
    # No fsync: image sizes are checked before the frames are used again, so waiting for the disk buys nothing.
    with atomic_folder(folder, sync=False) as part, ThreadPoolExecutor(max_workers=2) as writers:
        yield FrameStore(part, folder, writers)


@dataclass(frozen=True)
class FramesIndex:
    """Content of `frames.json`: a `FrameSet` without its folder, so that a run folder can be moved."""

    # Another version may use the same keys with other meanings.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    version: int
    files: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    time_s: tuple[float, ...]
    hw: HW
    source_hw: HW
    source_count: int
    from_video: bool
    content_hash: str
    focal_prior_px: float | None
    skipped: tuple[SkippedFrame, ...]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"version {self.version}, expected {VERSION}")

    @classmethod
    def of(cls, frames: FrameSet) -> FramesIndex:
        return cls(VERSION, **{name: value for name, value in vars(frames).items() if name != "folder"})

    def frame_set(self, folder: Path) -> FrameSet:
        return FrameSet(folder, **{name: value for name, value in vars(self).items() if name != "version"})


def frame_set_from_folder(folder: Path) -> FrameSet:
    """Load a stored frame set without decoding any image.

    Raises `RunFolderError` when `folder` holds no frame set, or images of it are missing.
    """
    try:
        frames = read_model(folder / INDEX, FramesIndex).frame_set(folder)
    except (RunFolderError, ValueError) as error:
        raise RunFolderError(f"{folder} holds no frames of ours; start the run again in an empty folder") from error
    # The index may have been tampered with: names that point outside the folder are refused.
    missing = [name for name in frames.files if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise RunFolderError(f"{folder} lacks {missing[0]} and {len(missing) - 1} more frames; start the run again")
    return frames


def _refuse_foreign(folder: Path) -> None:
    ours_or_empty = not folder.exists() or (
        folder.is_dir() and ((folder / INDEX).is_file() or not any(folder.iterdir()))
    )
    if not ours_or_empty:
        raise RunFolderError(f"{folder} holds something else; choose an empty folder for the frames")
