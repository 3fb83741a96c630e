"""A street: road, pavements, houses or green on each side, parked cars, and what stands about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.scenes.buildings import house, random_style
from tools.scenes.cars import car
from tools.scenes.course import Course
from tools.scenes.daylight import daylight
from tools.scenes.mesh import Material, MeshBuilder, placed
from tools.scenes.plants import bush, grove, hedge, tree
from tools.scenes.scene import Scene, SceneKind
from tools.scenes.street_cameras import StreetCameras
from tools.scenes.street_things import advert, bin_or_box, lamp_post, pole_sign, wall_run
from tools.scenes.textures import LAYERS, pick, tint

FROM_M, TO_M = -25.0, 165.0


@dataclass(frozen=True)
class Side:
    """One side of a street; all distances are from the road's middle."""

    sign: int
    """-1 left, 1 right."""
    kind: str
    """"terrace", "suburb", "green"."""
    kerb_m: float
    pavement_m: tuple[float, float]
    """Where the pavement begins and ends."""
    front_m: float
    """Where houses begin."""
    parking: float
    """Share of the kerb with cars."""


def build_street(seed: int) -> Scene:
    """The street of that seed."""
    rng = np.random.default_rng([seed, 11])
    builder = MeshBuilder()
    course = Course(rng)
    lanes = float(rng.uniform(2.8, 3.6))
    kinds = rng.choice(["terrace", "suburb", "green"], 2, p=[0.34, 0.36, 0.3])
    sides = tuple(_random_side(rng, sign, str(kind), lanes) for sign, kind in zip((-1, 1), kinds, strict=True))
    _road(builder, rng, course, sides, lanes)
    for side in sides:
        _ground(builder, rng, course, side)
        _along_kerb(builder, rng, course, side)
        if side.kind == "green":
            _green(builder, rng, course, side)
        else:
            _houses(builder, rng, course, side)
    _far(builder, rng, course)
    light = daylight(rng, target=course.place(38.0, 0.0)[0])
    return Scene(SceneKind.STREET, seed, builder.finish(), light, StreetCameras(course, lanes, sides[1].kerb_m))


def _random_side(rng: np.random.Generator, sign: int, kind: str, lanes: float) -> Side:
    parking = float(rng.choice([0.0, 0.35, 0.75], p=[0.3, 0.35, 0.35]))
    kerb = lanes + (2.2 if parking else 0.0) + float(rng.uniform(0, 0.6))
    verge = float(rng.choice([0.0, 1.0, 2.2], p=[0.55, 0.2, 0.25]))
    start = kerb + 0.15 + verge
    end = start + float(rng.uniform(1.5, 3.2))
    front = end + {"terrace": float(rng.choice([0.0, 1.5])), "suburb": float(rng.uniform(3, 7)), "green": 5.0}[kind]
    return Side(sign, kind, kerb, (start, end), front, parking)


