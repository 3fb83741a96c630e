"""Detect the black line at the bottom or right of odd-sized pictures: 4:2:0 video needs even sizes.

The line is not part of the picture and costs accuracy if it stays. Independent of the video library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BLACK = 4.0
"""Mean gray level (of 255) that counts as black."""
BLEEDING = 0.1
"""Share of the neighboring line that strong compression mixes into a black one."""
CLEARLY_BRIGHTER = 16.0
"""Minimum difference in gray levels between a padding line and the picture beside it."""


@dataclass(frozen=True)
class Padding:
    """Lines to crop from stored pictures, before rotation: none or one on each side."""

    rows: int = 0
    """At the bottom."""
    columns: int = 0
    """At the right."""

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Return (h, w, ...) without the padding, as a view."""
        return picture[: picture.shape[0] - self.rows, : picture.shape[1] - self.columns]


def padding_of(grays: Iterable[np.ndarray]) -> Padding:
    """Return the padding of a clip, from (h, w) gray copies of a few frames at their stored size.

    A line is padding when it is black in all frames and the line before it is clearly brighter in most. Dark scenes and
    letterbox bars are not padding. Stops reading `grays` as soon as no line is black.
    """
    rows, columns = _EdgeLine(), _EdgeLine()
    for gray in grays:
        rows.add(gray)
        columns.add(gray.T)
        if not (rows.always_black or columns.always_black):
            break
    return Padding(int(rows.is_padding), int(columns.is_padding))


class _EdgeLine:
    """Statistics of the last line of a clip's pictures."""

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
