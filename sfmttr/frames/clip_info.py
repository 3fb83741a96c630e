"""What a clip is on disk, before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sfmttr.errors import ClipError
from sfmttr.types import HW


class ClipKind(StrEnum):
    """What a clip is on disk."""

    VIDEO = "video"
    FOLDER = "folder"
    ZIP = "zip"


@dataclass(frozen=True)
class ClipInfo:
    """What can be said about a clip before anything is done with it."""

    kind: ClipKind
    duration_s: float | None
    """None for images, and for videos whose header does not say."""
    hw: HW
    """Upright, in the source's pixels."""
    frames: int | None
    """Frames or images in the source; None when the header does not say."""
    frames_to_use: int
    """At most this many are going to be kept (blurred neighbours and near-duplicates are not)."""
    codec: str
    """Of a video, e.g. "h264"; "images" otherwise."""


def kind_of(clip: Path) -> ClipKind:
    """Raises `ClipError` for what is not there, or empty."""
    try:
        if clip.is_dir():
            return ClipKind.FOLDER
        if not clip.is_file():
            raise ClipError(f"there is no clip at {clip}; check the path")
        with clip.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ClipError(f"{clip} cannot be read ({error.strerror or error}); check its permissions") from error
    if not start:
        raise ClipError(f"{clip.name} is empty; upload or copy it again")
    return ClipKind.ZIP if start == b"PK\3\4" or clip.suffix.lower() == ".zip" else ClipKind.VIDEO
