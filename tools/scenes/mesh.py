"""Meshes put together from boxes, quads and smooth grids, packed for the GPU.

World axes: x right, y forward, z up, in metres. Everything that is added belongs to the current *part*; parts are the
unit of culling and, when solid, what cameras keep away from. Boxes and quads are only noted down when added and
expanded all at once in `finish`, because a scene has thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

VERTEX = np.dtype([("position", "<f4", 3), ("uv", "<f4", 2), ("normal", "u1", 4), ("tint", "u1", 4), ("layer", "<f4")])
"""One vertex, 32 bytes: normals are 128 + 127 n; the fourth byte of `normal` is gloss, of `tint` is glow."""

Vec = Sequence[float] | np.ndarray
White = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Material:
    """Appearance of a surface."""

    layer: int
    """Layer of the texture bank."""
    tile_m: float = 1.0
    """Metres that the texture spans; 0: the texture is stretched over the face once."""
    gloss: float = 0.0
    """0 matt to 1 mirror-like (as glass is)."""
    glow: float = 0.0
    """Light of its own, 0 to 1."""
    cutout: bool = False
    """The texture's alpha cuts holes."""
    tint: tuple[float, float, float] = White

    def tinted(self, tint: Vec) -> Material:
        """Return a copy with its color multiplied by `tint` (3,)."""
        r, g, b = (float(a) * float(t) for a, t in zip(self.tint, tint, strict=True))
        return replace(self, tint=(r, g, b))


@dataclass(frozen=True)
class Mesh:
    """Triangles ready for the GPU, sorted by part."""

    vertices: np.ndarray
    """(N,) of `VERTEX`."""
    opaque: np.ndarray
    """(T, 3) uint32 indices of triangles without holes, in the order of parts."""
    cutout: np.ndarray
    """(T', 3) uint32 indices of triangles whose textures have holes, in the order of parts."""
    opaque_start: np.ndarray
    """(P + 1,) first triangle of each part in `opaque`."""
    cutout_start: np.ndarray
    bounds: np.ndarray
    """(P, 2, 3) lowest and highest corner of each part."""
    solid: np.ndarray
    """(P,) bool: whether cameras keep out of the part's bounds."""


def placed(position: Vec = (0, 0, 0), yaw: float = 0.0, scale: Vec | float = 1.0) -> np.ndarray:
    """(4, 4) transform: scale, then turn by `yaw` radians about z, then move to `position`."""
    c, s = np.cos(yaw), np.sin(yaw)
    out = np.eye(4)
    out[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * np.broadcast_to(np.asarray(scale, np.float64), 3)
    out[:3, 3] = position
    return out


_FACES = {"x-": 0, "x+": 1, "y-": 2, "y+": 3, "z-": 4, "z+": 5}
# Corners of each face of the unit cube, with the two axes that its texture runs along.
_CORNERS = np.array(
    [
        [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]],
        [[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]],
    ],
    np.float64,
)
_U_AXIS = np.array([1, 1, 0, 0, 0, 0])
_V_AXIS = np.array([2, 2, 2, 2, 1, 1])
_UNIT_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float64)
_QUAD = np.array([0, 1, 2, 0, 2, 3])


