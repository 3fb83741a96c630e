"""Camera paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smooth_path(rng: np.random.Generator, count: int, spread: Sequence[float], every: int = 6) -> np.ndarray:
    """Return a smooth random path (count, len(spread)): random knots every few frames, cosine interpolation."""
    knots = rng.normal(0, 1, (count // every + 3, len(spread))) * np.asarray(spread)
    at = np.arange(count) / every
    low = at.astype(int)
    part = ((1 - np.cos(np.pi * (at - low))) / 2)[:, None]
    return knots[low] * (1 - part) + knots[low + 1] * part
