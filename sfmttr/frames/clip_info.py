"""Kind and properties of a clip, before its frames are read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sfmttr.errors import ClipError
from sfmttr.types import HW


class ClipKind(StrEnum):
    """Form of a clip on disk."""

    VIDEO = "video"
    FOLDER = "folder"
    ZIP = "zip"


@dataclass(frozen=True)
class ClipInfo:
    """Properties of a clip, from its header and first frame."""

    kind: ClipKind
    duration_s: float | None
    """Duration in seconds; None for images, and for videos whose header does not give it."""
    hw: HW
    """Upright size in pixels of the source, (height, width)."""
    frames: int | None
    """Number of frames or images in the source; None when the header does not give it."""
    frames_to_use: int
    """Upper bound on the number of frames kept; blurred frames and near-duplicates are dropped."""
    codec: str
    """Codec of a video, e.g. "h264"; "images" otherwise."""


def kind_of(clip: Path) -> ClipKind:
    """Return the kind of `clip`, by its content. Raises `ClipError` when it is missing, unreadable or empty."""
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
