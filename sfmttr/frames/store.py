"""Frames on disk: lossless PNGs and a `frames.json`, written as a whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfmttr.errors import RunFolderError
from sfmttr.types import FrameSet, SkippedFrame

INDEX = "frames.json"
VERSION = 1
_MOST_PENDING = 4
"""Pictures that are held in memory until they are written."""


class FrameStore:
    """Takes frames one after the other; `frame_store` decides what becomes of them.

    Compressing a picture takes longer than decoding it: `writers` does it meanwhile, for a few pictures at most.
    """

    def __init__(self, folder: Path, writers: Executor) -> None:
        self._folder, self._writers = folder, writers
        self._hash = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()
        self.files: list[str] = []

    @property
    def content_hash(self) -> str:
        """sha256 over sizes and pixels of the frames added so far."""
        return self._hash.hexdigest()

    def add(self, rgb: Image.Image) -> None:
        """Store a picture. Raises `RunFolderError` when the disk does not take it, or one of those before it."""
        self._wait(_MOST_PENDING - 1)
        name = f"{len(self.files):06d}.png"
        pixels = np.asarray(rgb)  # first: it decodes what is not decoded yet, which two threads must not do at once
        # Run-length matching alone is quicker than deflate's search and, on filtered photographs, smaller too.
        save = partial(rgb.save, self._folder / name, compress_level=1, compress_type=zlib.Z_RLE)
        self._pending.append(self._writers.submit(save))
        self._hash.update(repr(pixels.shape).encode())
        self._hash.update(pixels.tobytes())
        self.files.append(name)

    def write_index(self, frames: FrameSet) -> None:
        """End with `frames.json`. Raises `RunFolderError` when the disk does not take it, or a picture before it."""
        self._wait(0)
        with _disk_errors(self._folder.parent):
            (self._folder / INDEX).write_text(to_json(frames), encoding="utf-8")

    def _wait(self, most: int) -> None:
        """Until at most `most` pictures are still being written."""
        while len(self._pending) > most:
            with _disk_errors(self._folder.parent):
                self._pending.popleft().result()


@contextmanager
def frame_store(folder: Path) -> Iterator[FrameStore]:
    """A store that becomes `folder` when the block ends well, and vanishes when anything is raised in it.

    An earlier frame set in `folder` is replaced. Raises `RunFolderError` when something else is in there.
    """
    with _disk_errors(folder):
        _refuse_foreign(folder)
    token = secrets.token_hex(4)
    partial_folder = folder.with_name(f".{folder.name}.{token}.partial")
    replaced = folder.with_name(f".{folder.name}.{token}.old")
    try:
        with _disk_errors(folder):
            partial_folder.mkdir(parents=True)
        with ThreadPoolExecutor(max_workers=2) as writers:
            yield FrameStore(partial_folder, writers)
        with _disk_errors(folder):
            if folder.exists():
                folder.rename(replaced)
            partial_folder.rename(folder)
    finally:
        # After a good end only what was replaced is left to remove.
        shutil.rmtree(partial_folder, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def to_json(frames: FrameSet) -> str:
    """Everything but the folder, so that a run may be moved."""
    values = {key: value for key, value in asdict(frames).items() if key != "folder"}
    return json.dumps({"version": VERSION, **values}, indent=1)


def from_json(text: str, folder: Path) -> FrameSet:
    """The frame set that `to_json` wrote. Raises ValueError, KeyError or TypeError when it did not."""
    values: dict[str, Any] = json.loads(text)
    if values.pop("version") != VERSION:
        raise ValueError("another version")
    skipped = tuple(SkippedFrame(**each) for each in values.pop("skipped"))
    expected = {field.name for field in fields(FrameSet)} - {"folder", "skipped"}
    if values.keys() != expected:
        raise ValueError(f"fields differ: {sorted(values.keys() ^ expected)}")
    tuples: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return FrameSet(folder=folder, skipped=skipped, **tuples)


def frame_set_from_folder(folder: Path) -> FrameSet:
    """Reload a stored frame set without decoding anything.

    Raises `RunFolderError` when `folder` holds none, or images of it are gone.
    """
    try:
        frames = from_json((folder / INDEX).read_text(encoding="utf-8"), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder} holds no frames of ours; start the run again in an empty folder") from error
    # Names come from a file that may have been tampered with: nothing outside of the folder is ever read.
    missing = [name for name in frames.files if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise RunFolderError(f"{folder} lacks {missing[0]} and {len(missing) - 1} more frames; start the run again")
    return replace(frames, folder=folder)


def _refuse_foreign(folder: Path) -> None:
    ours_or_empty = not folder.exists() or (
        folder.is_dir() and ((folder / INDEX).is_file() or not any(folder.iterdir()))
    )
    if not ours_or_empty:
        raise RunFolderError(f"{folder} holds something else; choose an empty folder for the frames")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the file system raises while writing into one clear sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(f"the disk that holds {folder} is full; free some space and start again") from error
        raise RunFolderError(f"cannot write {folder} ({error.strerror or error}); choose another folder") from error
