"""Rendered clips with exact depth and poses: real frames for real structure-from-motion, made in a second or two.

Scenes are textured rectangles, alone or as the faces of boxes. A rectangle's inverse depth is linear in the pixel and
its surface coordinates follow by one division, so a frame is a depth buffer over a few hundred rectangles, each
touched only within its own bounds. Textures are tileable mip pyramids, looked up in metres of the surface; colour is
supersampled 2 x 2, depth is taken at pixel centres.

Everything is in the conventions of `sfmttr.geometry`: OpenCV axes, camera z in metres, COLMAP's pixels.
World axes: x right, y down (the ground is y = 0, so heights are negative y), z forward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from sfmttr.geometry import inverse_rigid
from sfmttr.types import HW, Camera, FrameSet

NEAR_M = 0.05
SUPERSAMPLING = 2
TEXTURE_SIZE = 1024
MATERIALS = 6
LIGHT = np.array([0.45, -0.75, -0.48])
"""Where the light comes from, in the world."""


@dataclass(frozen=True)
class RenderedClip:
    """Frames and everything that is true of them."""

    rgb: np.ndarray
    """(N, H, W, 3) uint8."""
    depth: np.ndarray
    """(N, H, W) float32, camera z at pixel centres, metres. Scenes are closed: every pixel has one."""
    cam_from_world: np.ndarray
    """(N, 4, 4) float64."""
    camera: Camera
    static: np.ndarray
    """(N, H, W) bool, False where an object that moves by itself is seen."""
    names: tuple[str, ...]
    """As `FrameSet.names` of a video: the frame's number."""

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def centres_in_world(self) -> np.ndarray:
        """(N, 3) camera positions, metres."""
        return np.stack([inverse_rigid(pose)[:3, 3] for pose in self.cam_from_world])


# ------------------------------------------------------------------------------------- textures


def _blur_wrapped(values: np.ndarray, sigma: float) -> np.ndarray:
    fy = np.fft.fftfreq(values.shape[0])[:, None]
    fx = np.fft.rfftfreq(values.shape[1])[None]
    return np.fft.irfft2(np.fft.rfft2(values) * np.exp(-2 * (np.pi * sigma) ** 2 * (fx**2 + fy**2)), values.shape)


@lru_cache(maxsize=1)
def _texture_pyramids() -> tuple[np.ndarray, np.ndarray]:
    """All levels of all materials, flat (MATERIALS, L), values in [0, 1], and where each level begins. Seeds of
    scenes choose what is cut from them.
    """
    rng = np.random.default_rng([0, 77])
    size = TEXTURE_SIZE
    pyramids = []
    for _ in range(MATERIALS):
        # Value noise in octaves: random grids, each enlarged with wrapped bilinear interpolation.
        values = np.zeros((size, size), np.float32)
        for octave in range(3, 9):
            cells = 2**octave
            grid = rng.standard_normal((cells, cells)).astype(np.float32)
            at = (np.arange(size) + 0.5) * cells / size - 0.5
            low = np.floor(at).astype(int)
            part = (at - low).astype(np.float32)
            low, high = low % cells, (low + 1) % cells
            rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
            values += (rows[:, low] * (1 - part) + rows[:, high] * part) * np.float32(0.75 ** (octave - 3))
        values /= values.std()
        # Blobs and bricks at all scales: sharp corners that a detector of features likes, more small ones than large.
        for radius, count in ((70, 25), (34, 100), (17, 350), (9, 1100), (5, 2600)):
            half = np.maximum(2, rng.uniform(0.5, 1.0, (count, 2)) * radius).astype(int)
            corner = rng.integers(0, size, (count, 2))
            level = rng.normal(0, 1.3, count).astype(np.float32)
            disc = rng.random(count) < 0.5
            for (hy, hx), (y, x), add, is_disc in zip(half, corner, level, disc, strict=True):
                height, width = min(2 * hy, size - y), min(2 * hx, size - x)
                patch = values[y : y + height, x : x + width]
                if is_disc:
                    yy, xx = np.ogrid[:height, :width]
                    patch += add * (((yy - hy + 0.5) / hy) ** 2 + ((xx - hx + 0.5) / hx) ** 2 < 1)
                else:
                    patch += add
        values = _blur_wrapped(values, 0.8)
        values = 0.5 + 0.5 * np.tanh(0.55 * (values - values.mean()) / values.std())
        levels = [values]
        while levels[-1].shape[0] > 4:
            side = levels[-1].shape[0] // 2
            levels.append(levels[-1].reshape(side, 2, side, 2).mean(axis=(1, 3)))
        pyramids.append(np.concatenate([level.ravel() for level in levels]))
    starts = np.cumsum([0, *((TEXTURE_SIZE >> level) ** 2 for level in range(len(levels) - 1))])
    return np.stack(pyramids).astype(np.float32), starts.astype(np.int32)


