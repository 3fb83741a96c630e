"""Textures of walls and roofs, and of wood and metal."""

from __future__ import annotations

import numpy as np

from tools.scenes.noise import NoisePool, blend, cells, step
from tools.scenes.textures_ground import strokes


def brick(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    c = cells(rng, pool.size, 14, 4, 0.5, 0.04)
    a, b = [
        ((0.5, 0.22, 0.15), (0.72, 0.42, 0.3)),
        ((0.42, 0.3, 0.22), (0.7, 0.54, 0.4)),
        ((0.62, 0.52, 0.38), (0.84, 0.75, 0.58)),
        ((0.34, 0.16, 0.13), (0.58, 0.3, 0.24)),
    ][rng.integers(4)]
    faces = blend(a, b, c.shade + 0.7 * (pool.draw(rng, 1.0) - 0.5) + 0.3 * (pool.draw(rng, 0.3) - 0.5))
    mortar = blend((0.4, 0.38, 0.34), (0.75, 0.72, 0.67), pool.draw(rng, 1.0))
    edge = c.edge + 0.006 * (pool.draw(rng, 1.0) - 0.5)
    out = blend(mortar, faces, step(edge, 0.003, 0.007))
    return out * (0.75 + 0.5 * pool.draw(rng, 2.2))[..., None]


def stone(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    c = cells(rng, pool.size, int(rng.integers(5, 9)), 4, 0.5, 0.9)
    a, b = [((0.42, 0.27, 0.22), (0.74, 0.54, 0.45)), ((0.4, 0.38, 0.34), (0.7, 0.67, 0.6))][rng.integers(2)]
    faces = blend(a, b, c.shade + 0.9 * (pool.draw(rng, 1.6) - 0.5) + 0.4 * (pool.draw(rng, 0.3) - 0.5))
    edge = c.edge + 0.012 * (pool.draw(rng, 1.6) - 0.5)
    return blend((0.2, 0.17, 0.14), faces, step(edge, 0.002, 0.012))


def plaster(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = 0.9 + 0.1 * (pool.draw(rng, 0.3) - 0.5) + 0.2 * (pool.draw(rng, 1.6) - 0.5)
    runs = np.broadcast_to(pool.draw(rng, 1.0)[:1], (pool.size, pool.size))
    value -= 0.14 * rng.random() * step(runs, 0.6, 0.9) * pool.draw(rng, 1.6)
    value -= 0.2 * step(pool.draw(rng, 1.6), 0.72, 0.85) * rng.random()
    value -= 0.2 * strokes(rng, pool.size, int(rng.integers(0, 3)), 40)
    return blend((0, 0, 0), (1, 0.99, 0.97), value)


def siding(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    rows = 10
    c = cells(rng, pool.size, rows, 1, 0.37)
    across = np.mod((np.arange(pool.size) + 0.5) / pool.size * rows, 1.0)[:, None]
    grain = _stretched(pool.draw(rng, 1.0), 8)
    value = 0.8 + 0.12 * (c.shade - 0.5) + 0.2 * (grain - 0.5) - 0.35 * step(across, 0.86, 1.0)
    return blend((0, 0, 0), (1, 1, 1), value)


def rooftile(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    rows, columns = 10, 8
    c = cells(rng, pool.size, rows, columns, rng.choice([0.0, 0.5]))
    axis = (np.arange(pool.size) + 0.5) / pool.size
    down, over = np.mod(axis * rows, 1.0)[:, None], np.mod(axis * columns, 1.0)
    a, b = [
        ((0.4, 0.16, 0.1), (0.68, 0.34, 0.22)),
        ((0.2, 0.19, 0.19), (0.42, 0.4, 0.4)),
        ((0.3, 0.2, 0.15), (0.5, 0.36, 0.28)),
    ][rng.integers(3)]
    value = c.shade * 0.7 + 0.6 * (pool.draw(rng, 1.6) - 0.2)
    relief = (0.65 + 0.35 * np.sin(np.pi * over)) * (1 - 0.6 * step(down, 0.8, 1.0))
    return blend(a, b, value) * relief[..., None]


def _stretched(noise: np.ndarray, factor: int) -> np.ndarray:
    """Noise drawn out along x, as wood grain is; still tileable."""
    size = noise.shape[1]
    return noise[:, np.abs((np.arange(size) * 2 // (factor * 2)) % size)] if factor > 1 else noise


def _grain(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """(S, S) in about [0, 1]: rings of wood along x."""
    size = pool.size
    y = np.arange(size)[:, None] / size
    bend = _stretched(pool.draw(rng, 2.2), 4)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (y * int(rng.integers(5, 12)) + 4.0 * bend))
    return np.asarray(
        0.45 * rings + 0.35 * _stretched(pool.draw(rng, 0.3), 16) + 0.3 * _stretched(pool.draw(rng, 1.0), 8)
    )


_WOODS = (
    ((0.45, 0.28, 0.14), (0.76, 0.56, 0.34)),
    ((0.28, 0.15, 0.08), (0.5, 0.3, 0.18)),
    ((0.62, 0.47, 0.3), (0.88, 0.74, 0.55)),
    ((0.5, 0.42, 0.34), (0.74, 0.66, 0.56)),
    ((0.5, 0.24, 0.12), (0.72, 0.42, 0.24)),
)


def wood(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    a, b = _WOODS[rng.integers(len(_WOODS))]
    return blend(a, b, _grain(rng, pool)) * (0.88 + 0.24 * pool.draw(rng, 1.6))[..., None]


def planks(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    c = cells(rng, pool.size, int(rng.integers(6, 11)), int(rng.integers(1, 3)), 0.37, 0.3)
    a, b = _WOODS[rng.integers(len(_WOODS))]
    out = blend(a, b, 0.6 * _grain(rng, pool) + 0.7 * (c.shade - 0.25))
    out *= (0.85 + 0.3 * pool.draw(rng, 1.6))[..., None]
    return blend(np.array(a) * 0.35, out, step(c.edge, 0.001, 0.004))


def parquet(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    size = pool.size
    along = cells(rng, size, 16, 4, 0.0)
    shade, edge = along.shade, along.edge
    block = (np.add.outer(np.arange(size) * 4 // size, np.arange(size) * 4 // size) % 2).astype(bool)
    shade, edge = np.where(block, shade, shade.T), np.where(block, edge, edge.T)
    grain = np.where(block, _grain(rng, pool), _grain(rng, pool).T)
    a, b = _WOODS[rng.integers(len(_WOODS))]
    return blend(np.array(a) * 0.4, blend(a, b, 0.5 * grain + 0.7 * (shade - 0.2)), step(edge, 0.0005, 0.003))


def tiles(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    rows = int(rng.choice([3, 4, 6, 8]))
    c = cells(rng, pool.size, rows, rows if rng.random() < 0.6 else rows // 2, rng.choice([0.0, 0.5]))
    value = 0.84 + 0.12 * rng.random() * (c.shade - 0.5) + 0.16 * (pool.draw(rng, 1.6) - 0.5)
    colour = np.array([(1, 1, 1), (0.95, 0.9, 0.8), (0.75, 0.82, 0.85), (0.8, 0.7, 0.6)][rng.integers(4)])
    special = (c.shade > 0.8) & (rng.random() < 0.4)
    face = np.where(special[..., None], colour * (0.5, 0.6, 0.8), colour) * value[..., None]
    return blend(np.array((0.55, 0.53, 0.5)) * rng.uniform(0.5, 1.3), face, step(c.edge, 0.003, 0.006))


def marble(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    a, b = [
        ((0.12, 0.12, 0.13), (0.4, 0.4, 0.42)),
        ((0.6, 0.57, 0.53), (0.9, 0.88, 0.85)),
        ((0.4, 0.33, 0.27), (0.7, 0.62, 0.55)),
    ][rng.integers(3)]
    veins = np.abs(pool.draw(rng, 2.2) - 0.5) * 6
    speckle = pool.draw(rng, 0.3)
    return blend(a, b, 0.3 * step(veins, 0, 1) + 0.5 * speckle + 0.3 * pool.draw(rng, 1.0))


def metal(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = 0.78 + 0.14 * (_stretched(pool.draw(rng, 0.3), 16) - 0.5) + 0.16 * (pool.draw(rng, 1.6) - 0.5)
    rust = step(pool.draw(rng, 1.6), 0.72, 0.9) * rng.random() * 0.6
    return blend(blend((0, 0, 0), (1, 1, 1), value), (0.45, 0.28, 0.16), rust)


def paint(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    value = 0.94 + 0.03 * (pool.draw(rng, 0.3) - 0.5) + 0.08 * (pool.draw(rng, 2.2) - 0.5)
    value -= 0.12 * step(pool.draw(rng, 1.0), 0.8, 0.92) * rng.random()
    return blend((0, 0, 0), (1, 1, 1), value)


WALL = {
    "brick": (5, brick),
    "stone": (4, stone),
    "plaster": (4, plaster),
    "siding": (2, siding),
    "rooftile": (4, rooftile),
    "wood": (5, wood),
    "planks": (4, planks),
    "parquet": (2, parquet),
    "tiles": (5, tiles),
    "marble": (3, marble),
    "metal": (2, metal),
    "paint": (3, paint),
}
"""Number of variants of each texture, and the function that makes them."""
