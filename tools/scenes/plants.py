"""Trees, bushes and hedges."""

from __future__ import annotations

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder, placed
from tools.scenes.textures import pick, tint


def _cards(
    builder: MeshBuilder,
    rng: np.random.Generator,
    centres: np.ndarray,
    size_m: float,
    material: Material,
    middle: np.ndarray,
    radii: np.ndarray,
) -> None:
    """Leaf clusters at `centres` (N, 3), shaded as if they were parts of one round body."""
    count = len(centres)
    outward = (centres - middle) / radii
    depth = np.linalg.norm(outward, axis=1).clip(0.05, 1.1)
    normal = outward / depth[:, None] + 0.5 * rng.standard_normal((count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    side = np.cross(normal, rng.standard_normal((count, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(normal, side)
    half = size_m / 2 * rng.uniform(0.7, 1.3, (count, 1))
    a, b = side * half, up * half
    corners = np.stack([centres - a - b, centres + a - b, centres + a + b, centres - a + b], axis=1)
    # Less light comes to the inside and to the underside.
    shade = (0.6 + 0.4 * depth**2) * (0.85 + 0.2 * outward[:, 2].clip(-1, 1)) * rng.uniform(0.8, 1.15, count)
    shading = outward / depth[:, None] * 0.8 + normal * 0.2
    builder.quads(corners, material, tints=shade[:, None].clip(0, 1) * np.ones(3), normals=shading)


def _cloud(rng: np.random.Generator, count: int, middle: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(N, 3) points in an ellipsoid, more of them near its surface."""
    way = rng.standard_normal((count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return middle + way * radii * rng.uniform(0.15, 1.0, (count, 1)) ** 0.4


def tree(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray, height_m: float, detail: float) -> None:
    """A broad-leaved tree or a conifer at `where` (4, 4); `detail` 1 is near, 0.2 far."""
    bark = pick(rng, "bark", 0.7).tinted(tint(rng, 0.6, 1.0))
    leaf = pick(rng, "leaves" if rng.random() < 0.8 else "twigs", 0).tinted(tint(rng, 0.75, 1.0, 0.1))
    conifer = rng.random() < 0.2
    stem = height_m * (0.08 if conifer else rng.uniform(0.2, 0.34))
    girth = 0.025 * height_m * rng.uniform(0.7, 1.2)
    with builder.at(where):
        builder.part()
        bend = rng.normal(0, 0.02 * height_m, 2)
        fork = np.array([*bend, stem * 1.5])
        builder.tube((0, 0, -0.1), fork, (girth, girth * 0.7), bark)
        builder.part(solid=False)
        card = height_m * rng.uniform(0.1, 0.15) * (1.5 if detail < 0.5 else 1.0)
        if conifer:
            builder.tube(fork, (0, 0, height_m * 0.95), (girth * 0.7, 0.02), bark)
            levels = rng.uniform(0, 1, int(260 * detail) + 50)
            radius = 0.2 * height_m * (1 - levels) * rng.uniform(0.4, 1, len(levels)) + 0.1
            angle = rng.uniform(0, 2 * np.pi, len(levels))
            up = stem + levels * (height_m - stem)
            centres = np.stack([radius * np.cos(angle), radius * np.sin(angle), up], axis=1)
            middle, radii = np.array([0, 0, 0.5 * height_m]), np.array([0.2, 0.2, 0.55]) * height_m
            _cards(builder, rng, centres, card, leaf, middle, radii)
            return
        crown = height_m - stem
        middle = np.array([*bend, stem + 0.55 * crown])
        reach = np.array([1, 1, 0]) * crown * rng.uniform(0.4, 0.6) + (0, 0, 0.5 * crown)
        clusters = [middle + reach * 0.55 * rng.uniform(-1, 1, 3) for _ in range(int(rng.integers(4, 8)))]
        for cluster in clusters:
            builder.tube(fork, cluster, (girth * 0.5, girth * 0.12), bark, sides=5)
            radii = reach * rng.uniform(0.4, 0.62)
            centres = _cloud(rng, int(75 * detail) + 16, cluster, radii)
            _cards(builder, rng, centres, card, leaf, cluster, radii)


def bush(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray, size_m: float, detail: float = 1.0) -> None:
    """A round bush, as wide as `size_m`."""
    leaf = pick(rng, "leaves" if rng.random() < 0.7 else "twigs", 0).tinted(tint(rng, 0.7, 1.0, 0.12))
    radii = np.array([0.5, 0.5, 0.5 * rng.uniform(0.7, 1.3)]) * size_m
    middle = np.array([0, 0, radii[2] * 0.8])
    with builder.at(where):
        builder.part()
        centres = _cloud(rng, int(70 * detail) + 12, middle, radii)
        centres[:, 2] = np.maximum(centres[:, 2], 0.05)
        _cards(builder, rng, centres, size_m * 0.34, leaf, middle, radii)


def hedge(builder: MeshBuilder, rng: np.random.Generator, where: np.ndarray, length_m: float, height_m: float) -> None:
    """A clipped hedge along local y, with leaves that stand out from its faces."""
    wide = rng.uniform(0.5, 0.9)
    body = pick(rng, "hedge", 1.4).tinted(tint(rng, 0.75, 1.0, 0.1))
    with builder.at(where):
        builder.part()
        rows, ring = max(3, int(length_m / 0.5)), np.array([0, 0.12, 0.45, 0.55, 1, 1, 0.55, 0.45, 0.12, 0])
        side = np.array([-0.5, -0.5, -0.5, -0.42, -0.2, 0.2, 0.42, 0.5, 0.5, 0.5]) * wide
        along = np.linspace(0, length_m, rows)[:, None]
        wobble = rng.normal(0, 0.035, (rows, len(ring), 2))
        up = np.where(ring > 0.5, 1 - (1 - ring) * 0.3, ring) * height_m
        points = np.stack([side + wobble[..., 0], along + 0 * side, np.maximum(up + wobble[..., 1], 0)], axis=2)
        builder.grid(points, body)
        for y in (0.0, length_m):
            builder.quad(
                np.array(
                    [
                        [-wide / 2, y, 0],
                        [wide / 2, y, 0],
                        [wide * 0.42, y, height_m * 0.9],
                        [-wide * 0.42, y, height_m * 0.9],
                    ]
                ),
                body,
            )
        leaf = pick(rng, "twigs", 0).tinted(body.tint)
        count = int(length_m * 14)
        centres = np.stack(
            [
                rng.choice([-0.5, 0.5], count) * wide,
                rng.uniform(0, length_m, count),
                rng.uniform(0.1, 1, count) * height_m,
            ],
            1,
        )
        top = rng.random(count) < 0.4
        centres[top, 0], centres[top, 2] = rng.uniform(-0.45, 0.45, top.sum()) * wide, height_m * 0.98
        _cards(
            builder,
            rng,
            centres,
            0.24,
            leaf,
            np.array([0, length_m / 2, height_m / 2]),
            np.array([wide, length_m, height_m]) / 2,
        )


def grove(builder: MeshBuilder, rng: np.random.Generator, positions: np.ndarray, detail: float) -> None:
    """Trees and bushes at `positions` (N, 3)."""
    for position in positions:
        if rng.random() < 0.65:
            tree(builder, rng, placed(position, rng.uniform(0, 6)), rng.uniform(5, 13), detail)
        else:
            bush(builder, rng, placed(position, rng.uniform(0, 6)), rng.uniform(1.0, 3.0), detail)
