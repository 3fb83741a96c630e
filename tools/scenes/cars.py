"""Parked cars and vans, lofted from profiles."""

from __future__ import annotations

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder
from tools.scenes.textures import LAYERS, pick, vivid

# Side view by share of the length, front at 1: height of the bonnet line and of the roof line by share of the height.
_SHAPES = {
    "hatchback": (
        [0.0, 0.02, 0.08, 0.2, 0.3, 0.45, 0.58, 0.66, 0.72, 0.85, 0.96, 1.0],
        [0.45, 0.66, 0.86, 0.97, 1.0, 1.0, 0.97, 0.84, 0.68, 0.62, 0.52, 0.38],
    ),
    "saloon": (
        [0.0, 0.02, 0.1, 0.17, 0.28, 0.36, 0.5, 0.58, 0.71, 0.86, 0.97, 1.0],
        [0.42, 0.62, 0.68, 0.71, 0.94, 1.0, 1.0, 0.96, 0.67, 0.62, 0.52, 0.38],
    ),
    "estate": (
        [0.0, 0.02, 0.06, 0.12, 0.3, 0.45, 0.57, 0.64, 0.72, 0.85, 0.96, 1.0],
        [0.45, 0.66, 0.82, 0.96, 1.0, 1.0, 0.97, 0.86, 0.66, 0.61, 0.52, 0.38],
    ),
    "van": (
        [0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 0.7, 0.8, 0.87, 0.92, 0.98, 1.0],
        [0.3, 0.9, 0.98, 1.0, 1.0, 1.0, 0.98, 0.8, 0.56, 0.5, 0.42, 0.3],
    ),
}
_SIZES = {
    "hatchback": (3.9, 1.7, 1.46),
    "saloon": (4.6, 1.78, 1.42),
    "estate": (4.7, 1.8, 1.5),
    "van": (5.2, 1.95, 2.2),
}
_PAINTS = (
    (0.85, 0.85, 0.84),
    (0.1, 0.1, 0.11),
    (0.55, 0.57, 0.58),
    (0.3, 0.32, 0.34),
    (0.5, 0.06, 0.05),
    (0.1, 0.16, 0.4),
)


def car(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray) -> None:
    """A car whose middle stands at `where` (4, 4), its front towards local +y."""
    name = str(rng.choice(list(_SHAPES), p=[0.4, 0.25, 0.2, 0.15]))
    length, width, height = np.array(_SIZES[name]) * rng.uniform(0.94, 1.06, 3)
    colour = (
        np.sqrt(_PAINTS[rng.integers(len(_PAINTS))]) if rng.random() < 0.75 else vivid(rng, rng.uniform(0.4, 0.9), 0.7)
    )
    paint = Material(int(rng.choice(LAYERS["paint"])), 3.0, gloss=0.55).tinted(colour)
    glass = Material(int(rng.choice(LAYERS["paint"])), 2.0, gloss=0.95, tint=(0.16, 0.18, 0.19))
    rubber = Material(LAYERS["paint"][0], 1.0, tint=(0.14, 0.14, 0.14))
    steel = Material(LAYERS["metal"][0], 0.6, gloss=0.6, tint=(0.75, 0.76, 0.78))
    with builder.at(where):
        builder.part()
        share, top = (np.array(a) for a in _SHAPES[name])
        share = np.interp(np.linspace(0, 1, 25), np.linspace(0, 1, len(share)), share)
        top = np.interp(share, np.array(_SHAPES[name][0]), np.array(_SHAPES[name][1])) * height
        belt = np.minimum(top, height * (0.62 if name != "van" else 0.55))
        y = (share - 0.5) * length
        round_off = 1 - 0.16 * np.abs(2 * share - 1) ** 4
        half = width / 2 * round_off
        _body(builder, y, top, belt, half, height, paint, glass, name == "van")
        _trim(builder, rng, length, width, height, rubber, steel)
        for end in (-0.31, 0.31):
            for side in (-1, 1):
                _wheel(builder, (side * (width / 2 - 0.1), end * length, 0.31), side, rubber, steel)


