"""The texture bank: every surface's texture as one layer of an array, made from a seed.

Where a layer lies does not depend on the seed, so scenes can be built without any pixel being made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.scenes.mesh import Material
from tools.scenes.noise import NoisePool
from tools.scenes.textures_drawn import DRAWN
from tools.scenes.textures_fabric import FABRIC
from tools.scenes.textures_ground import GROUND
from tools.scenes.textures_wall import WALL

Maker = Callable[[np.random.Generator, NoisePool], np.ndarray]
"""Makes one texture (S, S, 3) or, with holes, (S, S, 4): sRGB in [0, 1], tileable unless drawn."""

_MAKERS: dict[str, tuple[int, Maker]] = {**GROUND, **WALL, **FABRIC, **DRAWN}


def _layout() -> dict[str, range]:
    layers, first = {}, 1
    for name, (count, _) in _MAKERS.items():
        layers[name] = range(first, first + count)
        first += count
    return layers


MACRO = 0
"""Layer of the noise that is laid over everything."""
LAYERS = _layout()
"""Layers by name; several of one name are variants."""
COUNT = 1 + sum(count for count, _ in _MAKERS.values())


class TextureBank:
    """The pixels of all layers."""

    def __init__(self, seed: int, size: int) -> None:
        self.pixels = np.full((COUNT, size, size, 4), 255, np.uint8)
        """(L, S, S, 4) uint8, sRGB and, for textures with holes, alpha."""
        pool = NoisePool(np.random.default_rng([seed, size]), size)
        # A generator for each texture: a change to one leaves the others as they are.
        self.pixels[MACRO, ..., :3] = _bytes(pool.draw(np.random.default_rng([seed, 1]), 1.6))[..., None]
        for name, layers in LAYERS.items():
            for layer in layers:
                pixels = _MAKERS[name][1](np.random.default_rng([seed, 2, layer]), pool)
                self.pixels[layer, ..., : pixels.shape[2]] = _bytes(pixels)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(255 * np.clip(values, 0, 1)), np.uint8)


def pick(rng: np.random.Generator, name: str, tile_m: float = 1.0, gloss: float = 0.0, glow: float = 0.0) -> Material:
    """A material with one of the variants of texture `name`."""
    layers = LAYERS[name]
    return Material(int(rng.choice(layers)), tile_m, gloss, glow, cutout=name in CUTOUT)


CUTOUT = frozenset({"leaves", "railing", "twigs", "treeline", "plant"})
"""Textures with holes."""


def tint(rng: np.random.Generator, low: float = 0.7, high: float = 1.0, colour: float = 0.08) -> tuple[float, ...]:
    """A random near-grey factor for a material's colour, (3,)."""
    return tuple(np.clip(rng.uniform(low, high) + rng.uniform(-colour, colour, 3), 0.02, 1.0))


def vivid(rng: np.random.Generator, value: float = 0.8, saturation: float = 0.6) -> tuple[float, ...]:
    """A random colour (3,) of the given greatest value and saturation."""
    hue = (rng.random() * 6 + np.array([0.0, 2.0, 4.0])) % 6
    return tuple(value * (1 - saturation * np.clip(2 - np.abs(hue - 3), 0, 1)))
