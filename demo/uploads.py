"""What visitors upload, hostile until checked: moved under plain names into a folder of their own."""

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
_NAME_START, _NAME_END = 50, 30
"""Of a long name, so many characters stay: what tells files apart, and orders them, is mostly at the end."""
_CLIP = "clip"


def keep_upload(files: Sequence[str | Path], folder: Path, max_bytes: int, max_files: int) -> Path:
    """Take over one video, one zip, or several images into `folder`; give the clip: a file, or a folder of images.

    Raises `ClipError`, in one sentence, for anything else. `sfmttr.frames.loader` checks their contents.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ClipError("Choose a video, several images, or a zip of images first.")
    if len(paths) > max_files:
        raise ClipError(f"These are {len(paths)} files; give at most {max_files} images, or one zip of them.")
    total = sum(_size(path) for path in paths)
    if total > max_bytes:
        raise ClipError(f"This is more than {max_bytes // 1_000_000} MB; cut the clip, or make it smaller.")
    kinds = {_kind(path) for path in paths}
    if kinds == {"image"} and len(paths) > 1:
        return _keep_images(paths, folder / _CLIP)
    if kinds == {"image"}:
        raise ClipError("One picture shows no motion: give a video, or several pictures of the same place.")
    if len(paths) > 1:
        raise ClipError("Give one video, or one zip, or several images: not a mixture of them.")
    target = folder / safe_name(paths[0].name)
    _take(paths[0], target)
    return target


def safe_name(name: str) -> str:
    """A file's own name with nothing in it that a path or a shell could trip over."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix.lower()
    plain = re.sub(r"[^\w-]+", "_", stem)
    if len(plain) > _NAME_START + _NAME_END:
        plain = plain[:_NAME_START] + plain[-_NAME_END:]
    return (plain.strip("_") or _CLIP) + suffix


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES or suffix == ZIP:
        return "clip"
    shown = suffix or "without an ending"
    raise ClipError(f"Files {shown} cannot be used: give a video (MP4, MOV, WebM, ...), several images, or a zip.")


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
        _take(path, folder / name)
    return folder


def _take(source: Path, target: Path) -> None:
    """A second name for the same bytes where that can be, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ClipError(f"{path.name} did not arrive: please upload it again.") from error
