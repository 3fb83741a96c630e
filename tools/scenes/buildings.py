"""Houses with relief: windows in recesses, sills, doors, shops, balconies, cornices and roofs.

Local axes of a house: its front lies along x at y = 0 and faces -y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder
from tools.scenes.textures import pick, tint, vivid

RECESS_M = 0.16


@dataclass(frozen=True)
class HouseStyle:
    """Materials of one house."""

    wall: Material
    base: Material
    trim: Material
    frame: Material
    roof: Material
    storey_m: float
    window_m: tuple[float, float]
    """Width and height."""
    bay_m: float
    """From window to window."""
    bars: int
    """Crossbars of a window: 0 none, 1 upright, 2 a cross."""
    shutters: bool


def random_style(rng: np.random.Generator) -> HouseStyle:
    """Materials and proportions of a house."""
    kind = str(rng.choice(["plaster", "brick", "stone", "siding"], p=[0.5, 0.32, 0.08, 0.1]))
    colour = np.clip(np.array(vivid(rng, rng.uniform(0.75, 1.0), rng.uniform(0.0, 0.2))), 0, 1)
    wall = pick(rng, kind, {"plaster": 3.5, "brick": 1.3, "stone": 2.4, "siding": 2.0}[kind])
    wall = wall.tinted(colour if kind in ("plaster", "siding") else tint(rng, 0.75, 1.0))
    trim = pick(rng, str(rng.choice(["concrete", "plaster", "stone"], p=[0.4, 0.5, 0.1])), 2.0).tinted(
        tint(rng, 0.75, 1.0)
    )
    frame_tint = (0.95, 0.95, 0.93) if rng.random() < 0.7 else tint(rng, 0.2, 0.6, 0.15)
    return HouseStyle(
        wall,
        trim if rng.random() < 0.5 else wall,
        trim,
        pick(rng, "paint", 1.0).tinted(frame_tint),
        pick(rng, "rooftile", 2.6).tinted(tint(rng, 0.7, 1.0)),
        float(rng.uniform(2.7, 3.4)),
        (float(rng.uniform(0.85, 1.5)), float(rng.uniform(1.2, 1.75))),
        float(rng.uniform(2.0, 3.3)),
        int(rng.integers(0, 3)),
        bool(rng.random() < 0.25),
    )


def house(
    builder: MeshBuilder,
    rng: np.random.Generator,
    where: np.ndarray,
    width_m: float,
    depth_m: float,
    storeys: int,
    style: HouseStyle,
    shop: bool,
    detail: bool,
) -> None:
    """A house at `where` (4, 4), the middle of its front; without `detail` windows are flat."""
    height = storeys * style.storey_m + 0.3
    with builder.at(where):
        builder.part()
        _front(builder, rng, width_m, height, storeys, style, shop, detail)
        half = width_m / 2
        for side, name in ((-1, "x-"), (1, "x+")):
            builder.box((-half, 0, 0), (half, depth_m, height), style.wall, faces=name)
            _flat_windows(builder, rng, side, half, depth_m, storeys, style)
        builder.box((-half, 0, 0), (half, depth_m, height), style.wall, faces="y+")
        _roof(builder, rng, half, depth_m, height, style)


def _front(
    builder: MeshBuilder,
    rng: np.random.Generator,
    width: float,
    height: float,
    storeys: int,
    style: HouseStyle,
    shop: bool,
    detail: bool,
) -> None:
    half, bays = width / 2, max(1, int(width / style.bay_m))
    centres = (np.arange(bays) + 0.5) * width / bays - half
    wide, high = min(style.window_m[0], 0.75 * width / bays), style.window_m[1]
    builder.box((-half, 0.0, height - 0.3), (half, RECESS_M, height), style.wall, faces="y- z-")
    builder.box((-half - 0.05, -0.18, height - 0.22), (half + 0.05, 0, height), style.trim)
    door_bay = int(rng.integers(bays))
    balcony = rng.random() < 0.25 and storeys > 2
    for storey in range(storeys):
        bottom = storey * style.storey_m
        wall = style.base if storey == 0 else style.wall
        if storey == 0 and shop:
            _shop_front(builder, rng, half, style)
            continue
        sill = bottom + 0.95
        lintel = min(sill + high, bottom + style.storey_m - 0.25)
        top = bottom + style.storey_m if storey < storeys - 1 else height - 0.3
        builder.box((-half, 0, lintel), (half, RECESS_M, top), wall, faces="y- z-")
        edges = [-half, *np.stack([centres - wide / 2, centres + wide / 2], 1).ravel(), half]
        for i in range(0, len(edges), 2):
            builder.box((edges[i], 0, sill), (edges[i + 1], RECESS_M, lintel), wall, faces="x- x+ y-")
        for i, x in enumerate(centres):
            is_door = storey == 0 and i == door_bay
            next_edge = centres[i + 1] - wide / 2 if i + 1 < bays else half
            if i == 0:
                builder.box((-half, 0, bottom), (x - wide / 2, RECESS_M, sill), wall, faces="x+ y- z+")
            builder.box((x + wide / 2, 0, bottom), (next_edge, RECESS_M, sill), wall, faces="x- x+ y- z+")
            if is_door:
                _door(builder, rng, x, wide, bottom, lintel, style)
                continue
            builder.box((x - wide / 2, 0, bottom), (x + wide / 2, RECESS_M, sill), wall, faces="y- z+")
            _window(builder, rng, x, wide, sill, lintel, style, detail)
            if balcony and storey > 0 and i % 2 == door_bay % 2:
                _balcony(builder, rng, x, max(wide + 0.8, 1.8), bottom, style)
        if storey > 0 and rng.random() < 0.3:
            builder.box((-half, -0.06, bottom - 0.1), (half, 0, bottom + 0.06), style.trim, faces="y- z- z+")
    if rng.random() < 0.6:  # rain pipe
        x = half - 0.2
        builder.tube((x, -0.07, 0), (x, -0.07, height), (0.05, 0.05), style.frame.tinted((0.6, 0.6, 0.6)), sides=6)


def _window(
    builder: MeshBuilder,
    rng: np.random.Generator,
    x: float,
    wide: float,
    sill: float,
    lintel: float,
    style: HouseStyle,
    detail: bool,
) -> None:
    y, left, right = RECESS_M, x - wide / 2, x + wide / 2
    pane = pick(rng, "window", 0, gloss=0.75)
    builder.quad(np.array([[left, y, sill], [right, y, sill], [right, y, lintel], [left, y, lintel]]), pane)
    builder.box((left - 0.08, -0.07, sill - 0.07), (right + 0.08, 0.02, sill), style.trim, faces="x- x+ y- z- z+")
    if not detail:
        return
    t, front = 0.06, y - 0.05
    f = style.frame
    builder.box((left, front, sill), (left + t, y, lintel), f, faces="x+ y-")
    builder.box((right - t, front, sill), (right, y, lintel), f, faces="x- y-")
    builder.box((left, front, sill), (right, y, sill + t), f, faces="y- z+")
    builder.box((left, front, lintel - t), (right, y, lintel), f, faces="y- z-")
    if style.bars >= 1:
        builder.box((x - 0.03, front, sill), (x + 0.03, y, lintel), f, faces="x- x+ y-")
    if style.bars >= 2:
        bar = sill + 0.62 * (lintel - sill)
        builder.box((left, front, bar), (right, y, bar + 0.05), f, faces="y- z- z+")
    if style.shutters:
        for x0 in (left - 0.5 * wide, right):
            builder.box((x0 + 0.02, -0.05, sill), (x0 + 0.5 * wide - 0.02, 0, lintel), f.tinted((0.5, 0.6, 0.5)))


def _door(
    builder: MeshBuilder,
    rng: np.random.Generator,
    x: float,
    wide: float,
    bottom: float,
    lintel: float,
    style: HouseStyle,
) -> None:
    left, right, top = x - wide / 2, x + wide / 2, lintel
    leaf = pick(rng, "door", 0).tinted(vivid(rng, rng.uniform(0.35, 0.9), 0.55))
    y = RECESS_M
    builder.quad(np.array([[left, y, bottom], [right, y, bottom], [right, y, top], [left, y, top]]), leaf)
    builder.box((left - 0.1, -0.03, bottom), (left, y, top + 0.1), style.trim)
    builder.box((right, -0.03, bottom), (right + 0.1, y, top + 0.1), style.trim)
    builder.box((left - 0.1, -0.6, bottom), (right + 0.1, y, bottom + 0.16), style.trim)
    if rng.random() < 0.4:
        builder.box((left - 0.3, -0.9, top + 0.15), (right + 0.3, 0, top + 0.27), style.roof)


def _balcony(
    builder: MeshBuilder, rng: np.random.Generator, x: float, wide: float, bottom: float, style: HouseStyle
) -> None:
    deep, low, high = 1.1, bottom + 0.0, bottom + 1.0
    builder.box((x - wide / 2, -deep, low - 0.15), (x + wide / 2, 0, low), style.trim)
    rail = pick(rng, "railing", 1.0).tinted((0.25, 0.26, 0.28))
    half = wide / 2
    u = wide / 1.2
    flat = np.array([[0, 1], [u, 1], [u, 0], [0, 0]])
    builder.quad(
        np.array([[x - half, -deep, low], [x + half, -deep, low], [x + half, -deep, high], [x - half, -deep, high]]),
        rail,
        flat,
    )
    for side in (-half, half):
        builder.quad(
            np.array([[x + side, -deep, low], [x + side, 0, low], [x + side, 0, high], [x + side, -deep, high]]),
            rail,
            flat,
        )


def _shop_front(builder: MeshBuilder, rng: np.random.Generator, half: float, style: HouseStyle) -> None:
    top, y = style.storey_m, 0.3
    builder.box((-half, 0, top - 0.75), (half, y, top), style.wall, faces="y- z-")
    board = pick(rng, "fascia", 0)
    builder.quad(
        np.array(
            [
                [-half + 0.2, -0.06, top - 0.7],
                [half - 0.2, -0.06, top - 0.7],
                [half - 0.2, -0.06, top - 0.1],
                [-half + 0.2, -0.06, top - 0.1],
            ]
        ),
        board,
    )
    panes = max(2, round(half * 2 / 2.2))
    x = np.linspace(-half, half, panes + 1)
    door = int(rng.integers(panes))
    for i in range(panes):
        low = 0.05 if i == door else 0.5
        pane = pick(rng, "door" if i == door else "shop", 0, gloss=0.5)
        builder.quad(
            np.array([[x[i], y, low], [x[i + 1], y, low], [x[i + 1], y, top - 0.75], [x[i], y, top - 0.75]]), pane
        )
        builder.box((x[i], 0.05, 0), (x[i + 1], y, low), style.base, faces="y- z+")
        builder.box((x[i] - 0.1, 0, 0), (x[i] + 0.1, y, top - 0.75), style.trim)
    builder.box((half - 0.15, 0, 0), (half, y, top - 0.75), style.trim)
    if rng.random() < 0.5:
        awning = pick(rng, "fabric", 1.6).tinted(tint(rng, 0.7, 1.0))
        z = top - 0.75
        builder.quad(
            np.array(
                [[-half + 0.3, -1.2, z - 0.5], [half - 0.3, -1.2, z - 0.5], [half - 0.3, 0, z], [-half + 0.3, 0, z]]
            ),
            awning,
        )


def _flat_windows(
    builder: MeshBuilder,
    rng: np.random.Generator,
    side: int,
    half: float,
    depth: float,
    storeys: int,
    style: HouseStyle,
) -> None:
    x = side * (half + 0.01)
    for storey in range(storeys):
        for y in np.arange(1.6, depth - 1.0, 3.5):
            if rng.random() < 0.55:
                z, w = storey * style.storey_m + 0.95, style.window_m[0] / 2
                corners = np.array([[x, y - w, z], [x, y + w, z], [x, y + w, z + 1.3], [x, y - w, z + 1.3]])
                builder.quad(corners, pick(rng, "window", 0, gloss=0.7))
                builder.box((x - 0.08, y - w - 0.06, z - 0.06), (x + 0.08, y + w + 0.06, z), style.trim)


def _roof(
    builder: MeshBuilder, rng: np.random.Generator, half: float, depth: float, height: float, style: HouseStyle
) -> None:
    kind = rng.choice(["ridge along", "gable front", "flat"], p=[0.6, 0.2, 0.2])
    rise, over = min(half, depth / 2) * rng.uniform(0.55, 1.0), 0.35
    if kind == "flat":
        builder.box((-half, 0, height), (half, depth, height + 0.02), style.trim, faces="z+")
        builder.box((-half, -0.05, height), (half, 0.2, height + 0.6), style.wall)
        builder.block((rng.uniform(-0.5, 0.5) * half, depth / 2, height), (2.5, 2.5, 1.8), style.trim)
        return
    if kind == "gable front":
        top, drop = height + rise, over * rise / half
        for side in (-1, 1):
            eave = side * (half + over)
            corners = np.array(
                [
                    [eave, -over, height - drop],
                    [eave, depth + over, height - drop],
                    [0, depth + over, top],
                    [0, -over, top],
                ]
            )
            builder.quad(corners, style.roof)
        for y in (0.0, depth):
            builder.quad(np.array([[-half, y, height], [half, y, height], [0, y, top], [0, y, top]]), style.wall)
        builder.quad(
            np.array(
                [
                    [-0.5, -0.01, height + 0.3],
                    [0.5, -0.01, height + 0.3],
                    [0.5, -0.01, height + 1.3],
                    [-0.5, -0.01, height + 1.3],
                ]
            ),
            pick(rng, "window", 0, gloss=0.7),
        )
    else:
        top, drop, middle = height + rise, over * rise / (depth / 2), depth / 2
        for y in (-over, depth + over):
            builder.quad(
                np.array(
                    [
                        [-half - 0.2, y, height - drop],
                        [half + 0.2, y, height - drop],
                        [half + 0.2, middle, top],
                        [-half - 0.2, middle, top],
                    ]
                ),
                style.roof,
            )
        for x in (-half, half):
            builder.quad(np.array([[x, 0, height], [x, depth, height], [x, middle, top], [x, middle, top]]), style.wall)
        builder.tube(
            (-half, -over - 0.04, height - drop),
            (half, -over - 0.04, height - drop),
            (0.07, 0.07),
            style.frame.tinted((0.6, 0.6, 0.6)),
            6,
        )
        for x in np.arange(-half + 2, half - 1.5, 3.2):
            if rng.random() < 0.35 and rise > 2:
                z, y0 = height + 0.25 * rise, 0.25 * middle
                builder.block((x, y0 + 0.9, z), (1.4, 1.8, 1.3), style.wall)
                builder.quad(
                    np.array(
                        [
                            [x - 0.5, y0 - 0.01, z + 0.2],
                            [x + 0.5, y0 - 0.01, z + 0.2],
                            [x + 0.5, y0 - 0.01, z + 1.15],
                            [x - 0.5, y0 - 0.01, z + 1.15],
                        ]
                    ),
                    pick(rng, "window", 0, gloss=0.7),
                )
                builder.block((x, y0 + 0.8, z + 1.3), (1.7, 2.2, 0.12), style.roof)
    for _ in range(int(rng.integers(0, 3))):
        x = rng.uniform(-0.8, 0.8) * half
        builder.block((x, depth / 2 + 0.3, height + 0.5 * rise), (0.6, 0.5, 0.5 * rise + 0.9), style.base)
