"""Camera model: exposure, white balance, tone, vignetting, blur and noise."""

from __future__ import annotations

import numpy as np


def expose(
    rgb: np.ndarray, rng: np.random.Generator, strength: float = 1.0, noise: np.random.Generator | None = None
) -> np.ndarray:
    """`rgb` (H, W, 3) uint8 as a real sensor would give it; `strength` 0 leaves it, 0.3 is mild, 1 for training.

    `noise`: its own generator for the noise, so that frames of one clip can share everything else.
    """
    if strength <= 0:
        return rgb.copy()
    height, width = rgb.shape[:2]
    linear = (rgb.astype(np.float32) / 255) ** 2.2
    gain = np.exp(strength * rng.normal(0, 0.28)) * np.exp(strength * rng.normal(0, 0.07, 3))
    linear *= gain.astype(np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    linear *= 1 - np.float32(strength * rng.uniform(0, 0.3)) * (x * x + y * y)[..., None] / 2
    return _finish(linear, rng, strength, noise or rng)


def _finish(
    linear: np.ndarray, rng: np.random.Generator, strength: float, noise_rng: np.random.Generator
) -> np.ndarray:
    linear = _blurred(linear, strength * rng.uniform(0, 0.6))
    shot, read = strength * rng.uniform(0.0, 0.03), strength * rng.uniform(0.0, 0.006)
    tone, saturation = np.exp(strength * rng.normal(0, 0.14)) / 2.2, np.exp(strength * rng.normal(0, 0.2))
    noise = noise_rng.standard_normal(linear.shape, dtype=np.float32)
    linear = linear + noise * np.sqrt(shot**2 * np.maximum(linear, 0) + read**2).astype(np.float32)
    out = np.clip(linear, 0, 1) ** np.float32(tone)
    grey = out.mean(axis=2, keepdims=True)
    out = grey + (out - grey) * np.float32(saturation)
    return np.asarray(np.rint(255 * np.clip(out, 0, 1)), np.uint8)


def _blurred(image: np.ndarray, amount: float) -> np.ndarray:
    """Three taps in each direction, their outer weight `amount` / 3."""
    side = np.float32(amount / 3)
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        ends = np.take(padded, range(image.shape[axis]), axis) + np.take(padded, range(2, image.shape[axis] + 2), axis)
        image = image * (1 - 2 * side) + ends * side
    return image
