"""Detection of the black line that pads odd-sized pictures at the bottom or right, as 4:2:0 video needs even sizes.

The line is not part of the picture, and depth is less accurate where it stays. Independent of the video library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BLACK = 4.0
"""Mean gray level (of 255) that counts as black."""
BLEEDING = 0.1
"""Maximum brightness of a black line relative to the line before it: coarse coding mixes the two."""
CLEARLY_BRIGHTER = 16.0
"""Minimum difference in gray levels between a black line and the picture next to it."""


@dataclass(frozen=True)
class Padding:
    """Number of lines to crop from pictures as stored, before rotation: 0 or 1 on each side."""

    rows: int = 0
    """Rows at the bottom."""
    columns: int = 0
    """Columns at the right."""

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return `picture`, (h, w, ...), without the padding, as a view."""
        return picture[: picture.shape[0] - self.rows, : picture.shape[1] - self.columns]


def padding_of(grays: Iterable[np.ndarray]) -> Padding:
    """Detect the padding of a clip from gray copies, (h, w), of a few frames at their stored size.

    A line is padding when it is black in all frames and the line before it is clearly brighter in most. This excludes
    dark scenes and letterbox bars. Iteration over `grays` stops as soon as no line is black in all frames so far.
    """
    rows, columns = _EdgeLine(), _EdgeLine()
    for gray in grays:
        rows.add(gray)
        columns.add(gray.T)
        if not (rows.always_black or columns.always_black):
            break
    return Padding(int(rows.is_padding), int(columns.is_padding))


class _EdgeLine:
    """Statistics of the last line (row or column) over the pictures of a clip."""

    def __init__(self) -> None:
        self.always_black = True
        self._lines = self._contrasting = 0

    def add(self, gray: np.ndarray) -> None:
        if len(gray) % 2:  # padded sizes are even
            self.always_black = False
            return
        before, last = float(gray[-2].mean()), float(gray[-1].mean())
        self.always_black &= last < max(BLACK, BLEEDING * before)
        self._lines += 1
        self._contrasting += before - last > CLEARLY_BRIGHTER

    @property
    def is_padding(self) -> bool:
        return self.always_black and 2 * self._contrasting > self._lines
