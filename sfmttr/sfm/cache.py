"""Reconstructions on disk: COLMAP's binary files, arrays, and a health card in JSON. Folders are written atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import numpy as np

from sfmttr.config import SfmConfig
from sfmttr.errors import ReconstructionError, RunFolderError
from sfmttr.io.atomic import TEMPORARY_PREFIX, atomic_folder
from sfmttr.io.json_files import read_model, write_json
from sfmttr.sfm.protocol import RAW_FILE, RawModel, SfmSettings
from sfmttr.types import FrameSet, SfmAttempt, SfmHealth, SparseModel

_log = logging.getLogger(__name__)
CARD_FILE = "sfm.json"
MAX_CACHED = 100
"""Maximum number of cached reconstructions of some megabytes each."""
_CACHED = re.compile(
    rf"({re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{8}}-)?[0-9a-f]{{32}}"
    r"|\.[0-9a-f]{32}\.[0-9a-f]{32}\.(new|old)"  # temporary names of version 0.1
)
"""Names of cached reconstructions, and of what a killed process left behind."""
_FORMAT = 3
"""Version of the stored format; caches of other versions are not used."""
_MODEL_FILES = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class Card:
    """Health card and attempts, which the arrays do not contain."""

    health: SfmHealth
    rung: str
    attempts: tuple[SfmAttempt, ...]
    seconds: float


def has_model(folder: Path) -> bool:
    return (folder / RAW_FILE).exists()


def _is_whole(folder: Path) -> bool:
    return has_model(folder) and (folder / CARD_FILE).exists()


def publish(source: Path, folder: Path, model: SparseModel) -> None:
    """Copy a finished attempt and its card to `folder` atomically, replacing what was there."""
    card = Card(model.health, model.rung, model.attempts, model.seconds)
    write_json(source / CARD_FILE, card, indent=1, sort_keys=True)
    _copy_folder(source, folder)


def read_card(folder: Path) -> Card:
    """Return the card that `publish` wrote. Raises `ReconstructionError`."""
    if not _is_whole(folder):
        raise ReconstructionError(f"{folder} holds no reconstruction of ours; run structure-from-motion again.")
    advice = "run structure-from-motion again"
    return read_model(folder / CARD_FILE, Card, advice=advice, error_type=ReconstructionError)


def cache_key(frames: FrameSet, config: SfmConfig, planned: Sequence[SfmSettings]) -> str:
    """Return a hash of the pixels and of all settings that shape the result.

    It includes frame names and times: they do not change the model, but what is derived from it.
    """
    settings = asdict(config)
    del settings["model_folder"]
    parts = {
        "format": _FORMAT,
        "pycolmap": version("pycolmap"),
        "opencv": version("opencv-python-headless"),
        "frames": [frames.content_hash, frames.hw, frames.files, frames.time_s, frames.focal_prior_px],
        "from_video": frames.from_video,
        "config": settings,
        "rungs": [asdict(each) for each in planned],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def restore(cached: Path, folder: Path) -> bool:
    """Copy a cached reconstruction to `folder`; return False when there is none that can be read."""
    if not _is_whole(cached):
        return False
    try:
        os.utime(cached)  # marks it as used: `sweep` deletes others first
        _copy_folder(cached, folder)
    except (OSError, RunFolderError) as error:
        _log.warning("a cached reconstruction cannot be used (%s); it is made anew", error)
        return False
    return True


def keep(folder: Path, cached: Path) -> None:
    """Copy a reconstruction into the cache and delete old entries beyond `MAX_CACHED`.

    Failure is logged, not raised: a full or read-only disk is no reason to lose the result.
    """
    try:
        if not _is_whole(cached):
            _copy_folder(folder, cached)
        sweep(cached.parent, most=MAX_CACHED)
    except (OSError, RunFolderError) as error:
        _log.warning("the reconstruction cannot be kept in the cache (%s)", error)


def sweep(cache: Path, keep_s: float = math.inf, most: float = math.inf) -> int:
    """Delete cached reconstructions unused for `keep_s` seconds, and all but the `most` last used ones.

    Return the number of deleted entries.
    """
    if not cache.is_dir():
        return 0
    now, aged = time.time(), []
    for entry in cache.iterdir():
        with suppress(OSError):  # another process may sweep as well
            if _CACHED.fullmatch(entry.name):
                aged.append((now - entry.stat().st_mtime, entry))
    gone = [entry for place, (age_s, entry) in enumerate(sorted(aged)) if age_s > keep_s or place >= most]
    for entry in gone:
        shutil.rmtree(entry, ignore_errors=True)
    return len(gone)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy the files of `source` to `target` atomically."""
    with atomic_folder(target, sync=False) as part:
        for file in source.iterdir():
            if file.is_file() and not file.name.startswith(TEMPORARY_PREFIX):
                shutil.copy2(file, part / file.name)


# ------------------------------------------------------------------------------------------ given models


def find_model(folder: Path) -> Path:
    """Return the folder with the model's files: `folder` itself, or `0`, `sparse`, `sparse/0` in it."""
    return _model_files(folder)[0].parent


def _model_files(folder: Path) -> list[Path]:
    """Return the files of cameras, images and points in one format. Raises `ReconstructionError`."""
    for candidate in (folder, folder / "0", folder / "sparse", folder / "sparse" / "0"):
        for suffix in (".bin", ".txt"):
            paths = [candidate / f"{name}{suffix}" for name in _MODEL_FILES]
            if all(path.is_file() for path in paths):
                return paths
    raise ReconstructionError(
        f"{folder} holds no COLMAP model: cameras, images and points3D as .bin or .txt are needed."
    )


def identity(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, size and modification time (ns) of each file of a given model."""
    paths = [path.resolve() for path in _model_files(folder)]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def match_images(raw: RawModel, frames: FrameSet) -> np.ndarray:
    """Return the frame of each image of the model (V,), -1 for none: by file name, stem, or number.

    Raises `ReconstructionError` when nothing matches, or when two images would be the same frame.
    """
    paths = [PurePosixPath(str(name).replace("\\", "/")) for name in raw.image_name]
    ways = (
        ([path.name for path in paths], frames.files),
        ([path.stem for path in paths], frames.names),
        ([path.stem for path in paths], [Path(file).stem for file in frames.files]),
        ([_number(path.stem) for path in paths], frames.numbers),
    )
    # One criterion for all images: mixing them could match two images to one frame.
    matched = max((_match(keys, targets) for keys, targets in ways), key=lambda found: int((found >= 0).sum()))
    used = matched[matched >= 0]
    if len(used) == 0:
        raise ReconstructionError(
            f"No image of the model is one of the frames: the model has {_examples(raw.image_name)}, "
            f"the frames are {_examples(frames.names)}."
        )
    if len(np.unique(used)) < len(used):
        raise ReconstructionError("Several images of the model have the name of one frame; give a model of one camera.")
    return matched


def _match(keys: Sequence[object], targets: Sequence[object]) -> np.ndarray:
    rows = {target: row for row, target in enumerate(targets)}
    return np.array([rows.get(key, -1) for key in keys], np.int64)


def _number(stem: str) -> int | None:
    found = re.search(r"(\d+)$", stem)
    return int(found.group(1)) if found else None


def _examples(names: Sequence[str] | np.ndarray) -> str:
    return ", ".join(str(name) for name in names[:2]) + (", ..." if len(names) > 2 else "")
