"""Books, cups, bottles, papers, pictures: what lies on surfaces and hangs on walls."""

from __future__ import annotations

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder, Vec, placed
from tools.scenes.textures import pick, tint, vivid

_PROFILES = {
    "cup": ([(0.0, 0.0), (0.035, 0.0), (0.042, 0.05), (0.042, 0.095), (0.037, 0.095), (0.034, 0.02), (0, 0.02)], 1.0),
    "bottle": ([(0.0, 0.0), (0.036, 0.0), (0.037, 0.15), (0.03, 0.19), (0.013, 0.22), (0.013, 0.27), (0.0, 0.27)], 1.0),
    "bowl": ([(0.0, 0.0), (0.045, 0.0), (0.085, 0.04), (0.1, 0.07), (0.095, 0.07), (0.07, 0.03), (0.0, 0.015)], 1.0),
    "vase": (
        [(0.0, 0.0), (0.04, 0.0), (0.07, 0.08), (0.05, 0.17), (0.03, 0.2), (0.045, 0.23), (0.03, 0.2), (0, 0.1)],
        1.0,
    ),
    "can": ([(0.0, 0.0), (0.033, 0.0), (0.033, 0.115), (0.028, 0.12), (0.0, 0.12)], 1.0),
    "jar": ([(0.0, 0.0), (0.045, 0.0), (0.047, 0.1), (0.038, 0.115), (0.042, 0.12), (0.042, 0.14), (0.0, 0.14)], 1.0),
}


def _glaze(rng: np.random.Generator) -> Material:
    name = str(rng.choice(["paint", "poster", "fabric", "marble", "metal"], p=[0.4, 0.25, 0.15, 0.1, 0.1]))
    colour = vivid(rng, rng.uniform(0.5, 1.0), rng.uniform(0, 0.8)) if name == "paint" else tint(rng, 0.7, 1.0)
    return pick(rng, name, 0.27, 0.3).tinted(colour)


def small_thing(builder: MeshBuilder, rng: np.random.Generator, where: Vec, wide: float, high: float = 0.4) -> None:
    """One upright thing, within `wide` and `high` metres."""
    kind = str(
        rng.choice(
            [*_PROFILES, "box", "frame", "lamp", "plant"], p=[0.16, 0.12, 0.07, 0.06, 0.08, 0.1, 0.22, 0.09, 0.04, 0.06]
        )
    )
    with builder.at(placed(where, rng.uniform(0, 6.3) if kind != "frame" else rng.normal(0, 0.3))):
        if kind in _PROFILES:
            profile = np.array(_PROFILES[kind][0]) * rng.uniform(0.85, 1.2)
            profile *= min(1.0, wide / 2 / profile[:, 0].max(), high / profile[:, 1].max())
            glaze = _glaze(rng)
            builder.lathe(profile, glaze, 14)
            if kind == "cup":
                a = profile[3, 0]
                for z0, z1, x0, x1 in ((0.75, 0.65, 1, 1.6), (0.65, 0.35, 1.6, 1.6), (0.35, 0.25, 1.6, 1)):
                    h = profile[3, 1]
                    builder.tube((x0 * a, 0, z0 * h), (x1 * a, 0, z1 * h), (0.006, 0.006), glaze, 6)
        elif kind == "box":
            size = np.minimum(rng.uniform([0.05, 0.04, 0.08], [0.2, 0.12, 0.28]), (wide, wide, high))
            builder.block((0, 0, 0), size, pick(rng, "poster", 0).tinted(tint(rng, 0.7, 1.0)))
        elif kind == "frame":
            w, h = min(wide, rng.uniform(0.1, 0.2)) / 2, min(high, rng.uniform(0.12, 0.26))
            builder.box((-w, -0.008, 0), (w, 0.008, h), pick(rng, "wood", 0.4))
            builder.quad(
                np.array(
                    [
                        [-0.9 * w, -0.01, 0.05 * h],
                        [0.9 * w, -0.01, 0.05 * h],
                        [0.9 * w, -0.01, 0.95 * h],
                        [-0.9 * w, -0.01, 0.95 * h],
                    ]
                ),
                pick(rng, "poster", 0),
            )
        elif kind == "lamp":
            h = min(high, 0.38)
            builder.lathe(
                [(0.0, 0.0), (0.05, 0.0), (0.045, 0.015), (0.01, 0.03), (0.01, 0.6 * h)],
                pick(rng, "metal", 0.4, 0.5),
                10,
            )
            builder.lathe([(0.075, 0.55 * h), (0.045, h)], pick(rng, "fabric", 0.3, 0, 0.1), 14)
        else:
            builder.lathe([(0.0, 0.0), (0.035, 0.0), (0.05, 0.09), (0.0, 0.085)], _glaze(rng), 12)
            leaf, tall = pick(rng, "plant", 0), min(0.2, high - 0.05)
            for turn in np.arange(3) * np.pi / 3:
                x, y = 0.5 * tall * float(np.cos(turn)), 0.5 * tall * float(np.sin(turn))
                builder.quad(np.array([[-x, -y, 0.06], [x, y, 0.06], [x, y, 0.06 + tall], [-x, -y, 0.06 + tall]]), leaf)


