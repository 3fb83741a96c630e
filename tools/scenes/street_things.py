"""Small things that stand about in a street."""

from __future__ import annotations

import numpy as np

from tools.scenes.mesh import MeshBuilder
from tools.scenes.textures import pick, tint, vivid


def lamp_post(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray) -> None:
    """A street lamp that leans over towards local -x."""
    metal = pick(rng, "metal", 1.0).tinted(tint(rng, 0.35, 0.75))
    high = rng.uniform(5, 8.5)
    with builder.at(where):
        builder.part()
        builder.lathe([(0.12, 0), (0.12, 0.9), (0.08, 1.0), (0.05, high)], metal, 10)
        builder.part(solid=False)
        builder.tube((0, 0, high), (-1.4, 0, high + 0.3), (0.05, 0.04), metal)
        builder.box((-2.0, -0.14, high + 0.22), (-1.3, 0.14, high + 0.36), metal)


def pole_sign(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray) -> None:
    """A traffic sign that faces local -y."""
    metal = pick(rng, "metal", 1.0).tinted((0.7, 0.7, 0.7))
    with builder.at(where):
        builder.part()
        builder.tube((0, 0, 0), (0, 0, 2.9), (0.035, 0.035), metal)
        for level in range(int(rng.integers(1, 3))):
            z = 2.25 - 0.65 * level
            face = np.array([[-0.3, -0.05, z], [0.3, -0.05, z], [0.3, -0.05, z + 0.6], [-0.3, -0.05, z + 0.6]])
            builder.quad(face, pick(rng, "sign", 0))


def bin_or_box(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray) -> None:
    """A wheelie bin, a parcel, a cabinet, a bollard or a post box."""
    kind = rng.integers(5)
    paint = pick(rng, "paint", 1.0, gloss=0.15).tinted(vivid(rng, rng.uniform(0.25, 0.7), 0.5))
    with builder.at(where):
        builder.part()
        if kind == 0:
            shape = np.array([[-0.26, -0.26, 0.08], [0.26, -0.26, 0.08], [0.3, -0.36, 0.98], [-0.3, -0.36, 0.98]])
            for turn in range(4):
                c, s = np.cos(turn * np.pi / 2), np.sin(turn * np.pi / 2)
                builder.quad(shape @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), paint)
            builder.box((-0.33, -0.4, 0.98), (0.33, 0.38, 1.06), paint.tinted((0.8, 0.8, 0.8)))
        elif kind == 1:
            for level in range(int(rng.integers(1, 4))):
                size = rng.uniform(0.4, 0.9, 3) * (1, 0.8, 0.6)
                builder.block(
                    (rng.normal(0, 0.08), rng.normal(0, 0.05), 0.4 * level),
                    size,
                    pick(rng, "soil", 2.0).tinted((1, 0.85, 0.65)),
                )
        elif kind == 2:
            builder.block(
                (0, 0, 0), (1.1, 0.4, rng.uniform(0.9, 1.4)), pick(rng, "concrete", 1.5).tinted(tint(rng, 0.6, 0.9))
            )
            builder.quad(
                np.array([[-0.4, -0.21, 0.2], [0.2, -0.21, 0.2], [0.2, -0.21, 0.8], [-0.4, -0.21, 0.8]]),
                pick(rng, "poster", 0),
            )
        elif kind == 3:
            builder.lathe([(0.09, 0), (0.09, 0.85), (0.11, 0.9), (0.07, 0.98), (0, 1.0)], paint, 10)
        else:
            builder.block((0, 0, 0), (0.5, 0.4, 1.2), paint)
            builder.box((-0.2, -0.22, 0.85), (0.2, -0.2, 0.93), paint.tinted((0.2, 0.2, 0.2)))


def advert(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray) -> None:
    """A poster pillar or board that faces local -y."""
    metal = pick(rng, "metal", 1.0).tinted((0.4, 0.42, 0.42))
    with builder.at(where):
        builder.part()
        if rng.random() < 0.4:
            builder.lathe([(0.65, 0), (0.65, 0.4)], pick(rng, "concrete", 1.0), 18)
            builder.lathe([(0.6, 0.4), (0.6, 2.8)], pick(rng, "poster", 1.26), 18)
            builder.lathe([(0.75, 2.8), (0.7, 2.95), (0, 3.3)], metal, 18)
        else:
            builder.box((-0.7, -0.1, 0.6), (0.7, 0.1, 2.6), metal)
            for y in (-0.105, 0.105):
                builder.quad(
                    np.array([[-0.62, y, 0.7], [0.62, y, 0.7], [0.62, y, 2.5], [-0.62, y, 2.5]]), pick(rng, "poster", 0)
                )
            builder.box((-0.5, -0.06, 0), (0.5, 0.06, 0.6), metal)


def wall_run(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray, length: float, kind: str) -> None:
    """A garden wall or fence along local y, seen from local -x."""
    with builder.at(where):
        builder.part()
        if kind == "wall":
            high = rng.uniform(0.6, 2.2)
            body = pick(rng, str(rng.choice(["stone", "brick", "plaster"])), 1.8).tinted(tint(rng, 0.75, 1.0))
            cap = pick(rng, "concrete", 1.5).tinted(tint(rng, 0.6, 0.9))
            builder.box((-0.15, 0, 0), (0.15, length, high), body)
            builder.box((-0.21, 0, high), (0.21, length, high + 0.09), cap)
            for y in np.arange(0, length + 0.1, 3.6):
                builder.box((-0.24, y - 0.22, 0), (0.24, y + 0.22, high + 0.15), body)
                builder.box((-0.29, y - 0.27, high + 0.15), (0.29, y + 0.27, high + 0.24), cap)
        elif kind == "railing":
            builder.box((-0.12, 0, 0), (0.12, length, 0.4), pick(rng, "concrete", 1.5))
            rail = pick(rng, "railing", 1.0).tinted(tint(rng, 0.1, 0.5))
            u, z = length / 1.5, 0.4 + rng.uniform(0.7, 1.1)
            builder.quad(
                np.array([[0, 0, 0.4], [0, length, 0.4], [0, length, z], [0, 0, z]]),
                rail,
                np.array([[0, 1], [u, 1], [u, 0], [0, 0]]),
            )
        else:
            board = pick(rng, "planks", 1.6).tinted(tint(rng, 0.6, 1.0))
            high = rng.uniform(0.9, 1.8)
            # Upright boards: the texture's planks run along u, which is made to be the height.
            for x in (-0.03, 0.03):
                corners = np.array([[x, 0, 0.05], [x, length, 0.05], [x, length, high], [x, 0, high]])
                uv = np.array([[0, 0], [0, length], [high, length], [high, 0]]) / 1.6
                builder.quad(corners, board, uv)
            for y in np.arange(0, length + 0.1, 2.0):
                builder.box((-0.06, y - 0.05, 0), (0.06, y + 0.05, high + 0.1), board)