def _road(builder: MeshBuilder, rng: np.random.Generator, course: Course, sides: Sequence[Side], lanes: float) -> None:
    asphalt = pick(rng, "asphalt" if rng.random() < 0.9 else "cobble", float(rng.uniform(2.5, 4.5))).tinted(
        tint(rng, 0.75, 1.0, 0.04)
    )
    left, right = sides[0].kerb_m, sides[1].kerb_m
    course.strip(builder, [(-left, 0), (-left / 2, 0.05), (0, 0.07), (right / 2, 0.05), (right, 0)], asphalt)
    patch = pick(rng, "asphalt", 2.5)
    white = pick(rng, "marking", 0.8).tinted(tint(rng, 0.8, 1.0, 0.03))

    def up(right_m: float) -> float:
        return float(np.interp(right_m, [-left, -left / 2, 0, right / 2, right], [0, 0.05, 0.07, 0.05, 0]))

    def flat(along: float, length: float, right_m: float, width: float, material: Material, lift: float) -> None:
        builder.part(solid=False)
        corners = []
        for a, r in ((along, -0.5), (along, 0.5), (along + length, 0.5), (along + length, -0.5)):
            corners.append(course.place(a, right_m + r * width, up(right_m + r * width) + lift)[0])
        builder.quad(np.array(corners), material)

    for _ in range(int(rng.integers(3, 14))):
        at, width = rng.uniform(FROM_M, TO_M), rng.uniform(0.5, 2.0)
        flat(
            at,
            rng.uniform(0.8, 7),
            rng.uniform(-left + 1.2, right - 1.2),
            width,
            patch.tinted(tint(rng, 0.55, 1.0, 0.02)),
            0.006,
        )
    for _ in range(int(rng.integers(3, 8))):
        flat(rng.uniform(0, 100), 0.75, rng.uniform(-left + 1, right - 1), 0.75, pick(rng, "manhole", 0), 0.012)
    if rng.random() < 0.75:
        dash, gap = ((3.0, 6.0), (1.5, 1.5), (6.0, 3.0), (40.0, 0.0))[rng.integers(4)]
        for along in np.arange(FROM_M, TO_M, dash + gap):
            for piece in np.arange(0, dash, 4.0):
                flat(along + piece, min(4.0, dash - piece), 0.0, 0.13, white, 0.014)
    for side in sides:
        if side.parking or rng.random() < 0.4:
            edge = lanes + 0.1 if side.parking else side.kerb_m - 0.35
            for along in np.arange(FROM_M, TO_M, 4.0):
                flat(along, 4.0, side.sign * edge, 0.1, white, 0.014)
    if rng.random() < 0.35:
        start = rng.uniform(12, 45)
        for right_m in np.arange(-left + 0.6, right - 0.4, 1.0):
            flat(start, 3.2, right_m, 0.5, white, 0.016)


def _ground(builder: MeshBuilder, rng: np.random.Generator, course: Course, side: Side) -> None:
    s, kerb, (start, end) = side.sign, side.kerb_m, side.pavement_m
    stone = pick(rng, "concrete", 1.2).tinted(tint(rng, 0.7, 1.0))
    course.strip(
        builder, _turned([(s * kerb, 0), (s * kerb, 0.11), (s * (kerb + 0.02), 0.13), (s * (kerb + 0.15), 0.13)]), stone
    )
    if start > kerb + 0.2:
        verge = pick(rng, str(rng.choice(["grass", "soil", "gravel"], p=[0.7, 0.15, 0.15])), 2.5)
        course.strip(builder, _turned([(s * (kerb + 0.15), 0.13), (s * start, 0.14)]), verge)
    walk = pick(
        rng,
        str(rng.choice(["paving", "asphalt", "cobble", "concrete"], p=[0.6, 0.2, 0.1, 0.1])),
        float(rng.uniform(1.6, 3)),
    )
    course.strip(builder, _turned([(s * start, 0.14), (s * end, 0.16)]), walk.tinted(tint(rng, 0.75, 1.0)))
    green = side.kind != "terrace" or rng.random() < 0.3
    yard = pick(rng, "grass", 3.0) if green else pick(rng, "paving", 2.5)
    rise = float(rng.uniform(0, 2.5)) if side.kind == "green" else 0.2
    shape = [(s * end, 0.15), (s * (end + 4), 0.2), (s * (end + 25), 0.2 + rise), (s * 130, 0.2 + 2 * rise)]
    course.strip(builder, _turned(shape), yard.tinted(tint(rng, 0.75, 1.0)))