def flat_thing(builder: MeshBuilder, rng: np.random.Generator, where: Vec) -> None:
    """Papers, a magazine, a pile of books, a plate or a box that lies flat."""
    with builder.at(placed(where, rng.normal(0, 0.7))):
        kind = rng.random()
        if kind < 0.55:
            w, h = 0.105, 0.148
            for layer in range(int(rng.integers(1, 4))):
                with builder.at(
                    placed((rng.normal(0, 0.04), rng.normal(0, 0.04), 0.002 + 0.004 * layer), rng.normal(0, 0.4))
                ):
                    face = pick(rng, str(rng.choice(["paper", "poster"], p=[0.4, 0.6])), 0, 0.08)
                    builder.box((-w, -h, 0), (w, h, 0.003), face)
        elif kind < 0.85:
            z = 0.0
            for _ in range(int(rng.integers(1, 5))):
                w, h, t = rng.uniform([0.07, 0.1, 0.012], [0.11, 0.15, 0.045])
                with builder.at(placed((rng.normal(0, 0.012), rng.normal(0, 0.012), z), rng.normal(0, 0.15))):
                    builder.box((-w, -h, 0), (w, h, t), pick(rng, "paper", 0.1), faces="x+ y- y+")
                    cover = pick(rng, "poster", 0).tinted(tint(rng, 0.6, 1.0))
                    builder.box((-w, -h, 0), (w, h, t), cover, faces="x- z+")
                z += t
        else:
            builder.lathe([(0.0, 0.004), (0.07, 0.004), (0.115, 0.018), (0.118, 0.02), (0.07, 0.0)], _glaze(rng), 20)


def fill_top(
    builder: MeshBuilder,
    rng: np.random.Generator,
    x: tuple[float, float],
    y: tuple[float, float],
    z: float,
    density: float,
    flat: float = 0.35,
) -> None:
    """Things on a surface from `x[0]` to `x[1]` and `y[0]` to `y[1]`; they keep out of each other's way."""
    columns, rows = max(1, int((x[1] - x[0]) / 0.24)), max(1, int((y[1] - y[0]) / 0.24))
    for i in range(columns):
        for j in range(rows):
            if rng.random() > density:
                continue
            px = x[0] + (x[1] - x[0]) * (i + rng.uniform(0.35, 0.65)) / columns
            py = y[0] + (y[1] - y[0]) * (j + rng.uniform(0.35, 0.65)) / rows
            if rng.random() < flat:
                flat_thing(builder, rng, (px, py, z))
            else:
                small_thing(builder, rng, (px, py, z), 0.2)


def books(
    builder: MeshBuilder, rng: np.random.Generator, left: float, right: float, y: float, z: float, high: float
) -> None:
    """A row of books with their spines at `y` towards -y."""
    x = left
    while x < right - 0.05:
        thick, tall = rng.uniform(0.015, 0.05), high * rng.uniform(0.6, 0.98)
        front = y + rng.uniform(0, 0.03)
        cover = pick(rng, "books", 0).tinted(tint(rng, 0.6, 1.0, 0.2))
        builder.box((x, front, z), (x + thick, front + 0.16, z + tall), cover, faces="x- x+ y- z+")
        x += thick + (rng.uniform(0.03, 0.15) if rng.random() < 0.06 else 0.001)


def picture(builder: MeshBuilder, rng: np.random.Generator, x: float, z: float, y: float = -0.01) -> None:
    """A poster, a notice or a framed picture on the wall about (x, z)."""
    w, h = rng.uniform(0.1, 0.27), rng.uniform(0.13, 0.33)
    builder.part(solid=False)
    if rng.random() < 0.5:
        frame = pick(rng, "wood" if rng.random() < 0.5 else "paint", 0.5).tinted(tint(rng, 0.2, 1.0))
        builder.box((x - w - 0.02, y - 0.02, z - h - 0.02), (x + w + 0.02, y + 0.01, z + h + 0.02), frame)
        y -= 0.022
    face = pick(rng, str(rng.choice(["poster", "paper"], p=[0.75, 0.25])), 0, 0.05)
    builder.quad(np.array([[x - w, y, z - h], [x + w, y, z - h], [x + w, y, z + h], [x - w, y, z + h]]), face)


def floor_thing(builder: MeshBuilder, rng: np.random.Generator) -> None:
    """A basket, a bag, a bin or books on the floor, about the origin."""
    kind = rng.random()
    if kind < 0.4:
        body = pick(rng, str(rng.choice(["fabric", "wood", "metal"])), 0.5).tinted(tint(rng, 0.5, 1.0))
        builder.lathe([(0.0, 0.0), (0.11, 0.0), (0.14, 0.3), (0.13, 0.3), (0.1, 0.02)], body, 14)
    elif kind < 0.7:
        builder.block(
            (0, 0, 0),
            rng.uniform([0.15, 0.15, 0.12], [0.3, 0.3, 0.35]),
            pick(rng, "poster", 0).tinted(tint(rng, 0.6, 0.9)),
        )
    else:
        flat_thing(builder, rng, (0, 0, 0.001))
