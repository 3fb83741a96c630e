"""A room: shell, window, door, furniture by purpose, and clutter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tools.scenes import furniture as f
from tools.scenes.mesh import Material, MeshBuilder, placed
from tools.scenes.room_cameras import RoomCameras
from tools.scenes.scene import Lamp, Light, Scene, SceneKind, ShadowLight
from tools.scenes.textures import pick, tint, vivid


@dataclass
class _Plan:
    """Occupied floor area."""

    half: np.ndarray
    """(2,) half of the room's width and depth."""
    height: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def claim(self, x: float, y: float, wide: float, deep: float) -> bool:
        """Take the rectangle unless something stands there."""
        box = (x - wide / 2, y - deep / 2, x + wide / 2, y + deep / 2)
        if np.any(np.abs((x, y)) + np.array([wide, deep]) / 2 > self.half + 0.02):
            return False
        if any(box[0] < t[2] and box[2] > t[0] and box[1] < t[3] and box[3] > t[1] for t in self.taken):
            return False
        self.taken.append(box)
        return True


def build_room(seed: int) -> Scene:
    """The room of that seed: a kitchen, an office, a living room or a bedroom."""
    rng = np.random.default_rng([seed, 12])
    builder = MeshBuilder()
    plan = _Plan(rng.uniform([1.7, 1.8], [2.9, 3.1]), float(rng.uniform(2.35, 2.9)))
    purpose = str(rng.choice(["kitchen", "office", "living", "bedroom"], p=[0.35, 0.3, 0.2, 0.15]))
    window_wall = int(rng.integers(1, 4))
    _shell(builder, rng, plan, window_wall, purpose)
    walls = [w for w in rng.permutation(4) if w != window_wall]
    for order, wall in enumerate([*walls, window_wall]):
        _furnish_wall(builder, rng, plan, int(wall), purpose, first=order == 0, window=wall == window_wall)
    _middle(builder, rng, plan, purpose)
    _floor_clutter(builder, rng, plan)
    light = _light(rng, plan, window_wall)
    return Scene(SceneKind.ROOM, seed, builder.finish(), light, RoomCameras(plan.half, plan.height), macro_m=3.7)


def _wall_frame(plan: _Plan, wall: int) -> tuple[np.ndarray, float]:
    """(4, 4) axes of a wall, x along it from its middle, -y into the room, and half of its length."""
    turn = wall * np.pi / 2
    away = plan.half[1] if wall % 2 == 0 else plan.half[0]
    along = plan.half[0] if wall % 2 == 0 else plan.half[1]
    return placed((-np.sin(turn) * away, np.cos(turn) * away, 0), turn), float(along)


def _shell(builder: MeshBuilder, rng: np.random.Generator, plan: _Plan, window_wall: int, purpose: str) -> None:
    hx, hy = plan.half
    floor = pick(
        rng,
        str(rng.choice(["planks", "parquet", "tiles", "carpet", "marble"], p=[0.4, 0.15, 0.2, 0.2, 0.05])),
        float(rng.uniform(1.2, 2.2)),
        0.12,
    )
    ceiling = pick(rng, str(rng.choice(["paint", "plaster", "tiles"], p=[0.7, 0.15, 0.15])), 2.4).tinted(
        (0.97, 0.97, 0.95)
    )
    builder.part(solid=False)
    builder.quad(np.array([[-hx, -hy, 0], [hx, -hy, 0], [hx, hy, 0], [-hx, hy, 0]]), floor.tinted(tint(rng, 0.75, 1.0)))
    builder.quad(
        np.array([[-hx, hy, plan.height], [hx, hy, plan.height], [hx, -hy, plan.height], [-hx, -hy, plan.height]]),
        ceiling,
    )
    main = _wall_material(rng)
    skirting = pick(rng, "paint", 1.0).tinted(tint(rng, 0.8, 1.0))
    for wall in range(4):
        frame, along = _wall_frame(plan, wall)
        material = main if rng.random() < 0.7 else _wall_material(rng)
        with builder.at(frame):
            builder.part(solid=False)
            if wall == window_wall:
                _window_wall(builder, rng, plan, along, material)
            else:
                builder.box((-along, 0, 0), (along, 0.2, plan.height), material, faces="y-")
            builder.box((-along, -0.02, 0), (along, 0, 0.09), skirting, faces="y- z+")
            if rng.random() < 0.25:
                builder.box((-along, -0.04, plan.height - 0.08), (along, 0, plan.height), skirting, faces="y- z-")


def _wall_material(rng: np.random.Generator) -> Material:
    kind = str(
        rng.choice(["paint", "wallpaper", "plaster", "brick", "tiles", "planks"], p=[0.45, 0.17, 0.16, 0.06, 0.1, 0.06])
    )
    tile = {"paint": 2.2, "wallpaper": 0.9, "plaster": 2.5, "brick": 1.1, "tiles": 0.9, "planks": 1.5}[kind]
    material = pick(rng, kind, tile, 0.2 if kind == "tiles" else 0.03)
    return (
        material.tinted(vivid(rng, rng.uniform(0.78, 1.0), rng.uniform(0, 0.3)))
        if kind in ("paint", "plaster")
        else material
    )