def _body(
    builder: MeshBuilder,
    y: np.ndarray,
    top: np.ndarray,
    belt: np.ndarray,
    half: np.ndarray,
    height: float,
    paint: Material,
    glass: Material,
    van: bool,
) -> None:
    """Lower body and roof in paint, the band between belt and roof in glass where it rises."""
    floor = 0.2 + 0 * y
    cabin = np.clip((top - belt) / (0.3 * height), 0, 1)
    lean = half - 0.2 * cabin * (top - belt)

    def ring(*rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return np.stack([np.stack([x, y, z], axis=1) for x, z in rows], axis=1)

    for side in (-1.0, 1.0):
        lower = ring(
            (side * half * 0.94, floor), (side * half, floor + 0.14), (side * half * 1.01, 0.5 * belt + 0.1),
            (side * half * 0.99, belt - 0.06), (side * half * 0.95, belt),
        )  # fmt: skip
        builder.grid(lower, paint)
        upper = ring((side * half * 0.95, belt), (side * lean * 0.93, top - 0.05 * cabin))
        builder.grid(upper, paint if van else glass)
        builder.grid(
            ring((side * lean * 0.93, top - 0.05 * cabin), (side * lean * 0.8, top), (0 * y, top + 0.03 * cabin)), paint
        )
        rows = np.flatnonzero(cabin > 0.98)
        if len(rows) > 3 and not van:  # pillars
            for row in (rows[0], rows[len(rows) // 2], rows[-1]):
                low, high = (
                    np.array([side * half[row] * 0.955, y[row], belt[row]]),
                    np.array([side * lean[row] * 0.94, y[row], top[row] - 0.05]),
                )
                out, wide = np.array([side * 0.006, 0, 0]), np.array([0, 0.045, 0])
                builder.quad(np.stack([low - wide, low + wide, high + wide, high - wide]) + out, paint)
    # Windscreen and rear window: where the roof line falls steeply above the belt.
    slope = np.abs(np.gradient(top, y))
    for a in range(len(y) - 1):
        if (
            min(slope[a], slope[a + 1]) > 0.3
            and max(top[a], top[a + 1]) > belt[a] + 0.1
            and 0.5 * (top[a] + top[a + 1]) > 0.6 * height
        ):
            corner = [[s * lean[i] * 0.78, y[i], top[i] + 0.035] for i, s in ((a, -1), (a, 1), (a + 1, 1), (a + 1, -1))]
            builder.quad(np.array(corner), glass)


def _trim(
    builder: MeshBuilder,
    rng: np.random.Generator,
    length: float,
    width: float,
    height: float,
    rubber: Material,
    steel: Material,
) -> None:
    """Bumpers, lights, number plates, mirrors, sills and handles."""
    w, e = width / 2, length / 2
    for end in (-1.0, 1.0):
        y0, y1 = sorted((end * (e - 0.12), end * (e + 0.03)))
        builder.box((-w * 0.84, y0, 0.22), (w * 0.84, y1, 0.42), rubber)
        plate = pick(rng, "plate", 0)
        y = end * (e + 0.035)
        builder.quad(
            np.array([[0.26 * end, y, 0.46], [-0.26 * end, y, 0.46], [-0.26 * end, y, 0.57], [0.26 * end, y, 0.57]]),
            plate,
        )
        lamp = Material(rubber.layer, 1.0, 0.7, 0.02, tint=(0.95, 0.95, 0.9) if end > 0 else (0.75, 0.05, 0.05))
        for side in (-1, 1):
            x0, x1 = sorted((side * w * 0.86, side * w * 0.58))
            builder.box(
                (x0, min(end * (e - 0.14), end * (e + 0.01)), 0.56),
                (x1, max(end * (e - 0.14), end * (e + 0.01)), 0.7),
                lamp,
            )
    grille = rubber.tinted((0.8, 0.8, 0.8))
    builder.box((-w * 0.5, e - 0.1, 0.58), (w * 0.5, e + 0.012, 0.7), grille)
    for side in (-1, 1):
        x0, x1 = sorted((side * w * 0.98, side * (w + 0.17)))
        builder.box((x0, 0.2 * length, height * 0.62), (x1, 0.2 * length + 0.09, height * 0.62 + 0.13), rubber)
        x0, x1 = sorted((side * w * 0.97, side * w * 1.012))
        builder.box((x0, -0.2 * length, 0.2), (x1, 0.2 * length, 0.27), rubber)
        for y in (-0.1 * length, 0.08 * length):
            builder.box(
                (side * w - 0.012 + side * 0.012, y, 0.55 * height),
                (side * w + 0.012 + side * 0.012, y + 0.16, 0.55 * height + 0.03),
                steel,
            )
            builder.box(
                (side * w * 1.0 - 0.006, y + 0.25, 0.3), (side * w * 1.0 + 0.006, y + 0.262, 0.6 * height), rubber
            )


def _wheel(
    builder: MeshBuilder, centre: tuple[float, float, float], side: int, rubber: Material, steel: Material
) -> None:
    x, y, z = centre
    turn = np.array([[0, 0, side, x], [0, 1, 0, y], [-side, 0, 0, z], [0, 0, 0, 1.0]])
    with builder.at(turn):
        builder.lathe([(0.31, -0.12), (0.31, 0.1), (0.27, 0.12), (0.2, 0.115)], rubber, 14)
        builder.lathe([(0.2, 0.112), (0.18, 0.09), (0.06, 0.1), (0.0, 0.105)], steel, 10)
        # The dark of the wheel arch.
        builder.lathe([(0.37, 0.085), (0.3, 0.084)], rubber.tinted((0.4, 0.4, 0.4)), 14)
