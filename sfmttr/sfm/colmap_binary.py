"""Check that COLMAP's binary files are complete.

pycolmap reads a damaged file as garbage, for minutes and with gigabytes of memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from sfmttr.errors import ReconstructionError

_IMAGE_HEAD = 4 + 7 * 8 + 4
"""Bytes of image id, rotation, translation and camera id."""
_IMAGE_POINT = 2 * 8 + 8
_POINT_HEAD = 8 + 3 * 8 + 3 + 8
"""Bytes of point id, position, color and error."""
_TRACK_ELEMENT = 2 * 4


def check_binary_model(folder: Path) -> None:
    """Check images.bin and points3D.bin of `folder`, where they exist. Raises `ReconstructionError` when damaged."""
    for name, skip in (("images.bin", _skip_image), ("points3D.bin", _skip_point)):
        path = folder / name
        if path.exists() and not _is_complete(path.read_bytes(), skip):
            raise ReconstructionError(f"The given model cannot be used: {path} is damaged or cut off.")


def _is_complete(data: bytes, skip: Callable[[bytes, int], int]) -> bool:
    """Return whether `data` is a record count followed by exactly that many records."""
    try:
        (count,) = struct.unpack_from("<Q", data, 0)
        position = 8
        for _ in range(count):
            position = skip(data, position)
            if position > len(data):
                return False
    except (struct.error, ValueError):
        return False
    return position == len(data)


def _skip_image(data: bytes, position: int) -> int:
    end_of_name = data.index(b"\0", position + _IMAGE_HEAD) + 1
    (points,) = struct.unpack_from("<Q", data, end_of_name)
    return end_of_name + 8 + points * _IMAGE_POINT


def _skip_point(data: bytes, position: int) -> int:
    (elements,) = struct.unpack_from("<Q", data, position + _POINT_HEAD)
    return position + _POINT_HEAD + 8 + elements * _TRACK_ELEMENT