def _window_wall(builder: MeshBuilder, rng: np.random.Generator, plan: _Plan, along: float, material: Material) -> None:
    wide = min(along * 0.8, float(rng.uniform(0.5, 1.1)))
    low, high = float(rng.uniform(0.85, 1.05)), min(plan.height - 0.25, 2.15)
    for low_corner, high_corner in (
        ((-along, 0, 0), (along, 0.25, low)),
        ((-along, 0, high), (along, 0.25, plan.height)),
        ((-along, 0, low), (-wide, 0.25, high)),
        ((wide, 0, low), (along, 0.25, high)),
    ):
        builder.box(low_corner, high_corner, material, faces="x- x+ y- z- z+")
    frame = pick(rng, "paint", 1.0, 0.1).tinted((0.95, 0.95, 0.94) if rng.random() < 0.7 else (0.5, 0.38, 0.28))
    for x in np.linspace(-wide, wide, int(rng.integers(2, 4))):
        builder.box((x - 0.035, 0.14, low), (x + 0.035, 0.2, high), frame)
    for z in (low, high - 0.06):
        builder.box((-wide, 0.14, z), (wide, 0.2, z + 0.06), frame)
    builder.box((-wide - 0.06, -0.18, low - 0.04), (wide + 0.06, 0.14, low), frame)
    view = pick(rng, "outside", 0, glow=0.35)
    # Not right behind the frame, so that it moves against it as the outside does.
    builder.quad(np.array([[-4, 3, -0.8], [4, 3, -0.8], [4, 3, 4.2], [-4, 3, 4.2]]), view)
    if rng.random() < 0.5:
        curtain = pick(rng, "fabric", 0.8)
        for side in (-1, 1):
            x = side * (wide + 0.05) + np.linspace(-0.2, 0.2, 13)
            y = -0.12 + 0.04 * np.sin(np.arange(13) * 1.9)
            points = np.stack([np.stack([x, y, 0 * x + z], axis=1) for z in (0.2, high + 0.15)])
            builder.grid(points, curtain)
    for x in np.arange(-wide + 0.15, wide, 0.3):
        if rng.random() < 0.5:
            f.small_thing(builder, rng, (x, -0.08, low), 0.12)


def _furnish_wall(
    builder: MeshBuilder, rng: np.random.Generator, plan: _Plan, wall: int, purpose: str, first: bool, window: bool
) -> None:
    """Furniture side by side along a wall, and pictures above it."""
    frame, along = _wall_frame(plan, wall)
    x = -along + 0.05 + (0.0 if purpose == "kitchen" and first else float(rng.uniform(0, 0.4)))
    door_done = False
    with builder.at(frame):
        if purpose == "kitchen" and first:
            made = f.kitchen_run(builder, rng, along, window)
            _claim(plan, frame, 0.0, -0.35, 2 * along, 0.7)
            if made:
                return
        while x < along - 0.5:
            if not window and not door_done and rng.random() < 0.2:
                f.door(builder, rng, x + 0.5)
                door_done, x = True, x + 1.1
                continue
            kind = _choose(rng, purpose, window)
            wide, deep = kind.wide * rng.uniform(0.9, 1.15), kind.deep
            if x + wide > along or not _claim(plan, frame, x + wide / 2, -deep / 2 - 0.02, wide, deep):
                if not window and rng.random() < 0.7:
                    f.picture(builder, rng, x + 0.3, float(rng.uniform(1.3, 1.7)))
                x += 0.6
                continue
            with builder.at(placed((x + wide / 2, -0.02, 0))):
                kind.make(builder, rng, wide)
                if kind.low and not window:
                    for dx in np.arange(-wide / 2 + 0.25, wide / 2, 0.55):
                        if rng.random() < 0.75:
                            f.picture(builder, rng, dx, float(rng.uniform(1.35, 1.85)))
            x += wide + float(rng.choice([0.02, rng.uniform(0.1, 0.6)]))


def _claim(plan: _Plan, frame: np.ndarray, x: float, y: float, wide: float, deep: float) -> bool:
    centre = frame @ np.array([x, y, 0, 1])
    turned = abs(frame[0, 0]) < 0.5
    return plan.claim(float(centre[0]), float(centre[1]), deep if turned else wide, wide if turned else deep)


@dataclass(frozen=True)
class _Piece:
    make: Callable[[MeshBuilder, np.random.Generator, float], None]
    wide: float
    deep: float
    low: bool
    """True if the wall above it is visible."""


