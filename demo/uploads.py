"""Uploads of visitors, hostile until checked: moved under safe names into a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sfmttr.errors import ClipError
from sfmttr.frames.loader import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg"})
ZIP = ".zip"
ACCEPTED = tuple(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES | {ZIP}))
# Characters of a long name that are kept: what tells files apart, and orders them, is mostly at the end.
_NAME_START, _NAME_END = 50, 30
_CLIP = "clip"


def keep_upload(files: Sequence[str | Path], folder: Path, max_bytes: int, max_files: int) -> Path:
    """Take over one video, one zip, or several images into `folder`; return the clip: a file, or a folder of images.

    Raises `ClipError` for anything else. `sfmttr.frames.loader` checks the contents.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ClipError("Choose a video, several images, or a zip of images first.")
    if len(paths) > max_files:
        raise ClipError(f"These are {len(paths)} files: upload at most {max_files} images, or one zip of them.")
    total = sum(_size(path) for path in paths)
    if total > max_bytes:
        raise ClipError(f"The upload has more than {max_bytes // 1_000_000} MB: cut the clip, or reduce its size.")
    kinds = {_kind(path) for path in paths}
    if kinds == {"image"} and len(paths) > 1:
        return _keep_images(paths, folder / _CLIP)
    if kinds == {"image"}:
        raise ClipError("One picture shows no motion: upload a video, or several pictures of the same place.")
    if len(paths) > 1:
        raise ClipError("Upload either one video, or one zip, or several images.")
    target = folder / safe_name(paths[0].name)
    _link_or_copy(paths[0], target)
    return target


def safe_name(name: str) -> str:
    """Return a file name without characters that a path or a shell could trip over."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix.lower()
    safe = re.sub(r"[^\w-]+", "_", stem)
    if len(safe) > _NAME_START + _NAME_END:
        safe = safe[:_NAME_START] + safe[-_NAME_END:]
    return (safe.strip("_") or _CLIP) + suffix


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES or suffix == ZIP:
        return "clip"
    shown = suffix or "without an extension"
    raise ClipError(f"Files {shown} are not supported: upload a video (MP4, MOV, WebM, ...), several images, or a zip.")


def _keep_images(paths: Sequence[Path], folder: Path) -> Path:
    folder.mkdir(parents=True)
    taken: set[str] = set()
    for path in paths:
        name = first = Path(safe_name(path.name))
        number = 1
        while str(name).casefold() in taken:
            number += 1
            name = first.with_stem(f"{first.stem}_{number}")
        taken.add(str(name).casefold())
        _link_or_copy(path, folder / name)
    return folder


def _link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ClipError(f"{path.name} did not arrive: please upload it again.") from error
