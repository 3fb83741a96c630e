"""Textures of what lies on the ground outdoors."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.scenes.noise import NoisePool, blend, cells, step


def strokes(
    rng: np.random.Generator, size: int, count: int, length: int, width: int = 1, wander: float = 0.6
) -> np.ndarray:
    """(S, S) in [0, 1]: tileable winding lines, such as cracks."""
    image = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, length))
        points = rng.uniform(0, size, 2) + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * size / 60, 0)
        for dx in (-size, 0, size):
            for dy in (-size, 0, size):
                draw.line([tuple(p) for p in points + np.array([dx, dy])], fill=255, width=width)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(size / 900)), np.float32) / 255


def asphalt(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    base = rng.uniform(0.34, 0.56)
    grain = pool.draw(rng, 0.3) - 0.5
    worn = pool.draw(rng, 1.6) - 0.5
    value = base + 0.22 * grain + 0.16 * worn + 0.1 * (pool.draw(rng, 1.0) - 0.5)
    patches = step(pool.draw(rng, 2.2), 0.66, 0.675)
    value = value * (1 - 0.22 * patches * rng.uniform(0, 1))
    value -= 0.22 * strokes(rng, pool.size, int(rng.integers(1, 6)), 45, 1 + pool.size // 400)
    stones = step(pool.draw(rng, 0.3), 0.86, 0.95)
    value += 0.14 * stones
    return blend((0, 0, 0), 1 + rng.uniform(-0.03, 0.03, 3) * (1, 0.3, 1), value)


def concrete(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = rng.uniform(0.55, 0.72) + 0.1 * (pool.draw(rng, 0.3) - 0.5) + 0.22 * (pool.draw(rng, 1.6) - 0.5)
    value -= 0.15 * step(pool.draw(rng, 1.0), 0.7, 0.9) + 0.15 * strokes(rng, pool.size, 1, 50)
    return blend((0, 0, 0), (1.0, 0.98, 0.94), value)


def paving(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    rows = int(rng.choice([3, 4, 6, 8]))
    c = cells(rng, pool.size, rows, int(rng.choice([rows, max(2, rows // 2)])), rng.choice([0.0, 0.5]))
    colour = np.array([(0.6, 0.58, 0.55), (0.62, 0.5, 0.44), (0.5, 0.5, 0.52)][rng.integers(3)])
    value = 0.85 + 0.25 * (c.shade - 0.5) + 0.22 * (pool.draw(rng, 0.3) - 0.5) + 0.35 * (pool.draw(rng, 1.6) - 0.5)
    return blend(colour[None, None] * 0.35, colour * value[..., None], step(c.edge, 0.002, 0.008))


def cobble(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    c = cells(rng, pool.size, 10, 8, 0.5, 0.6)
    value = 0.35 + 0.3 * c.shade + 0.25 * (pool.draw(rng, 1.0) - 0.5)
    value = value * (0.6 + 0.4 * step(c.edge, 0.006, 0.03))
    return blend((0.2, 0.19, 0.16), blend((0, 0, 0), (1, 0.97, 0.93), value), step(c.edge, 0.003, 0.01))


def grass(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    blades = 0.6 * pool.draw(rng, 0.3) + 0.4 * pool.draw(rng, 1.0)
    green = blend((0.17, 0.21, 0.1), (0.52, 0.57, 0.32), blades)
    dry = blend((0.3, 0.26, 0.15), (0.66, 0.6, 0.36), blades)
    out = blend(green, dry, step(pool.draw(rng, 1.6), 0.45, 0.9) * rng.uniform(0.2, 1.0))
    flowers = step(pool.draw(rng, 0.3), 0.93, 0.96)
    return blend(out, (0.9, 0.88, 0.6), flowers * rng.uniform(0, 0.7))


def soil(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = 0.5 * pool.draw(rng, 0.3) + 0.5 * pool.draw(rng, 1.6)
    out = blend((0.2, 0.15, 0.1), (0.62, 0.54, 0.42), value)
    return blend(out, (0.45, 0.35, 0.18), step(pool.draw(rng, 0.3), 0.7, 0.8) * rng.uniform(0, 1))


def gravel(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    c = cells(rng, pool.size, 26, 22, 0.5, 0.9)
    value = 0.3 + 0.45 * c.shade + 0.2 * (pool.draw(rng, 1.0) - 0.5)
    return blend((0.18, 0.16, 0.13), (0.95, 0.9, 0.82), value * step(c.edge, 0.0, 0.012))


def marking(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    worn = step(0.5 * pool.draw(rng, 1.0) + 0.5 * pool.draw(rng, 0.3), 0.5, 0.75)
    white = 0.9 + 0.12 * (pool.draw(rng, 1.0) - 0.5)
    return blend(blend((0, 0, 0), (1, 1, 0.97), white), (0.5, 0.5, 0.5), worn * rng.uniform(0.4, 1.0))


def manhole(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    axis = (np.arange(pool.size) + 0.5) / pool.size - 0.5
    radius = np.hypot(axis[:, None], axis)
    bars = np.sin(axis[:, None] * 70) * np.sin(axis * 70) > 0.25
    value = 0.3 + 0.22 * bars + 0.25 * (pool.draw(rng, 1.0) - 0.5)
    value = np.where((radius > 0.4) & (radius < 0.42), 0.12, value)
    value = np.where(radius > 0.48, 0.42 + 0.2 * (pool.draw(rng, 0.3) - 0.5), value)
    return blend((0, 0, 0), (1, 0.96, 0.92), value)


GROUND = {
    "asphalt": (5, asphalt),
    "concrete": (3, concrete),
    "paving": (5, paving),
    "cobble": (2, cobble),
    "grass": (4, grass),
    "soil": (2, soil),
    "gravel": (2, gravel),
    "marking": (2, marking),
    "manhole": (1, manhole),
}
"""Number of variants of each texture, and the function that makes them."""