# --------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class Quad:
    """One textured rectangle, seen from the side that `across x down` points away from."""

    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    """First corner and the two edges from it, metres in the world; `Scene.paths` moves them."""
    material: int
    offset_m: np.ndarray
    """(2,) where in the texture the first corner is."""
    texel_m: float
    dark: np.ndarray
    bright: np.ndarray
    """(3,) colours of texture values 0 and 1, 0 to 255, before light."""
    mover: int
    """Which of the scene's moving things it belongs to; -1: none."""


@dataclass
class Scene:
    """Rectangles, and the paths of the things among them that move."""

    seed: int
    quads: list[Quad] = field(default_factory=list)
    paths: list[np.ndarray] = field(default_factory=list)
    """For every moving thing (N, 3), how far from where its rectangles stand it is in each frame, metres."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 5])

    def add_quad(
        self,
        corner: Sequence[float],
        across: Sequence[float],
        down: Sequence[float],
        *,
        texel_m: float = 0.02,
        contrast: float = 1.0,
        colour: Sequence[float] | None = None,
        material: int | None = None,
        mover: int = -1,
    ) -> None:
        base = np.array(colour if colour is not None else 90 + 90 * self.rng.random(3), np.float64)
        tint = self.rng.normal(0, 10, 3) * contrast
        self.quads.append(
            Quad(
                np.array(corner, np.float64),
                np.array(across, np.float64),
                np.array(down, np.float64),
                int(self.rng.integers(MATERIALS)) if material is None else material,
                self.rng.uniform(0, TEXTURE_SIZE * texel_m, 2),
                texel_m,
                base * (1 - 0.85 * contrast) - tint,
                base * (1 + 0.55 * contrast) + tint,
                mover,
            )
        )

    def add_box(
        self,
        middle: Sequence[float],
        size: Sequence[float],
        *,
        yaw_deg: float = 0.0,
        texel_m: float = 0.01,
        contrast: float = 1.0,
        colour: Sequence[float] | None = None,
        mover: int = -1,
        hollow: bool = False,
    ) -> None:
        """A box of `size` (x, y, z) around `middle`; `hollow` is seen from within."""
        yaw = np.radians(yaw_deg)
        rotation = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        half = np.array(size, np.float64) / 2
        base = colour if colour is not None else 90 + 90 * self.rng.random(3)
        for axis in range(3):
            for side in (-1, 1):
                normal, across, down = np.zeros(3), np.zeros(3), np.zeros(3)
                normal[axis] = side
                across[(axis + 1) % 3] = 2 * half[(axis + 1) % 3]
                down[(axis + 2) % 3] = 2 * half[(axis + 2) % 3]
                if (side < 0) != hollow:
                    across, down = down, across
                corner = normal * half - (across + down) / 2
                self.add_quad(
                    np.array(middle) + rotation @ corner,
                    rotation @ across,
                    rotation @ down,
                    texel_m=texel_m,
                    contrast=contrast,
                    colour=base,
                    mover=mover,
                )

    def add_mover(self, path: np.ndarray) -> int:
        self.paths.append(np.asarray(path, np.float64))
        return len(self.paths) - 1


def pose(centre: Sequence[float], yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """`cam_from_world` of a camera at `centre` that looks along z, turned right, up and clockwise."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = turn_y @ turn_x @ turn_z
    world_from_cam[:3, 3] = centre
    return inverse_rigid(world_from_cam)


