"""Furniture. Pieces stand with their back at y = 0 and their middle at x = 0, and face -y, unless said otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder, placed
from tools.scenes.plants import bush
from tools.scenes.small_things import books, fill_top, floor_thing, picture, small_thing
from tools.scenes.textures import pick, tint, vivid

__all__ = [
    "bed", "bookshelf", "box_pile", "chair", "desk", "door", "floor_plant", "floor_thing", "fridge", "kitchen_run",
    "picture", "sideboard", "small_thing", "sofa", "table", "wardrobe",
]  # fmt: skip


def board(rng: np.random.Generator) -> Material:
    """Wood or paint for a cabinet."""
    if rng.random() < 0.55:
        return pick(rng, "wood", float(rng.uniform(0.7, 1.4)), 0.12).tinted(tint(rng, 0.7, 1.0))
    return pick(rng, "paint", 1.2, float(rng.uniform(0.1, 0.5))).tinted(
        vivid(rng, rng.uniform(0.4, 1.0), rng.choice([0.1, 0.75]))
    )


def _fronts(
    builder: MeshBuilder,
    rng: np.random.Generator,
    left: float,
    right: float,
    low: float,
    high: float,
    y: float,
    front: Material,
) -> None:
    """Doors or drawers with gaps and handles, on the plane `y`."""
    steel = pick(rng, "metal", 0.4, 0.6).tinted((0.7, 0.7, 0.72))
    count = max(1, round((right - left) / 0.5))
    edges = np.linspace(left, right, count + 1)
    for a, b in itertools.pairwise(edges):
        rows = 3 if rng.random() < 0.3 else 1
        levels = np.linspace(low, high, rows + 1)
        for z0, z1 in itertools.pairwise(levels):
            builder.box((a + 0.004, y - 0.02, z0 + 0.004), (b - 0.004, y, z1 - 0.004), front, faces="x- x+ y- z- z+")
            middle = (a + b) / 2
            builder.box((middle - 0.08, y - 0.05, z1 - 0.07), (middle + 0.08, y - 0.035, z1 - 0.055), steel)


def kitchen_run(builder: MeshBuilder, rng: np.random.Generator, along: float, window: bool) -> bool:
    """Cabinets and worktop along a whole wall, with a sink, a hob, wall cupboards, and things on the top."""
    front, body = board(rng), board(rng)
    top = pick(rng, str(rng.choice(["marble", "wood", "paint"])), 1.0, 0.35).tinted(tint(rng, 0.5, 1.0))
    steel = pick(rng, "metal", 0.5, 0.6).tinted((0.75, 0.76, 0.78))
    left, right, deep, high = -along, along, 0.6, 0.9
    builder.part()
    builder.box((left, -deep + 0.06, 0), (right, 0, 0.1), body.tinted((0.3, 0.3, 0.3)), faces="y-")
    builder.box((left, -deep + 0.02, 0.1), (right, 0, high - 0.04), body, faces="y-")
    _fronts(builder, rng, left, right, 0.1, high - 0.05, -deep + 0.02, front)
    builder.box((left, -deep - 0.02, high - 0.04), (right, 0, high), top)
    splash = pick(rng, "tiles", float(rng.uniform(0.4, 0.9)), 0.3).tinted(tint(rng, 0.75, 1.0))
    builder.box((left, -0.012, high), (right, 0, high + 0.55), splash, faces="y- z+")
    sink = float(rng.uniform(-0.5, 0.5) * along)
    builder.box((sink - 0.4, -0.52, high), (sink + 0.4, -0.1, high + 0.006), steel)
    builder.box(
        (sink - 0.3, -0.47, high + 0.006),
        (sink + 0.05, -0.15, high + 0.008),
        steel.tinted((0.35, 0.35, 0.35)),
        faces="z+",
    )
    builder.tube((sink, -0.1, high), (sink, -0.1, high + 0.28), (0.015, 0.013), steel)
    builder.tube((sink, -0.1, high + 0.28), (sink, -0.28, high + 0.24), (0.013, 0.012), steel)
    hob = sink + (0.9 if sink < 0 else -0.9)
    builder.box((hob - 0.29, -0.55, high), (hob + 0.29, -0.06, high + 0.01), steel.tinted((0.12, 0.12, 0.13)))
    if not window and rng.random() < 0.75:
        for a in np.arange(left, right - 0.6, 0.7):
            if rng.random() < 0.75:
                builder.part()
                builder.box((a, -0.33, 1.5), (a + 0.7, 0, 2.15), body)
                _fronts(builder, rng, a, a + 0.7, 1.5, 2.15, -0.33, front)
    builder.part(solid=False)
    for x in np.arange(left + 0.2, right - 0.1, 0.55):
        if rng.random() < 0.6:
            picture(builder, rng, x, 1.25, y=-0.016)
    fill_top(builder, rng, (left + 0.1, right - 0.1), (-deep + 0.08, -0.08), high + 0.01, 0.75)
    return True


def sideboard(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    body, high, half = board(rng), float(rng.uniform(0.6, 0.95)), wide / 2
    builder.part()
    builder.box((-half, -0.44, 0.08), (half, 0, high), body)
    _fronts(
        builder, rng, -half + 0.02, half - 0.02, 0.1, high - 0.04, -0.44, board(rng) if rng.random() < 0.5 else body
    )
    builder.box((-half - 0.02, -0.47, high), (half + 0.02, 0, high + 0.03), body)
    builder.part(solid=False)
    fill_top(builder, rng, (-half + 0.05, half - 0.05), (-0.4, -0.08), high + 0.03, 0.8)


def wardrobe(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    body, half = board(rng), wide / 2
    builder.part()
    builder.box((-half, -0.58, 0), (half, 0, 2.05), body)
    _fronts(builder, rng, -half, half, 0.08, 2.0, -0.58, body)
    builder.part(solid=False)
    fill_top(builder, rng, (-half + 0.1, half - 0.1), (-0.5, -0.1), 2.05, 0.4)


def fridge(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    body, half = pick(rng, "paint" if rng.random() < 0.6 else "metal", 1.0, 0.4).tinted(tint(rng, 0.6, 1.0)), wide / 2
    builder.part()
    builder.box((-half, -0.6, 0.05), (half, 0, 1.75), body)
    builder.box((-half, -0.63, 0.08), (half, -0.6, 1.1), body)
    builder.box((-half, -0.63, 1.12), (half, -0.6, 1.74), body)
    for z in (0.75, 1.2):
        builder.box((half - 0.08, -0.67, z), (half - 0.05, -0.65, z + 0.3), body.tinted((0.5, 0.5, 0.5)))
    for _ in range(int(rng.integers(2, 9))):
        x, z, s = rng.uniform(-half + 0.08, half - 0.14), rng.uniform(0.7, 1.6), rng.uniform(0.05, 0.15)
        builder.quad(
            np.array([[x, -0.633, z], [x + s, -0.633, z], [x + s, -0.633, z + 1.3 * s], [x, -0.633, z + 1.3 * s]]),
            pick(rng, str(rng.choice(["paper", "poster"])), 0),
        )


def bookshelf(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    body, half, deep = board(rng), wide / 2, 0.3
    high, levels = float(rng.uniform(1.1, 2.1)), 0
    builder.part()
    levels = round(high / 0.34)
    builder.box((-half, -0.012, 0), (half, 0, high), body.tinted((0.8, 0.8, 0.8)), faces="y-")
    for x in (-half, half - 0.02):
        builder.box((x, -deep, 0), (x + 0.02, 0, high), body)
    for z in np.linspace(0.05, high - 0.02, levels + 1):
        builder.box((-half, -deep, z), (half, 0, z + 0.02), body)
    step = (high - 0.07) / levels
    for level in range(levels):
        z = 0.07 + level * step
        if rng.random() < 0.75:
            books(builder, rng, -half + 0.03, half - 0.04, -deep + 0.05, z, step - 0.05)
        else:
            for x in np.arange(-half + 0.1, half - 0.1, 0.17):
                if rng.random() < 0.75:
                    small_thing(builder, rng, (x, -0.16, z), 0.14, step - 0.06)
    fill_top(builder, rng, (-half + 0.05, half - 0.05), (-0.25, -0.06), high, 0.6)


def table(builder: MeshBuilder, rng: np.random.Generator, wide: float, deep: float, high: float) -> None:
    """About the origin, with things on it."""
    top, leg = board(rng), board(rng)
    builder.part()
    builder.box((-wide / 2, -deep / 2, high - 0.035), (wide / 2, deep / 2, high), top)
    builder.box(
        (-wide / 2 + 0.08, -deep / 2 + 0.08, high - 0.12), (wide / 2 - 0.08, deep / 2 - 0.08, high - 0.035), leg
    )
    for x in (-1, 1):
        for y in (-1, 1):
            builder.block((x * (wide / 2 - 0.08), y * (deep / 2 - 0.08), 0), (0.06, 0.06, high - 0.035), leg)
    builder.part(solid=False)
    fill_top(
        builder, rng, (-wide / 2 + 0.08, wide / 2 - 0.08), (-deep / 2 + 0.08, deep / 2 - 0.08), high, 0.7, flat=0.55
    )


def desk(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    top, steel = board(rng), pick(rng, "metal", 0.6, 0.3).tinted(tint(rng, 0.2, 0.8))
    half, deep, high = wide / 2, 0.7, 0.73
    builder.part()
    builder.box((-half, -deep, high - 0.03), (half, 0, high), top)
    for x in (-half + 0.05, half - 0.05):
        builder.block((x, -deep / 2, 0), (0.05, deep - 0.06, high - 0.03), steel)
    if rng.random() < 0.5:
        builder.box((half - 0.5, -deep + 0.05, 0.05), (half - 0.08, -0.05, 0.6), top)
        _fronts(builder, rng, half - 0.5, half - 0.08, 0.07, 0.58, -deep + 0.05, top)
    dark = pick(rng, "paint", 0.5, 0.2).tinted((0.18, 0.18, 0.19))
    for x in rng.choice([-0.3, 0.05, 0.35], int(rng.integers(1, 3)), replace=False) * wide:
        with builder.at(placed((x, -0.22, high), rng.normal(0, 0.2))):
            builder.box((-0.12, -0.09, 0), (0.12, 0.09, 0.015), dark)
            builder.box((-0.02, 0.02, 0), (0.02, 0.05, 0.3), dark)
            builder.box((-0.27, -0.01, 0.12), (0.27, 0.03, 0.46), dark)
            builder.quad(
                np.array(
                    [[-0.255, -0.012, 0.135], [0.255, -0.012, 0.135], [0.255, -0.012, 0.445], [-0.255, -0.012, 0.445]]
                ),
                pick(rng, "screen", 0, 0.2, 0.08),
            )
    with builder.at(placed((rng.normal(0, 0.1), -0.5, high), rng.normal(0, 0.08))):
        builder.box((-0.22, -0.07, 0), (0.22, 0.07, 0.018), dark)
        builder.quad(
            np.array([[-0.22, -0.07, 0.02], [0.22, -0.07, 0.02], [0.22, 0.07, 0.02], [-0.22, 0.07, 0.02]]),
            pick(rng, "keyboard", 0),
        )
    builder.part(solid=False)
    fill_top(builder, rng, (-half + 0.08, half - 0.08), (-deep + 0.06, -0.1), high, 0.5, flat=0.6)
    chair(builder, rng, placed((rng.normal(0, 0.15), -deep - 0.1, 0), rng.normal(0, 0.4)), rng)


def chair(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray, look: np.random.Generator) -> None:
    """About the middle of its seat, facing +y; `look` decides what it is like, so that chairs can be alike."""
    wood, seat = board(look), board(look) if look.random() < 0.5 else pick(look, "fabric", 0.5)
    slats, high = int(look.integers(0, 4)), float(look.uniform(0.82, 0.98))
    with builder.at(where):
        builder.part()
        builder.box((-0.21, -0.21, 0.43), (0.21, 0.21, 0.47), seat)
        for x in (-0.19, 0.19):
            builder.block((x, 0.18, 0), (0.035, 0.035, 0.43), wood)
            builder.block((x, -0.19, 0), (0.035, 0.035, high), wood)
            builder.box((x - 0.012, -0.18, 0.2), (x + 0.012, 0.18, 0.23), wood)
        if slats == 0:
            builder.box((-0.2, -0.2, 0.56), (0.2, -0.17, high), seat)
        for k in range(slats):
            z = 0.58 + (high - 0.66) * k / max(1, slats - 1)
            builder.box((-0.19, -0.2, z), (0.19, -0.18, z + 0.07), wood)


def sofa(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    cloth, half = pick(rng, "fabric", 0.7).tinted(tint(rng, 0.6, 1.0)), wide / 2
    builder.part()
    builder.box((-half, -0.85, 0.06), (half, 0, 0.3), cloth)
    builder.box((-half, -0.22, 0.3), (half, 0, 0.82), cloth)
    for side in (-1, 1):
        x0, x1 = sorted((side * half, side * (half - 0.2)))
        builder.box((x0, -0.85, 0.3), (x1, -0.2, 0.6), cloth)
    seats = max(2, round(wide / 0.7))
    edges = np.linspace(-half + 0.2, half - 0.2, seats + 1)
    for a, b in itertools.pairwise(edges):
        _cushion(builder, placed(((a + b) / 2, -0.53, 0.38)), ((b - a) / 2, 0.32, 0.09), cloth)
        _cushion(builder, placed(((a + b) / 2, -0.26, 0.64)), ((b - a) / 2, 0.09, 0.2), cloth)
        if rng.random() < 0.6:
            pillow = pick(rng, "fabric", 0.35)
            _cushion(
                builder,
                placed(((a + b) / 2 + rng.normal(0, 0.05), -0.4, 0.62), rng.normal(0, 0.3)),
                (0.2, 0.07, 0.18),
                pillow,
            )


def bed(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    wood, half = board(rng), wide / 2
    sheet, cover = pick(rng, "fabric", 0.9), pick(rng, "fabric", 1.1).tinted(tint(rng, 0.7, 1.0))
    builder.part()
    builder.box((-half, -2.0, 0.08), (half, 0, 0.32), wood)
    builder.box((-half, -0.06, 0), (half, 0, 1.0), wood)
    _cushion(builder, placed((0, -1.0, 0.42)), (half, 0.97, 0.13), sheet)
    _cushion(builder, placed((0, -1.28, 0.49)), (half + 0.03, 0.72, 0.12), cover)
    for side in (-1, 1):
        _cushion(
            builder,
            placed((side * half / 2, -0.3, 0.6), rng.normal(0, 0.1)),
            (half * 0.42, 0.2, 0.09),
            pick(rng, "fabric", 0.8),
        )


def _cushion(builder: MeshBuilder, where: np.ndarray, radii: Sequence[float], material: Material) -> None:
    """A box with round edges (a superellipsoid)."""
    v, u = np.linspace(-np.pi / 2, np.pi / 2, 9)[:, None], np.linspace(-np.pi, np.pi, 21)

    def power(values: np.ndarray) -> np.ndarray:
        return np.sign(values) * np.abs(values) ** 0.35

    points = np.stack(
        np.broadcast_arrays(power(np.cos(v)) * power(np.cos(u)), power(np.cos(v)) * power(np.sin(u)), power(np.sin(v))),
        axis=2,
    )
    with builder.at(where):
        builder.grid(points * np.asarray(radii), material, closed=True)


def floor_plant(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    pot = pick(rng, str(rng.choice(["plaster", "wood", "paint"])), 0.5).tinted(vivid(rng, 0.8, 0.4))
    builder.part()
    builder.lathe(
        [(0.0, 0.0), (0.13, 0.0), (0.18, 0.32), (0.16, 0.33), (0.14, 0.28), (0, 0.28)], pot, 14, (0, -0.25, 0)
    )
    bush(builder, rng, placed((0, -0.27, 0.3)), float(rng.uniform(0.4, 0.6)), 0.35)


def box_pile(builder: MeshBuilder, rng: np.random.Generator, wide: float) -> None:
    card = pick(rng, "soil", 1.8).tinted((1.0, 0.85, 0.65))
    builder.part()
    z = 0.0
    for _ in range(int(rng.integers(1, 5))):
        size = rng.uniform([0.3, 0.28, 0.15], [0.5, 0.4, 0.35])
        with builder.at(placed((rng.normal(0, 0.03), -0.23, z), rng.normal(0, 0.08))):
            builder.block((0, 0, 0), size, card.tinted(tint(rng, 0.7, 1.0)))
            x, h = size[0] * 0.3, size[2]
            builder.quad(
                np.array(
                    [
                        [-x, -size[1] / 2 - 0.002, 0.2 * h],
                        [0.0, -size[1] / 2 - 0.002, 0.2 * h],
                        [0.0, -size[1] / 2 - 0.002, 0.8 * h],
                        [-x, -size[1] / 2 - 0.002, 0.8 * h],
                    ]
                ),
                pick(rng, "paper", 0),
            )
        z += size[2]


def door(builder: MeshBuilder, rng: np.random.Generator, x: float) -> None:
    """On the wall, its middle at `x`."""
    trim, leaf = (
        pick(rng, "paint", 1.0).tinted(tint(rng, 0.8, 1.0)),
        pick(rng, "door", 0, 0.1).tinted(tint(rng, 0.6, 1.0, 0.15)),
    )
    builder.part(solid=False)
    builder.box((x - 0.48, -0.03, 0), (x + 0.48, 0, 2.06), trim)
    builder.quad(
        np.array([[x - 0.41, -0.034, 0], [x + 0.41, -0.034, 0], [x + 0.41, -0.034, 2.0], [x - 0.41, -0.034, 2.0]]), leaf
    )
    steel = pick(rng, "metal", 0.3, 0.6)
    builder.box((x + 0.28, -0.09, 1.0), (x + 0.38, -0.075, 1.02), steel)