def _turned(profile: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """From left to right, so that the ground faces up."""
    return profile if profile[0][0] <= profile[-1][0] and profile[-1][0] > 0 else profile[::-1]


def _facing(side: Side) -> float:
    """Turn against the road's way that makes local -y look at the road."""
    return -side.sign * np.pi / 2


def _along_kerb(builder: MeshBuilder, rng: np.random.Generator, course: Course, side: Side) -> None:
    s = side.sign
    along = FROM_M + rng.uniform(0, 6)
    while side.parking and along < TO_M - 20:
        if rng.random() < side.parking:
            turn = (0.0 if s > 0 else np.pi) + rng.normal(0, 0.015) + (np.pi if rng.random() < 0.15 else 0.0)
            car(builder, rng, course.frame(along, s * (side.kerb_m - 1.12 + rng.normal(0, 0.06)), 0.02, turn))
        along += rng.uniform(5.2, 6.8)
    trees, lamps = rng.random() < 0.55, rng.random() < 0.8
    line, spacing = side.kerb_m + 0.55, rng.uniform(8, 14)
    if trees:
        high = rng.uniform(4.5, 9)
        for at in np.arange(FROM_M + rng.uniform(0, 8), TO_M, spacing):
            if rng.random() < 0.8:
                tree(
                    builder,
                    rng,
                    course.frame(at, s * line, 0.1, rng.uniform(0, 6)),
                    high * rng.uniform(0.8, 1.2),
                    1.0 if 0 < at < 60 else 0.4,
                )
    if lamps:
        for at in np.arange(FROM_M + rng.uniform(0, 20), TO_M, 26.0):
            lamp_post(builder, rng, course.frame(at, s * (line - 0.1), 0.1, 0.0 if s > 0 else np.pi))
    near_wall = side.pavement_m[1] - 0.35
    for _ in range(int(rng.integers(6, 20))):
        at, kind = rng.uniform(0, 110), rng.random()
        right = s * (line - 0.1 if rng.random() < 0.5 else near_wall)
        if kind < 0.3:
            pole_sign(builder, rng, course.frame(at, s * (line - 0.15), 0.1, 0.0))
        elif kind < 0.9:
            bin_or_box(builder, rng, course.frame(at, right, 0.13, _facing(side) + rng.normal(0, 0.2)))
        elif side.pavement_m[1] - side.kerb_m > 2.4:
            advert(builder, rng, course.frame(at, right, 0.13, _facing(side)))


def _houses(builder: MeshBuilder, rng: np.random.Generator, course: Course, side: Side) -> None:
    s, along = side.sign, FROM_M + rng.uniform(0, 6)
    terrace = side.kind == "terrace"
    low, high = (2, 6) if terrace else (1, 4)
    while along < TO_M:
        width = float(rng.uniform(7, 15) if terrace else rng.uniform(8, 13))
        if rng.random() < 0.08:
            along += rng.uniform(7, 12)  # a side street or an empty plot
            continue
        middle = along + width / 2
        back = side.front_m + (rng.choice([0.0, 0.4]) if terrace else rng.uniform(0, 3))
        where = course.frame(middle, s * back, 0.12, _facing(side))
        detail = middle < 75
        storeys = int(rng.integers(low, high))
        house(
            builder,
            rng,
            where,
            width,
            float(rng.uniform(8, 12)),
            storeys,
            random_style(rng),
            terrace and rng.random() < 0.35,
            detail,
        )
        gap = 0.0 if terrace and rng.random() < 0.85 else float(rng.uniform(2, 7))
        if not terrace:
            _garden(builder, rng, course, side, along, width + gap, back)
        along += width + gap


def _garden(
    builder: MeshBuilder, rng: np.random.Generator, course: Course, side: Side, along: float, length: float, back: float
) -> None:
    s, edge = side.sign, side.pavement_m[1] + 0.15
    kind = str(rng.choice(["hedge", "wall", "fence", "railing", "open"], p=[0.32, 0.28, 0.15, 0.1, 0.15]))
    drive = float(rng.uniform(2.5, 3.5)) if rng.random() < 0.6 else 0.0
    if drive:
        slab = pick(rng, str(rng.choice(["paving", "gravel", "concrete"])), 2.0)
        corners = [
            course.place(along + a, s * r, 0.24)[0] for a, r in ((0.3, edge), (drive, edge), (drive, back), (0.3, back))
        ]
        builder.part(solid=False)
        builder.quad(np.array(corners)[::s], slab)
        if rng.random() < 0.4 and back - edge > 4.8:
            car(
                builder,
                rng,
                course.frame(along + drive / 2 + 0.2, s * (edge + 2.6), 0.25, _facing(side) + np.pi * rng.integers(2)),
            )
    start = course.frame(along + drive + 0.2, s * edge, 0.12)
    run = length - drive - 0.4
    if kind == "hedge":
        hedge(builder, rng, start, run, float(rng.uniform(0.8, 1.9)))
    elif kind != "open":
        wall_run(builder, rng, start, run, kind)
    for _ in range(int(rng.integers(0, 4))):
        where = course.frame(
            along + rng.uniform(drive, length), s * rng.uniform(edge + 0.8, max(edge + 1, back - 0.8)), 0.15
        )
        if rng.random() < 0.25:
            tree(builder, rng, where, float(rng.uniform(3, 6)), 0.6)
        else:
            bush(builder, rng, where, float(rng.uniform(0.6, 1.5)), 0.6)
    if rng.random() < 0.5:  # behind the house
        tree(builder, rng, course.frame(along, s * (back + 16), 0.3), float(rng.uniform(7, 13)), 0.3)


def _green(builder: MeshBuilder, rng: np.random.Generator, course: Course, side: Side) -> None:
    s, edge = side.sign, side.pavement_m[1] + 0.3
    kind = str(rng.choice(["wall", "hedge", "fence", "open"], p=[0.35, 0.2, 0.15, 0.3]))
    if kind != "open":
        made = {"wall": 11}.get(kind, 7)
        state = int(rng.integers(1 << 30))
        for along in np.arange(FROM_M, TO_M, float(made)):
            # The same generator for each piece: one wall, not a new one every few metres.
            piece = np.random.default_rng(state)
            where = course.frame(along, s * edge, 0.12)
            if kind == "hedge":
                hedge(builder, piece, where, made, float(piece.uniform(0.8, 2.2)))
            else:
                wall_run(builder, piece, where, made, kind)
    density = rng.uniform(0.25, 0.8)
    for along in np.arange(FROM_M, TO_M, 3.5):
        if rng.random() < density:
            right = edge + 1.5 + rng.exponential(5)
            position = course.place(along + rng.uniform(0, 3), s * right, 0.15)[0]
            grove(builder, rng, position[None], 0.9 if along < 50 and right < 12 else 0.35)


def _far(builder: MeshBuilder, rng: np.random.Generator, course: Course) -> None:
    """Tree line, hills and houses all round, and a slab under everything."""
    builder.part(solid=False)
    middle, _ = course.place(60.0, 0.0)
    line = Material(int(rng.choice(LAYERS["treeline"])), 0, cutout=True).tinted(tint(rng, 0.5, 0.9, 0.1))
    for radius, high in ((135.0, rng.uniform(6, 14)), (320.0, rng.uniform(14, 40))):
        angle = np.linspace(0, 2 * np.pi, 33)
        ring = middle[:2] + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        low, top = middle[2] - 4, middle[2] + high
        for a, b, k in zip(ring[:-1], ring[1:], range(32), strict=True):
            u = k * 0.7
            uv = np.array([[u, 1], [u + 0.7, 1], [u + 0.7, 0], [u, 0]])
            builder.quad(np.array([[*a, low], [*b, low], [*b, top], [*a, top]]), line, uv)
    end = course.points[-1]
    for _ in range(int(rng.integers(4, 16))):
        at = end[:2] + rng.uniform(-90, 90, 2) + (0, 60)
        wide, high = rng.uniform(8, 22), rng.uniform(6, 26)
        builder.part(solid=False)
        style = random_style(rng)
        with builder.at(placed((*at, end[2]), rng.uniform(-0.6, 0.6))):
            builder.block((0, 0, 0), (wide, 12, high), style.wall)
            for z in np.arange(1.0, high - 1.5, 3.0):
                for x in np.arange(-wide / 2 + 1, wide / 2 - 1.5, 2.6):
                    builder.quad(
                        np.array([[x, -6.05, z], [x + 1.2, -6.05, z], [x + 1.2, -6.05, z + 1.4], [x, -6.05, z + 1.4]]),
                        pick(rng, "window", 0, gloss=0.6),
                    )
            builder.block((0, 0, high), (wide + 0.6, 12.6, 0.5), style.roof)
    ground = pick(rng, "grass", 6.0).tinted(tint(rng, 0.6, 0.9))
    z = min(course.points[:, 2].min(), middle[2]) - 0.6
    builder.part(solid=False)
    builder.box((middle[0] - 600, middle[1] - 600, z - 1), (middle[0] + 600, middle[1] + 600, z), ground, faces="z+")