class MeshBuilder:
    """Collects primitives in local coordinates under a stack of transforms."""

    def __init__(self) -> None:
        self._solid: list[bool] = []
        self._stack = [np.eye(4)]
        self._transforms: list[np.ndarray] = [np.eye(4)]
        self._boxes: list[tuple[float, ...]] = []
        self._quads: list[np.ndarray] = []
        self._quad_uv: list[np.ndarray] = []
        self._quad_look: list[np.ndarray] = []
        self._quad_normals: list[np.ndarray] = []
        self._grids: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []

    def part(self, solid: bool = True) -> None:
        """Begin a new part; triangles added from here on belong to it."""
        self._solid.append(solid)

    @contextmanager
    def at(self, transform: np.ndarray) -> Iterator[None]:
        """Within: coordinates are local to `transform` (4, 4), itself local to what was current."""
        self._stack.append(self._stack[-1] @ transform)
        self._transforms.append(self._stack[-1])
        yield
        self._stack.pop()
        self._transforms.append(self._stack[-1])

    def box(self, low: Vec, high: Vec, material: Material, faces: str = "x- x+ y- y+ z- z+") -> None:
        """An axis-aligned box in local coordinates; `faces`: which of its sides there are."""
        mask = sum(1 << _FACES[name] for name in faces.split())
        self._boxes.append((*low, *high, *self._look(material), mask, len(self._transforms) - 1))

    def block(self, centre: Vec, size: Vec, material: Material) -> None:
        """A box by the middle of its lower side and its size."""
        (x, y, z), (w, d, h) = centre, size
        self.box((x - w / 2, y - d / 2, z), (x + w / 2, y + d / 2, z + h), material)

    def quad(self, corners: np.ndarray, material: Material, uv: np.ndarray | None = None) -> None:
        """A quad by its corners (4, 3): lower left, lower right, upper right, upper left as the texture stands."""
        self.quads(np.asarray(corners, np.float64)[None], material, None if uv is None else uv[None])

    def quads(
        self,
        corners: np.ndarray,
        material: Material,
        uv: np.ndarray | None = None,
        tints: np.ndarray | None = None,
        normals: np.ndarray | None = None,
    ) -> None:
        """Quads (Q, 4, 3), optionally with uv (Q, 4, 2), tints (Q, 3) times the material's, and normals (Q, 3)."""
        corners = np.asarray(corners, np.float64)
        if uv is None:
            uv = np.broadcast_to(_UNIT_UV, (len(corners), 4, 2))
            if material.tile_m:
                wide = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
                high = np.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
                uv = uv * (np.stack([wide, high], axis=1) / material.tile_m)[:, None]
        look = np.broadcast_to(np.array(self._look(material)), (len(corners), 9)).copy()
        if tints is not None:
            look[:, 5:8] *= tints
        world = self._world(corners)
        if normals is None:
            normals = np.cross(world[:, 1] - world[:, 0], world[:, 3] - world[:, 0])
        else:
            normals = normals @ self._stack[-1][:3, :3].T
        self._quads.append(world)
        self._quad_uv.append(np.asarray(uv, np.float64))
        self._quad_look.append(look)
        self._quad_normals.append(normals)

    def grid(self, points: np.ndarray, material: Material, uv: np.ndarray | None = None, closed: bool = False) -> None:
        """A smooth surface through points (R, C, 3); `closed`: its columns go round, the last equal to the first."""
        points = self._world(np.asarray(points, np.float64))
        along, across = np.gradient(points, axis=0), np.gradient(points, axis=1)
        if closed:
            across[:, 0] = across[:, -1] = (points[:, 1] - points[:, -2]) / 2
        normals = np.cross(across, along)
        if uv is None:
            row = np.linalg.norm(np.diff(points, axis=0, prepend=points[:1]), axis=2).mean(axis=1).cumsum()
            column = np.linalg.norm(np.diff(points, axis=1, prepend=points[:, :1]), axis=2).mean(axis=0).cumsum()
            if closed and material.tile_m:
                column *= max(1.0, np.round(column[-1] / material.tile_m)) * material.tile_m / max(column[-1], 1e-6)
            uv = np.stack(np.broadcast_arrays(column[None], row[:, None]), axis=2)
            uv = uv / material.tile_m if material.tile_m else uv / np.maximum(uv[-1:, -1:], 1e-6)
        rows, columns = points.shape[:2]
        first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
        corner = np.stack([first, first + 1, first + columns + 1, first + columns], axis=1)
        vertices = np.zeros(rows * columns, VERTEX)
        _fill(
            vertices, points.reshape(-1, 3), uv.reshape(-1, 2), normals.reshape(-1, 3), np.array(self._look(material))
        )
        triangles = corner[:, _QUAD].reshape(-1, 3)
        self._grids.append((vertices, triangles, np.full(len(triangles), self._current), material.cutout))

    def lathe(
        self,
        profile: Sequence[tuple[float, float]] | np.ndarray,
        material: Material,
        sides: int = 14,
        centre: Vec = (0, 0, 0),
    ) -> None:
        """A turned body about the z axis from its profile (P, 2) of radius and height."""
        profile = np.asarray(profile, np.float64)
        angle = np.linspace(0, 2 * np.pi, sides + 1)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points = np.concatenate(
            [profile[:, None, :1] * ring, np.broadcast_to(profile[:, None, 1:], (len(profile), sides + 1, 1))], axis=2
        )
        self.grid(points + np.asarray(centre, np.float64), material, closed=True)

    def tube(self, start: Vec, end: Vec, radii: Vec, material: Material, sides: int = 8) -> None:
        """A straight pipe between two points, with a radius at each end, open at the ends."""
        start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        axis = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        side = np.cross(axis, (0.0, 0.0, 1.0) if abs(axis[2]) < 0.9 else (1.0, 0.0, 0.0))
        side /= np.linalg.norm(side)
        angle = np.linspace(0, 2 * np.pi, sides + 1)[:, None]
        ring = np.cos(angle) * side + np.sin(angle) * np.cross(axis, side)
        self.grid(np.stack([start + radii[0] * ring, end + radii[1] * ring]), material, closed=True)

    @property
    def _current(self) -> int:
        if not self._solid:
            raise ValueError("start a part first")
        return len(self._solid) - 1

    def _look(self, material: Material) -> tuple[float, ...]:
        """Nine figures of a primitive: part, layer, tile, gloss, glow, tint (3), cutout."""
        m = material
        return (self._current, m.layer, m.tile_m, m.gloss, m.glow, *m.tint, m.cutout)

    def _world(self, points: np.ndarray) -> np.ndarray:
        transform = self._stack[-1]
        return points @ transform[:3, :3].T + transform[:3, 3]

    def finish(self) -> Mesh:
        """Expand everything and sort it by part."""
        corners, uv, look = self._expanded_boxes()
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0])
        corners = np.concatenate([corners, *self._quads])
        uv = np.concatenate([uv, *self._quad_uv])
        look = np.concatenate([look, *self._quad_look])
        normals = np.concatenate([normals, *self._quad_normals])
        vertices = np.zeros(4 * len(corners), VERTEX)
        _fill(vertices, corners.reshape(-1, 3), uv.reshape(-1, 2), normals.repeat(4, 0), look.repeat(4, 0))
        base = 4 * np.arange(len(corners))[:, None]
        triangles, part = (base + _QUAD).reshape(-1, 3), look[:, 0].astype(np.int64).repeat(2)
        cutout = look[:, 8].astype(bool).repeat(2)
        all_vertices, all_triangles, all_parts, all_cutout = [vertices], [triangles], [part], [cutout]
        count = len(vertices)
        for grid_vertices, grid_triangles, grid_part, grid_cutout in self._grids:
            all_vertices.append(grid_vertices)
            all_triangles.append(grid_triangles + count)
            all_parts.append(grid_part)
            all_cutout.append(np.full(len(grid_triangles), grid_cutout))
            count += len(grid_vertices)
        return _sorted_mesh(
            np.concatenate(all_vertices),
            np.concatenate(all_triangles),
            np.concatenate(all_parts),
            np.concatenate(all_cutout),
            np.array(self._solid),
        )

    def _expanded_boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners (Q, 4, 3) in the world, uv (Q, 4, 2) and looks (Q, 9) of all sides of all boxes."""
        rows = np.array(self._boxes, np.float64).reshape(-1, 17)
        low, high, look = rows[:, :3], rows[:, 3:6], rows[:, 6:15]
        mask, transform = rows[:, 15].astype(np.int64), np.stack(self._transforms)[rows[:, 16].astype(np.int64)]
        local = low[:, None, None] + _CORNERS * (high - low)[:, None, None]  # (B, 6, 4, 3)
        # Textures lie on boxes in metres from the box's own corner, moved by an amount that differs from box to box.
        tile = look[:, 2][:, None, None, None]
        size = (high - low)[:, None, None]
        metres = np.stack([_CORNERS[f][:, [_U_AXIS[f], _V_AXIS[f]]] for f in range(6)])[None]
        extent = np.stack([size[..., _U_AXIS], size[..., _V_AXIS]], axis=-1)[:, 0, 0][:, :, None]
        shift = np.modf(np.arange(len(rows))[:, None] * np.array([0.618, 0.382]))[0][:, None, None]
        stretched = np.broadcast_to(_UNIT_UV, (len(rows), 6, 4, 2))
        tiled = metres * extent * [1, -1] / np.where(tile > 0, tile, 1) + shift
        uv = np.where(tile > 0, tiled, stretched)
        world = np.einsum("bij,bfcj->bfci", transform[:, :3, :3], local) + transform[:, None, None, :3, 3]
        keep = (mask[:, None] >> np.arange(6)) & 1 == 1
        return world[keep], uv[keep], np.broadcast_to(look[:, None], (len(rows), 6, 9))[keep]


def _fill(vertices: np.ndarray, position: np.ndarray, uv: np.ndarray, normal: np.ndarray, look: np.ndarray) -> None:
    """Pack into `vertices`; `look` as `_look` gives it, (9,) or (N, 9)."""
    look = np.atleast_2d(look)
    vertices["position"], vertices["uv"] = position, uv
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    vertices["normal"][:, :3] = np.rint(127 * normal / np.maximum(length, 1e-12)) + 128
    vertices["normal"][:, 3] = np.rint(255 * look[:, 3].clip(0, 1))
    vertices["tint"][:, :3] = np.rint(255 * look[:, 5:8].clip(0, 1))
    vertices["tint"][:, 3] = np.rint(255 * look[:, 4].clip(0, 1))
    vertices["layer"] = look[:, 1]


def _sorted_mesh(
    vertices: np.ndarray, triangles: np.ndarray, part: np.ndarray, cutout: np.ndarray, solid: np.ndarray
) -> Mesh:
    order = np.argsort(part, kind="stable")
    triangles, part, cutout = triangles[order], part[order], cutout[order]
    parts = np.arange(len(solid) + 1)
    corner = vertices["position"][triangles]
    bounds = np.full((len(solid), 2, 3), np.nan)
    start = np.searchsorted(part, parts)
    used = np.flatnonzero(np.diff(start) > 0)
    if len(used):
        bounds[used, 0] = np.minimum.reduceat(corner.min(axis=1), start[used])
        bounds[used, 1] = np.maximum.reduceat(corner.max(axis=1), start[used])
    return Mesh(
        vertices,
        triangles[~cutout].astype(np.uint32),
        triangles[cutout].astype(np.uint32),
        np.searchsorted(part[~cutout], parts),
        np.searchsorted(part[cutout], parts),
        bounds,
        solid & (np.diff(start) > 0),
    )