_PIECES = {
    "shelf": _Piece(f.bookshelf, 0.9, 0.34, False),
    "desk": _Piece(f.desk, 1.4, 0.75, True),
    "sideboard": _Piece(f.sideboard, 1.3, 0.48, True),
    "sofa": _Piece(f.sofa, 1.8, 0.9, True),
    "bed": _Piece(f.bed, 1.5, 2.0, True),
    "wardrobe": _Piece(f.wardrobe, 1.1, 0.6, False),
    "fridge": _Piece(f.fridge, 0.62, 0.65, False),
    "plant": _Piece(f.floor_plant, 0.5, 0.5, True),
    "boxes": _Piece(f.box_pile, 0.6, 0.45, True),
}
_CHOICE = {
    "kitchen": ["sideboard", "shelf", "fridge", "boxes", "plant", "sideboard"],
    "office": ["desk", "shelf", "shelf", "desk", "boxes", "sideboard", "plant"],
    "living": ["sofa", "sideboard", "shelf", "plant", "sideboard"],
    "bedroom": ["bed", "wardrobe", "sideboard", "shelf", "plant"],
}


def _choose(rng: np.random.Generator, purpose: str, window: bool) -> _Piece:
    name = str(rng.choice(_CHOICE[purpose] + list(rng.choice(sorted(_PIECES), 1))))
    return _PIECES["sideboard" if window and not _PIECES[name].low else name]


def _middle(builder: MeshBuilder, rng: np.random.Generator, plan: _Plan, purpose: str) -> None:
    if rng.random() < 0.6:
        x, y = rng.uniform(-0.4, 0.4, 2)
        size = rng.uniform(0.6, 1.1, 2)
        builder.part(solid=False)
        corners = np.array(
            [
                [x - size[0], y - size[1], 0.008],
                [x + size[0], y - size[1], 0.008],
                [x + size[0], y + size[1], 0.008],
                [x - size[0], y + size[1], 0.008],
            ]
        )
        builder.quad(corners, pick(rng, "rug", 0))
    if purpose in ("kitchen", "living", "office") and rng.random() < 0.8:
        wide, deep = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0.7, 0.95))
        x, y = rng.uniform(-0.35, 0.35, 2) * plan.half
        if plan.claim(x, y, wide, deep):
            with builder.at(placed((x, y, 0), float(rng.choice([0, rng.normal(0, 0.1)])))):
                f.table(builder, rng, wide, deep, 0.45 if purpose == "living" else 0.74)
            for side in (-1, 1):
                for dx in (-0.27 * wide, 0.27 * wide):
                    cx, cy = x + dx, y + side * (deep / 2 + 0.15)
                    if purpose != "living" and rng.random() < 0.7 and np.all(np.abs((cx, cy)) < plan.half - 0.3):
                        turn = (0 if side < 0 else np.pi) + rng.normal(0, 0.25)
                        f.chair(builder, rng, placed((cx, cy, 0), turn), np.random.default_rng(int(abs(x) * 1e6)))


def _floor_clutter(builder: MeshBuilder, rng: np.random.Generator, plan: _Plan) -> None:
    for _ in range(int(rng.integers(1, 7))):
        x, y = rng.uniform(-0.92, 0.92, 2) * plan.half
        if plan.claim(x, y, 0.34, 0.34):
            builder.part()
            with builder.at(placed((x, y, 0), rng.uniform(0, 6))):
                f.floor_thing(builder, rng)


def _light(rng: np.random.Generator, plan: _Plan, window_wall: int) -> Light:
    frame, _ = _wall_frame(plan, window_wall)
    day = float(rng.uniform(0.15, 1.0))
    warm = np.array([1.0, rng.uniform(0.78, 0.95), rng.uniform(0.55, 0.88)])
    sky = np.array([0.85, 0.93, 1.0])
    lamp_at = np.array([*(rng.uniform(-0.4, 0.4, 2) * plan.half), plan.height - 0.12])
    lamp = ShadowLight(lamp_at, False, warm * rng.uniform(0.8, 2.6), lamp_at, 1.0, 0.01)
    shadow = [lamp]
    if rng.random() < 0.45:
        into = -(frame[:3, :3] @ np.array([rng.normal(0, 0.5), -1.0, 0]))
        way = into / np.linalg.norm(into) + (0, 0, rng.uniform(0.35, 1.0))
        shadow.append(
            ShadowLight(way, True, np.array([1.0, 0.93, 0.8]) * rng.uniform(1, 4) * day, np.zeros(3), 4.5, 0.02)
        )
    window_at = (frame @ np.array([0, -0.15, 1.5, 1]))[:3]
    lamps = (
        Lamp(window_at, sky * 1.6 * day, 0.6),
        Lamp(np.array([*(rng.uniform(-0.8, 0.8, 2) * plan.half), 1.3]), warm * rng.uniform(0, 0.35), 0.8),
    )
    base = rng.uniform(0.22, 0.5) * (0.5 * warm + 0.5 * sky)
    return Light(
        shadow=tuple(shadow),
        lamps=lamps,
        ambient_up=base,
        ambient_down=base * np.array([0.75, 0.68, 0.6]),
        zenith=np.array([0.5, 0.7, 1.0]),
        horizon=np.array([0.9, 0.95, 1.0]),
        sun_glow=np.zeros(3),
        cloud=(0.0, 1.0, 0.0, 0.0),
        haze_m=5000.0,
        exposure=float(rng.uniform(0.75, 1.25)),
        contrast=float(rng.uniform(0.9, 1.2)),
    )
