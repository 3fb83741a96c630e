"""Tileable textures with mip levels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TEXTURE_SIZE = 1024
MATERIALS = 6


def _blur_wrapped(values: np.ndarray, sigma: float) -> np.ndarray:
    fy = np.fft.fftfreq(values.shape[0])[:, None]
    fx = np.fft.rfftfreq(values.shape[1])[None]
    return np.fft.irfft2(np.fft.rfft2(values) * np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2)), values.shape)


@lru_cache(maxsize=1)
def texture_pyramids() -> tuple[np.ndarray, np.ndarray]:
    """Return all mip levels of all materials, flat (MATERIALS, L) in [0, 1], and the offset of each level.

    They are the same for every scene; the seed of a scene chooses the parts that it uses.
    """
    rng = np.random.default_rng([0, 77])
    size = TEXTURE_SIZE
    pyramids = []
    for _ in range(MATERIALS):
        # Value noise in octaves: random grids, each enlarged with wrapped bilinear interpolation.
        values = np.zeros((size, size), np.float32)
        for octave in range(3, 9):
            cells = 2**octave
            grid = rng.standard_normal((cells, cells)).astype(np.float32)
            at = (np.arange(size) + 0.5) * cells / size - 0.5
            low = np.floor(at).astype(int)
            part = (at - low).astype(np.float32)
            low, high = low % cells, (low + 1) % cells
            rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
            values += (rows[:, low] * (1 - part) + rows[:, high] * part) * np.float32(0.75 ** (octave - 3))
        values /= values.std()
        # Blobs and bricks at all scales: sharp corners that a detector of features likes, more small ones than large.
        for radius, count in ((70, 25), (34, 100), (17, 350), (9, 1100), (5, 2600)):
            half = np.maximum(2, rng.uniform(0.5, 1.0, (count, 2)) * radius).astype(int)
            corner = rng.integers(0, size, (count, 2))
            level = rng.normal(0, 1.3, count).astype(np.float32)
            disc = rng.random(count) < 0.5
            for (hy, hx), (y, x), add, is_disc in zip(half, corner, level, disc, strict=True):
                height, width = min(2 * hy, size - y), min(2 * hx, size - x)
                patch = values[y : y + height, x : x + width]
                if is_disc:
                    yy, xx = np.ogrid[:height, :width]
                    patch += add * (((yy - hy + 0.5) / hy) ** 2 + ((xx - hx + 0.5) / hx) ** 2 < 1)
                else:
                    patch += add
        values = _blur_wrapped(values, 0.8)
        values = 0.5 + 0.5 * np.tanh(0.55 * (values - values.mean()) / values.std())
        levels = [values]
        while levels[-1].shape[0] > 4:
            side = levels[-1].shape[0] // 2
            levels.append(levels[-1].reshape(side, 2, side, 2).mean(axis=(1, 3)))
        pyramids.append(np.concatenate([level.ravel() for level in levels]))
    starts = np.cumsum([0, *((TEXTURE_SIZE >> level) ** 2 for level in range(len(levels) - 1))])
    return np.stack(pyramids).astype(np.float32), starts.astype(np.int32)
