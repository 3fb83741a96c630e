"""Tileable noise and patterns that textures are made of: square arrays of side `size`, values in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.scenes.mesh import Vec


class NoisePool:
    """Fractal noise of several slopes, made once; a draw is a shifted, turned piece of it, which costs nothing."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self._fields = {slope: [_fractal(rng, size, slope) for _ in range(3)] for slope in (0.3, 1.0, 1.6, 2.2)}

    def draw(self, rng: np.random.Generator, slope: float = 1.6) -> np.ndarray:
        """(S, S) in [0, 1], mean 0.5; slope 0.3 is like sand, 1 like plaster, 2.2 like clouds."""
        field = self._fields[slope][rng.integers(3)]
        field = np.rot90(np.roll(field, tuple(rng.integers(0, self.size, 2)), (0, 1)), int(rng.integers(4)))
        return field[:, ::-1] if rng.random() < 0.5 else field


def _fractal(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency**-slope
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.clip(0.5 + 0.2 * field / field.std(), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Cells:
    """A surface divided into bricks, tiles or planks."""

    shade: np.ndarray
    """(S, S) in [0, 1]: one random figure a cell."""
    edge: np.ndarray
    """(S, S): distance to the nearest edge of the cell, in parts of the texture's side."""
    number: np.ndarray
    """(S, S) int: number of the cell."""


def cells(
    rng: np.random.Generator, size: int, rows: int, columns: int, shift: float = 0.5, jitter: float = 0.0
) -> Cells:
    """Rows of cells, each row moved by `shift` of a cell against the last; `jitter` makes sizes uneven, 0 to 1."""
    axis = (np.arange(size) + 0.5) / size
    row_at = _uneven(rng, rows, jitter * 0.6)
    row = np.searchsorted(row_at, axis, side="right") - 1
    y_edge = np.minimum(axis - row_at[row], row_at[row + 1] - axis)
    number, x_edge = np.zeros((size, size), np.int64), np.zeros((size, size))
    for r in range(rows):
        inside = row == r
        column_at = _uneven(rng, columns, jitter)
        x = np.mod(axis + r * shift / columns + (rng.random() if jitter else 0.0), 1.0)
        column = np.searchsorted(column_at, x, side="right") - 1
        number[inside] = r * columns + column
        x_edge[inside] = np.minimum(x - column_at[column], column_at[column + 1] - x)
    return Cells(rng.random(rows * columns)[number], np.minimum(y_edge[:, None], x_edge), number)


def _uneven(rng: np.random.Generator, count: int, jitter: float) -> np.ndarray:
    """(count + 1,) borders from 0 to 1."""
    widths = 1 + jitter * rng.uniform(-0.8, 0.8, count)
    return np.concatenate([[0.0], (widths.cumsum() / widths.sum())[:-1], [1.0 + 1e-9]])


def blend(a: Vec | np.ndarray, b: Vec | np.ndarray, t: np.ndarray) -> np.ndarray:
    """Colours between `a` and `b` (3,) or (S, S, 3), by `t` (S, S)."""
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(a, np.float32) * (1 - t) + np.asarray(b, np.float32) * t


def step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