def pinhole(hw: HW, horizontal_view_deg: float = 65.0) -> Camera:
    focal = hw[1] / (2 * np.tan(np.radians(horizontal_view_deg) / 2))
    return Camera(hw, focal, focal, hw[1] / 2, hw[0] / 2)


# ------------------------------------------------------------------------------------ rendering


def _pixel_bounds(corners: np.ndarray, camera: Camera) -> tuple[int, int, int, int] | None:
    """Rows and columns that a rectangle (4, 3) in the camera can touch, after clipping at the near plane."""
    xyz = corners
    ahead = corners[:, 2] >= NEAR_M
    if not ahead.any():
        return None
    if not ahead.all():
        following = corners[[1, 2, 3, 0]]
        crossing = ahead != ahead[[1, 2, 3, 0]]
        start, edge = corners[crossing], (following - corners)[crossing]
        xyz = np.concatenate([corners[ahead], start + edge * ((NEAR_M - start[:, 2:]) / edge[:, 2:])])
    x = xyz[:, 0] / xyz[:, 2] * camera.fx + camera.cx
    y = xyz[:, 1] / xyz[:, 2] * camera.fy + camera.cy
    top, bottom = max(0, int(np.floor(y.min()))), min(camera.hw[0], int(np.ceil(y.max())) + 1)
    left, right = max(0, int(np.floor(x.min()))), min(camera.hw[1], int(np.ceil(x.max())) + 1)
    return (top, bottom, left, right) if top < bottom and left < right else None


@dataclass(frozen=True)
class _Hits:
    """What each pixel sees."""

    depth: np.ndarray
    quad: np.ndarray
    """Row of the scene's quads; -1: nothing."""
    across_m: np.ndarray
    down_m: np.ndarray
    """Where on the quad, metres from its corner."""


def _cast(scene: Scene, cam_from_world: np.ndarray, camera: Camera, frame: int) -> _Hits:
    h, w = camera.hw
    depth = np.full((h, w), np.inf, np.float32)
    quad_of = np.full((h, w), -1, np.int16)
    across_m = np.zeros((h, w), np.float32)
    down_m = np.zeros((h, w), np.float32)
    ray_x = ((np.arange(w) + 0.5 - camera.cx) / camera.fx).astype(np.float32)[None]
    ray_y = ((np.arange(h) + 0.5 - camera.cy) / camera.fy).astype(np.float32)[:, None]
    rotation, shift = cam_from_world[:3, :3], cam_from_world[:3, 3]

    def along(rows: slice, columns: slice, axis: np.ndarray) -> np.ndarray:
        """Rays (x, y, 1) times one axis."""
        a, b, c = (np.float32(value) for value in axis)
        return a * ray_x[:, columns] + (b * ray_y[rows] + c)

    shifts = np.array([scene.paths[quad.mover][frame] if quad.mover >= 0 else np.zeros(3) for quad in scene.quads])
    corners = (np.stack([quad.corner for quad in scene.quads]) + shifts) @ rotation.T + shift
    acrosses = np.stack([quad.across for quad in scene.quads]) @ rotation.T
    downs = np.stack([quad.down for quad in scene.quads]) @ rotation.T
    normals = np.cross(acrosses, downs)
    distances = (normals * corners).sum(axis=1)
    for i in np.flatnonzero(distances < 0):  # the others are seen from behind
        corner, across, down, normal, distance = corners[i], acrosses[i], downs[i], normals[i], distances[i]
        bounds = _pixel_bounds(np.stack([corner, corner + across, corner + across + down, corner + down]), camera)
        if bounds is None:
            continue
        rows, columns = slice(*bounds[:2]), slice(*bounds[2:])
        long, high = np.linalg.norm(across), np.linalg.norm(down)
        inverse = along(rows, columns, normal / distance)
        with np.errstate(divide="ignore"):
            z = 1 / inverse
        u = z * along(rows, columns, across / long) - np.float32(corner @ across / long)
        v = z * along(rows, columns, down / high) - np.float32(corner @ down / high)
        hit = (u >= 0) & (u <= long) & (v >= 0) & (v <= high) & (z > NEAR_M) & (z < depth[rows, columns])
        np.copyto(depth[rows, columns], z, where=hit)
        np.copyto(across_m[rows, columns], u, where=hit)
        np.copyto(down_m[rows, columns], v, where=hit)
        np.copyto(quad_of[rows, columns], np.int16(i), where=hit)
    return _Hits(depth, quad_of, across_m, down_m)


