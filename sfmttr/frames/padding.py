"""The black line that odd-sized pictures are given at the bottom or the right, as 4:2:0 video wants even sizes.

It is no part of the picture and costs accuracy where it stays. Knows no video library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BLACK = 4.0
"""Mean gray level, of 255, that counts as black in any picture."""
BLEEDING = 0.1
"""Coarse coding mixes this share of the line before into a black one."""
CLEARLY_BRIGHTER = 16.0
"""Grey levels between a black line and a picture that ends beside it."""


@dataclass(frozen=True)
class Padding:
    """Lines to cut off pictures as they are stored, before any turning: none or one a side."""

    rows: int = 0
    """At the bottom."""
    columns: int = 0
    """At the right."""

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, ...) without the padding, as a view."""
        return picture[: picture.shape[0] - self.rows, : picture.shape[1] - self.columns]


def padding_of(grays: Iterable[np.ndarray]) -> Padding:
    """What pads a clip, from (h, w) gray copies of a few of its frames in the size that they are stored in.

    A line is padding when it is black in all of them and the one before it is clearly brighter in most: a dark scene
    or the bars of a letterbox are not. Looks at no more of `grays` once nothing is found to be black.
    """
    rows, columns = _EdgeLine(), _EdgeLine()
    for gray in grays:
        rows.add(gray)
        columns.add(gray.T)
        if not (rows.always_black or columns.always_black):
            break
    return Padding(int(rows.is_padding), int(columns.is_padding))


class _EdgeLine:
    """The last line of the pictures of a clip."""

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
