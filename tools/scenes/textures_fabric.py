"""Textures of fabric, wallpaper and plants."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from tools.scenes.noise import NoisePool, blend, step


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) that go together: one hue and a little about it."""
    hue, out = rng.random(), []
    for _ in range(count):
        h = (hue + rng.normal(0, 0.12)) % 1.0
        rgb = np.clip(np.abs((h * 6 - np.array([3.0, 2.0, 4.0])) % 6 - 3) - 1, 0, 1)
        out.append(rng.uniform(0.25, 0.9) * (1 - rng.uniform(0.05, 0.45) * (1 - rgb)))
    return np.array(out)


def fabric(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    size = pool.size
    axis = np.arange(size) / size
    weave = 0.5 + 0.25 * (np.sin(axis * 2 * np.pi * size / 4)[:, None] + np.sin(axis * 2 * np.pi * size / 4))
    a, b, c = _colours(rng, 3)
    pattern = rng.integers(4)
    if pattern == 0:
        mask = step(pool.draw(rng, 1.0), 0.45, 0.6)
    elif pattern == 1:
        mask = np.broadcast_to(np.repeat(rng.random(16), size // 16), (size, size))
    elif pattern == 2:
        stripe = np.repeat(rng.random(16), size // 16)
        mask = 0.5 * stripe[:, None] + 0.5 * stripe
    else:
        mask = step(pool.draw(rng, 2.2), 0.5, 0.52)
    out = blend(blend(a, b, mask), c, 0.5 * pool.draw(rng, 1.0))
    return out * (0.7 + 0.2 * weave + 0.3 * pool.draw(rng, 0.3))[..., None]


def rug(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    size, small = pool.size, 32
    half = rng.integers(0, 4, (small, small // 2))
    grid = np.concatenate([half, half[:, ::-1]], axis=1)
    grid = np.concatenate([grid[: small // 2], grid[: small // 2][::-1]])
    grid[[1, 2, -2, -3]] = 3
    grid[:, [1, 2, -2, -3]] = 3
    out = np.kron(_colours(rng, 4)[grid], np.ones((size // small, size // small, 1)))
    return out * (0.65 + 0.4 * pool.draw(rng, 0.3) + 0.3 * pool.draw(rng, 1.6))[..., None]


def carpet(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    a = _colours(rng, 1)[0] * 0.7 + 0.1
    value = 0.6 + 0.5 * pool.draw(rng, 0.3) + 0.3 * (pool.draw(rng, 1.6) - 0.5)
    return blend((0, 0, 0), a, value)


def wallpaper(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    size, repeat = pool.size, int(rng.choice([4, 6, 8]))
    cell = size // repeat
    image = Image.new("RGB", (cell * 3, cell * 3))
    draw = ImageDraw.Draw(image)
    colours = [tuple(int(c) for c in 255 * (0.45 + 0.55 * c)) for c in _colours(rng, 4)]
    draw.rectangle((0, 0, 3 * cell, 3 * cell), fill=colours[0])
    for _ in range(int(rng.integers(3, 9))):
        x, y, w, h = rng.uniform(0, cell), rng.uniform(0, cell), *rng.uniform(0.1, 0.5, 2) * cell
        colour, oval = colours[rng.integers(1, 4)], rng.random() < 0.6
        for dx in (0, cell, 2 * cell):
            for dy in (0, cell, 2 * cell):
                box = (x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2)
                (draw.ellipse if oval else draw.arc)(box, *((colour,) if oval else (0, 300, colour)))
    tile = np.asarray(image, np.float32)[cell : 2 * cell, cell : 2 * cell] / 255
    out = np.tile(tile, (repeat + 1, repeat + 1, 1))[:size, :size]
    return out * (0.94 + 0.06 * pool.draw(rng, 0.3) + 0.06 * (pool.draw(rng, 1.6) - 0.5))[..., None]


def _scatter(
    rng: np.random.Generator, size: int, count: int, length: tuple[float, float], greens: np.ndarray, reach: float
) -> np.ndarray:
    """(S, S, 4): leaves thrown over a square, within `reach` of its middle (1: all over it), later ones brighter."""
    image = Image.new("RGBA", (size, size), (*(int(255 * c) for c in greens.mean(axis=0) * 0.7), 0))
    draw = ImageDraw.Draw(image)
    for i in range(count):
        middle = rng.uniform(0, size, 2) if reach >= 1 else size * (0.5 + reach * 0.24 * rng.standard_normal(2))
        way, half = rng.uniform(0, 2 * np.pi), rng.uniform(*length) * size / 2
        d = np.array([np.cos(way), np.sin(way)])
        n = np.array([-d[1], d[0]]) * rng.uniform(0.25, 0.5)
        points = [middle - half * d, middle + half * n, middle + half * d, middle - half * n]
        shade = (0.45 + 0.65 * i / count) * rng.uniform(0.75, 1.15)
        colour = tuple(int(c) for c in np.clip(255 * shade * greens[rng.integers(len(greens))], 0, 255))
        for dx, dy in [(0, 0)] if reach < 1 else [(a, b) for a in (-size, 0, size) for b in (-size, 0, size)]:
            draw.polygon([(p[0] + dx, p[1] + dy) for p in points], fill=(*colour, 255))
    return np.asarray(image, np.float32) / 255


def _greens(rng: np.random.Generator) -> np.ndarray:
    base = np.array([(0.36, 0.48, 0.18), (0.48, 0.56, 0.22), (0.3, 0.42, 0.22), (0.58, 0.5, 0.2)][rng.integers(4)])
    return np.clip(base * rng.uniform(0.8, 1.2, (5, 3)), 0, 1)


def leaves(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    return _scatter(rng, pool.size, 170, (0.07, 0.16), _greens(rng), 0.85)


def twigs(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Needles and grass."""
    return _scatter(rng, pool.size, 420, (0.12, 0.24), _greens(rng) * 0.8, 0.8)


def hedge(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    out = _scatter(rng, pool.size, 700, (0.03, 0.07), _greens(rng), 1.0)[..., :3]
    return out * (0.6 + 0.8 * pool.draw(rng, 1.6))[..., None]


def plant(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    return _scatter(rng, pool.size, 26, (0.25, 0.5), np.clip(_greens(rng) * 1.2, 0, 1), 0.6)


def bark(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = np.abs(np.roll(pool.draw(rng, 1.0), 3, 0)[:, (np.arange(pool.size) * 4) % pool.size] - 0.5) * 2
    return blend((0.15, 0.12, 0.09), (0.5, 0.43, 0.35), 0.6 * step(value, 0, 0.8) + 0.5 * pool.draw(rng, 0.3))


def treeline(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Far trees against the sky; v = 0 is their top."""
    size = pool.size
    top = (0.05 + 0.4 * pool.draw(rng, 1.6)[0] + 0.06 * pool.draw(rng, 1.0)[0]) * size
    green = blend((0.1, 0.13, 0.07), (0.36, 0.42, 0.24), pool.draw(rng, 1.0) + 0.3 * (pool.draw(rng, 0.3) - 0.5))
    solid = np.arange(size)[:, None] > top
    return np.concatenate([green, solid[..., None]], axis=2)


FABRIC = {
    "fabric": (6, fabric),
    "rug": (3, rug),
    "carpet": (3, carpet),
    "wallpaper": (4, wallpaper),
    "leaves": (5, leaves),
    "twigs": (2, twigs),
    "hedge": (4, hedge),
    "plant": (3, plant),
    "bark": (2, bark),
    "treeline": (2, treeline),
}
"""Number of variants of each texture, and the function that makes them."""
