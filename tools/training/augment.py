"""Makes generated pictures look as different as cameras, lights and codecs make real ones.

What acts on each value alone is one table of 256 entries a picture and channel; colours are mixed by one matrix a
picture; noise is cut out of one large sheet. So all of it takes a twentieth of a training step.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

_LEVELS = np.linspace(0.0, 1.0, 256, dtype=np.float32)
_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB).astype(np.float32)
_SHEET = 1 << 22
_GREY, _SOFT, _SHAKEN, _CODED, _PLAIN = 0.1, 0.3, 0.1, 0.3, 0.2
"""Shares of pictures that lose their colour, resolution, are blurred by motion, go through JPEG, stay as they are."""


class Appearance:
    """Random changes that leave depth alone."""

    def __init__(self, seed: int) -> None:
        self._noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(_SHEET, np.float32))

    def apply(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """(B, 3, h, w) in [0, 1], changed; each picture in its own way."""
        changed = _softened(image, rng)
        matrix = torch.from_numpy(np.stack([colour_matrix(rng) for _ in range(len(image))]))
        changed = torch.einsum("bij,bjhw->bihw", matrix, changed) * _shading(image.shape, rng)
        changed = _toned(changed, rng)
        strength = torch.from_numpy(0.05 * rng.random((len(image), 1, 1, 1), np.float32) ** 2)
        changed = (changed + strength * self._noise_like(changed, rng)).clamp(0.0, 1.0)
        changed = _coded(changed, rng)
        plain = torch.from_numpy(rng.random((len(image), 1, 1, 1)) < _PLAIN)
        return torch.where(plain, image, changed)

    def _noise_like(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        start = int(rng.integers(_SHEET - image.numel()))
        return self._noise[start : start + image.numel()].view(image.shape)


def colour_matrix(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) float32: a random turn of the hue and change of saturation; grey stays grey."""
    saturation = 0.0 if rng.random() < _GREY else rng.uniform(0.3, 1.6)
    turn = rng.normal(0.0, 0.15)
    c, s = saturation * np.cos(turn), saturation * np.sin(turn)
    return _RGB_FROM_YIQ @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32) @ _YIQ_FROM_RGB


def tone_table(rng: np.random.Generator) -> np.ndarray:
    """(3, 256) float32 in [0, 1]: exposure, gamma, contrast, and a tint that differs between channels."""
    gain = np.exp(rng.normal(0.0, 0.25) + rng.normal(0.0, 0.1, (3, 1))).astype(np.float32)
    gamma = np.exp(rng.normal(0.0, 0.3))
    contrast = np.exp(rng.normal(0.0, 0.2))
    lift = rng.normal(0.0, 0.06)
    curve = np.clip(gain * _LEVELS, 0.0, 1.0) ** gamma
    return np.clip((curve - 0.5) * contrast + 0.5 + lift, 0.0, 1.0).astype(np.float32)


def _toned(image: Tensor, rng: np.random.Generator) -> Tensor:
    levels = (image.clamp(0.0, 1.0) * 255).round().to(torch.uint8).numpy()
    result = np.empty(levels.shape, np.float32)
    for i in range(len(levels)):
        table = tone_table(rng)
        for channel in range(3):
            np.take(table[channel], levels[i, channel], out=result[i, channel], mode="clip")
    return torch.from_numpy(result)


def _shading(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """(B, 1, h, w): broad lights and shadows, and falling off to the corners."""
    strength = 0.35 * rng.random((shape[0], 1, 1, 1)) ** 2
    coarse = torch.from_numpy((strength * rng.standard_normal((shape[0], 1, 3, 4))).astype(np.float32)).exp()
    return functional.interpolate(coarse, (shape[2], shape[3]), mode="bilinear", align_corners=True)


def _softened(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Some pictures lose resolution, some are blurred along a row or column. `image` itself is left as it is."""
    image = image.clone()
    lot = rng.random(len(image))
    soft = torch.from_numpy(np.flatnonzero(lot < _SOFT))
    if len(soft):
        factor = rng.uniform(0.35, 0.8)
        size = [max(8, round(side * factor)) for side in image.shape[-2:]]
        small = functional.interpolate(image[soft], size, mode="bilinear", align_corners=False, antialias=True)
        image[soft] = functional.interpolate(small, image.shape[-2:], mode="bilinear", align_corners=False)
    shaken = torch.from_numpy(np.flatnonzero(lot > 1 - _SHAKEN))
    if len(shaken):
        kernel = (1, 3) if rng.random() < 0.7 else (3, 1)
        padding = (kernel[0] // 2, kernel[1] // 2)
        image[shaken] = functional.avg_pool2d(image[shaken], kernel, 1, padding, count_include_pad=False)
    return image


def _coded(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Some pictures go through JPEG, in place."""
    for i in np.flatnonzero(rng.random(len(image)) < _CODED):
        rgb = (image[i].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=int(rng.integers(25, 90)))
        with Image.open(buffer) as decoded:
            image[i] = torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float() / 255
    return image