def _paint(scene: Scene, hits: _Hits, cam_from_world: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) float32 colours of what each pixel sees."""
    pyramids, starts = _texture_pyramids()
    quads, ids = scene.quads, hits.quad
    texel = np.array([quad.texel_m for quad in quads], np.float32)
    offset = np.stack([quad.offset_m / quad.texel_m for quad in quads]).astype(np.float32)
    base = np.array([quad.material * pyramids.shape[1] for quad in quads], np.int32)
    normals = np.cross(np.stack([quad.across for quad in quads]), np.stack([quad.down for quad in quads]))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lit = 0.62 + 0.38 * np.clip(normals @ LIGHT / np.linalg.norm(LIGHT), -0.4, 1)
    dark = (np.stack([quad.dark for quad in quads]) * lit[:, None]).astype(np.float32)
    gain = (np.stack([quad.bright for quad in quads]) * lit[:, None]).astype(np.float32) - dark

    # Mip level by the size of a pixel on the surface; grazing views are halfway between sharp and alias-free.
    in_cam = (normals @ cam_from_world[:3, :3].T).astype(np.float32)
    ray_x = ((np.arange(camera.hw[1]) + 0.5 - camera.cx) / camera.fx).astype(np.float32)[None]
    ray_y = ((np.arange(camera.hw[0]) + 0.5 - camera.cy) / camera.fy).astype(np.float32)[:, None]
    a, b, c = (in_cam[:, k].copy()[ids] for k in range(3))
    slant = np.abs(a * ray_x + b * ray_y + c) / np.sqrt(1 + ray_x**2 + ray_y**2)
    footprint = hits.depth / np.float32(camera.fx) / np.sqrt(np.maximum(slant, 0.05)) / texel[ids]
    level = np.clip(np.frexp(footprint * np.float32(0.7071))[1], 0, len(starts) - 1)
    shrink = np.ldexp(np.float32(1), -level)
    x = (hits.across_m / texel[ids] + offset[:, 0][ids]) * shrink - np.float32(0.5)
    y = (hits.down_m / texel[ids] + offset[:, 1][ids]) * shrink - np.float32(0.5)
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    mask = (TEXTURE_SIZE >> level).astype(np.int32) - 1
    side = mask + 1
    x0, y0 = x0.astype(np.int32), y0.astype(np.int32)
    left, right = x0 & mask, (x0 + 1) & mask
    start = base[ids] + starts[level]
    above, below = start + (y0 & mask) * side, start + ((y0 + 1) & mask) * side
    flat = pyramids.ravel()
    upper = flat[above + left] * (1 - fx) + flat[above + right] * fx
    lower = flat[below + left] * (1 - fx) + flat[below + right] * fx
    value = upper * (1 - fy) + lower * fy
    return np.stack([dark[:, k].copy()[ids] + gain[:, k].copy()[ids] * value for k in range(3)], axis=-1)


def render(scene: Scene, cam_from_world: np.ndarray, camera: Camera, noise: float = 1.5) -> RenderedClip:
    """All frames of a scene; `noise` is the sensor's, in grey levels."""
    count, (h, w), ss = len(cam_from_world), camera.hw, SUPERSAMPLING
    rng = np.random.default_rng([scene.seed, 13])
    fine = camera.scaled_to((h * ss, w * ss))
    rgb = np.empty((count, h, w, 3), np.uint8)
    depth = np.empty((count, h, w), np.float32)
    static = np.empty((count, h, w), bool)
    moves = np.array([quad.mover >= 0 for quad in scene.quads])
    for i, current in enumerate(cam_from_world):
        hits = _cast(scene, current, camera, i)
        if (hits.quad < 0).any():
            raise ValueError(f"frame {i} sees through a hole of the scene")
        depth[i], static[i] = hits.depth, ~moves[hits.quad]
        colour = _paint(scene, _cast(scene, current, fine, i), current, fine)
        colour = colour[0::2, 0::2] + colour[0::2, 1::2] + colour[1::2, 0::2] + colour[1::2, 1::2]
        colour = colour / 4 + rng.standard_normal((h, w, 3), np.float32) * np.float32(noise)
        rgb[i] = np.clip(np.rint(colour), 0, 255)
    return RenderedClip(rgb, depth, np.asarray(cam_from_world), camera, static, tuple(str(i) for i in range(count)))


