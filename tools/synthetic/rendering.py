"""Rendering of a scene: a depth buffer over its rectangles, then textures and light.

A rectangle's inverse depth is linear in the pixel and its surface coordinates follow by one division. Each rectangle is
touched only within its own bounds. Textures are looked up in meters of the surface. Color is supersampled 2 x 2; depth
is taken at pixel centers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfmttr.types import Camera
from tools.synthetic.clip import RenderedClip
from tools.synthetic.scene import Scene
from tools.synthetic.textures import TEXTURE_SIZE, texture_pyramids

NEAR_M = 0.05
SUPERSAMPLING = 2
LIGHT = np.array([0.45, -0.75, -0.48])
"""Direction to the light, in the world."""


def _pixel_bounds(corners: np.ndarray, camera: Camera) -> tuple[int, int, int, int] | None:
    """Return (top, bottom, left, right) of the pixels that a rectangle (4, 3), in camera axes, can cover; None if none.

    It is clipped at the near plane.
    """
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
    """Rectangle that is visible at each pixel, and where on it."""

    depth: np.ndarray
    quad: np.ndarray
    """Index into `Scene.quads`; -1: nothing."""
    across_m: np.ndarray
    down_m: np.ndarray
    """Position on the rectangle, meters from its first corner."""


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
        """Return the dot product of rays (x, y, 1) with an axis."""
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
    """Return the (H, W, 3) float32 color of each pixel."""
    pyramids, starts = texture_pyramids()
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
    """Render all frames of a scene; `noise` is the standard deviation of sensor noise, in gray levels."""
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
        color = _paint(scene, _cast(scene, current, fine, i), current, fine)
        color = color[0::2, 0::2] + color[0::2, 1::2] + color[1::2, 0::2] + color[1::2, 1::2]
        color = color / 4 + rng.standard_normal((h, w, 3), np.float32) * np.float32(noise)
        rgb[i] = np.clip(np.rint(color), 0, 255)
    return RenderedClip(rgb, depth, np.asarray(cam_from_world), camera, static, tuple(str(i) for i in range(count)))