# ---------------------------------------------------------------------------------------- clips


def _smooth_path(rng: np.random.Generator, count: int, spread: Sequence[float], every: int = 6) -> np.ndarray:
    """(count, len(spread)) a hand's slow wander: random values every few frames with a cosine between them."""
    knots = rng.normal(0, 1, (count // every + 3, len(spread))) * np.asarray(spread)
    at = np.arange(count) / every
    low = at.astype(int)
    part = ((1 - np.cos(np.pi * (at - low))) / 2)[:, None]
    return knots[low] * (1 - part) + knots[low + 1] * part


def _street_scene(seed: int, length_m: float) -> Scene:
    scene = Scene(seed)
    rng = scene.rng
    end, start = length_m, -6.0
    scene.add_quad([-16, 0, start], [32, 0, 0], [0, 0, end - start], texel_m=0.02, contrast=0.7, colour=(105, 105, 110))
    scene.add_box([0, -30, end + 1], [80, 61, 2], texel_m=0.08, contrast=0.7, colour=(150, 165, 190))
    for side in (-1, 1):
        z = start
        while z < end:
            width = rng.uniform(5, 9)
            face, height = rng.uniform(5.4, 6.8), rng.uniform(22, 30)
            deep = 16 - face
            scene.add_box([side * (face + deep / 2), -height / 2, z + width / 2], [deep, height, width], texel_m=0.015)
            if rng.random() < 0.7:  # a bay or a porch
                out, tall = rng.uniform(0.4, 1.1), rng.uniform(2.2, 4.5)
                scene.add_box([side * (face - out / 2), -tall / 2, z + width / 2], [out, tall, rng.uniform(1, 2.5)])
            z += width
        scene.add_box([side * 4.9, -0.07, (start + end) / 2], [2.2, 0.14, end - start], contrast=0.8, texel_m=0.015)
        z = 1 + 3 * rng.random()
        while z < end - 3:
            if rng.random() < 0.55:  # a parked car: body and cabin
                x, long = side * rng.uniform(2.7, 3.0), rng.uniform(3.2, 4.4)
                colour = 70 + 120 * rng.random(3)
                scene.add_box([x, -0.55, z], [1.6, 0.8, long], colour=colour, yaw_deg=rng.normal(0, 3))
                scene.add_box([x, -1.2, z + 0.2], [1.4, 0.5, long * 0.5], colour=colour * 0.7)
            else:  # a crate or a post on the pavement
                tall = rng.uniform(0.7, 2.4)
                size = [rng.uniform(0.2, 0.8), tall, rng.uniform(0.2, 0.8)]
                scene.add_box([side * 4.4, -0.14 - tall / 2, z], size, yaw_deg=rng.uniform(-40, 40))
            z += rng.uniform(3.5, 6.0)
    return scene


def render_street(
    n_frames: int = 25,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    step_m: float = 0.3,
    sideways_m: float = 0.25,
    horizontal_view_deg: float = 65.0,
    noise: float = 1.5,
) -> RenderedClip:
    """A camera 1.5 m above a street drives forward between facades, swaying to the sides."""
    rng = np.random.default_rng([seed, 3])
    steps = step_m * (1 + 0.15 * rng.uniform(-1, 1, n_frames))
    z = np.cumsum(steps) - steps[0]
    sway = sideways_m * np.sin(np.arange(n_frames) * 2 * np.pi / 16)
    wander = _smooth_path(rng, n_frames, (0.05, 0.03, 1.5, 0.6, 0.5))
    poses = np.stack(
        [
            pose((sway[i] + wander[i, 0], -1.5 + wander[i, 1], z[i]), *(wander[i, 2:] + [0, -2, 0]))
            for i in range(n_frames)
        ]
    )
    scene = _street_scene(seed, max(45.0, z[-1] + 35))
    return render(scene, poses, pinhole(hw, horizontal_view_deg), noise)


def _room_scene(seed: int) -> Scene:
    scene = Scene(seed)
    rng = scene.rng
    scene.add_box([0, -1.3, 0], [5.4, 2.6, 5.0], hollow=True, texel_m=0.008, contrast=0.7)
    for x, z, size in (
        (-1.6, 1.7, (1.0, 1.7, 0.5)),  # shelf
        (0.2, 1.0, (1.3, 0.7, 0.7)),  # table
        (1.9, 1.5, (0.7, 1.2, 0.7)),  # cupboard
        (-0.9, 0.3, (0.5, 0.45, 0.5)),  # stool
        (1.1, 0.2, (0.45, 0.35, 0.5)),  # carton
    ):
        scene.add_box([x, -size[1] / 2, z], size, yaw_deg=rng.uniform(-25, 25), texel_m=0.005)
    for _ in range(3):  # things on the table
        size = rng.uniform(0.15, 0.35, 3)
        middle = [0.2 + rng.uniform(-0.4, 0.4), -0.7 - size[1] / 2, 1.0 + rng.uniform(-0.2, 0.2)]
        scene.add_box(middle, size, yaw_deg=rng.uniform(-45, 45), texel_m=0.004)
    for x in (-0.7, 0.6, 1.6):  # pictures
        scene.add_box([x, -1.75, 2.47], [0.6, 0.5, 0.06], texel_m=0.004)
    return scene


def _room_poses(n_frames: int, seed: int, arc_deg: float) -> np.ndarray:
    rng = np.random.default_rng([seed, 4])
    wander = _smooth_path(rng, n_frames, (0.02, 0.03, 0.02, 1.2, 0.8, 1.0))
    angle = np.linspace(-arc_deg / 2, arc_deg / 2, n_frames) if n_frames > 1 else np.zeros(1)
    poses = []
    for i, degrees in enumerate(angle):
        a = np.radians(degrees)  # around a point 3 m ahead, always looking at it
        centre = np.array([3.0 * np.sin(a), -1.35, 1.0 - 3.0 * np.cos(a)]) + wander[i, :3]
        poses.append(pose(centre, -degrees + wander[i, 3], -8 + wander[i, 4], wander[i, 5]))
    return np.stack(poses)


def render_room(
    n_frames: int = 20,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    arc_deg: float = 40.0,
    horizontal_view_deg: float = 62.0,
    noise: float = 1.5,
) -> RenderedClip:
    """A hand-held arc around the things in a room."""
    return render(_room_scene(seed), _room_poses(n_frames, seed, arc_deg), pinhole(hw, horizontal_view_deg), noise)


def _traffic_scene(seed: int, travel: np.ndarray, spread: float, jitter: float, sway_m: float) -> Scene:
    """Lanes of lorries around the camera. `travel` (N,) is how far the camera has come.

    All of it moves along the street, as the camera does, so every lane has the camera's own epipolar geometry and
    looks like a still scene at another distance: what is approached k times as fast seems k times as near.
    """
    scene = Scene(seed)
    rng = scene.rng
    scene.add_quad([-60, 0, -20], [120, 0, 0], [0, 0, 100], texel_m=0.05, contrast=0.04, colour=(100, 100, 103))
    scene.add_box([0, -28, 58], [160, 60, 2], texel_m=0.25, contrast=0.06, colour=(150, 160, 175))
    for side in (-1, 1):
        scene.add_box([side * 30, -15, 20], [2, 34, 120], texel_m=0.2, contrast=0.06, colour=(140, 135, 130))
    count = len(travel)
    creep = np.diff(travel, prepend=0.0)

    def lane(k: float) -> int:
        """A mover that the camera approaches k times as fast as still things, now a little more and now less."""
        wobble = _smooth_path(rng, count, (jitter,), every=5)[:, 0]
        path = np.zeros((count, 3))
        path[:, :2] = _smooth_path(rng, count, (sway_m, sway_m / 2), every=4)
        path[:, 2] = np.cumsum(creep * (1 - k * np.exp(wobble)))
        return scene.add_mover(path)

    def lorry(x: float, z: float, size: Sequence[float], mover: int) -> None:
        width, height, long = size
        colour = 80 + 110 * rng.random(3)
        scene.add_box([x, -0.5 - height / 2, z + long / 2], size, colour=colour, mover=mover)
        scene.add_box([x, -0.3, z + long / 2], [width * 0.9, 0.5, long * 0.9], colour=(60, 60, 60), mover=mover)

    lorry(-2.9, 1.0, (2.4, 4.2, 9.0), lane(spread))
    lorry(-2.9, 12.0, (2.4, 3.4, 8.0), lane(spread * 1.4))
    lorry(2.9, 1.5, (2.4, 4.0, 8.0), lane(spread**-0.6))
    lorry(2.9, 11.5, (2.4, 3.6, 8.0), lane(1.0))
    lorry(-0.75, 9.0, (1.9, 2.6, 5.0), lane(spread**0.5))
    lorry(1.1, 6.5, (1.7, 3.2, 7.0), lane(spread**-0.9))
    return scene


def render_traffic(
    n_frames: int = 36,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    creep_m: float = 0.25,
    spread: float = 2.4,
    jitter: float = 0.2,
    sway_m: float = 0.03,
    horizontal_view_deg: float = 65.0,
    noise: float = 1.5,
) -> RenderedClip:
    """A camera that creeps, stops and goes between lorries that move by themselves, before a pale background.

    With the default settings pycolmap registers all 36 frames, and its depths are wrong by half (median, after the best
    scale), at 0.5 px, with uneven steps and a doubtful focal length. Beyond 60 frames it would run into the lorries.
    `spread` is how much the lanes differ in speed, `jitter` (log) and `sway_m` are how unevenly they go; together they
    set how badly the reconstruction fits itself.
    """
    rng = np.random.default_rng([seed, 6])
    speed = np.maximum(0.03, np.sin(np.arange(n_frames) * 2 * np.pi / 14 + 0.3))
    travel = np.cumsum(creep_m * speed * (1 + 0.3 * rng.uniform(-1, 1, n_frames)))
    travel -= travel[0]
    wander = _smooth_path(rng, n_frames, (0.004, 0.004, 0.25, 0.15, 0.1))
    poses = np.stack([pose((wander[i, 0], -1.6 + wander[i, 1], travel[i]), *wander[i, 2:]) for i in range(n_frames)])
    return render(_traffic_scene(seed, travel, spread, jitter, sway_m), poses, pinhole(hw, horizontal_view_deg), noise)


def render_static(n_frames: int = 12, hw: HW = (240, 320), seed: int = 0, *, noise: float = 1.5) -> RenderedClip:
    """The room from a camera on a tripod: the frames differ by the sensor's noise alone."""
    poses = np.repeat(_room_poses(1, seed, 0.0), n_frames, axis=0)
    return render(_room_scene(seed), poses, pinhole(hw, 62.0), noise)


def render_rotation(
    n_frames: int = 12,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    pan_deg: float = 30.0,
    horizontal_view_deg: float = 45.24,
) -> RenderedClip:
    """The room from a camera that turns in place.

    The view is the one that COLMAP assumes of an unknown camera, and no model is found. With a wider one (62 degrees),
    COLMAP keeps its wrong focal length and explains what is left by a path that never was: every frame registers with
    an error of 0.17 px, and the depths are wrong. Only the pairs that a homography explains give it away.
    """
    yaw = np.linspace(-pan_deg / 2, pan_deg / 2, n_frames)
    poses = np.stack([pose((0.0, -1.35, -2.0), degrees, -8 + 2 * np.sin(degrees / 5)) for degrees in yaw])
    return render(_room_scene(seed), poses, pinhole(hw, horizontal_view_deg))


def render_textureless(n_frames: int = 12, hw: HW = (240, 320), seed: int = 0, *, noise: float = 1.0) -> RenderedClip:
    """A camera slides along a wall of one colour that fills the picture."""
    scene = Scene(seed)
    scene.add_box([0, 0, 3.05], [40, 40, 0.1], contrast=0.0, colour=(140, 150, 160))
    poses = np.stack([pose((0.1 * i, 0.0, 0.0)) for i in range(n_frames)])
    return render(scene, poses, pinhole(hw), noise)


# ---------------------------------------------------------------------------------------- files


def write_frames(clip: RenderedClip, folder: Path) -> FrameSet:
    """The frames as PNGs in `folder`, as if they came from a video of 10 frames a second."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    files = tuple(f"{i:06d}.png" for i in range(len(clip)))
    for file, rgb in zip(files, clip.rgb, strict=True):
        Image.fromarray(rgb).save(folder / file, compress_level=1)
        digest.update(repr(rgb.shape).encode())
        digest.update(rgb.tobytes())
    count, hw = len(clip), clip.camera.hw
    return FrameSet(
        folder=folder,
        files=files,
        names=clip.names,
        numbers=tuple(range(count)),
        time_s=tuple(i / 10 for i in range(count)),
        hw=hw,
        source_hw=hw,
        source_count=count,
        from_video=True,
        content_hash=digest.hexdigest(),
        focal_prior_px=None,
    )


def write_video(clip: RenderedClip, path: Path, fps: float = 10, codec: str = "libx264") -> Path:
    """The frames as a video of high quality, one video frame each. Sizes must be even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = clip.camera.hw
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 20_000_000  # for codecs that do not know crf
        if codec in ("libx264", "libx265"):
            stream.options = {"crf": "8", "preset": "veryfast"}
        for rgb in clip.rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_ground_truth(clip: RenderedClip, folder: Path, scale: float = 1000) -> Path:
    """16-bit PNGs named by frame number, value = metres * scale; 0 where 16 bits are not enough."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, depth in zip(clip.names, clip.depth, strict=True):
        values = np.rint(depth.astype(np.float64) * scale)
        values[values > np.iinfo(np.uint16).max] = 0
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{name}.png")
    return folder
