"""Conversion of high dynamic range video (the default of many phones) to 8-bit sRGB, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

SMPTE2084_PQ = 16
ARIB_STD_B67_HLG = 18
"""FFmpeg's identifiers of the transfer characteristics."""
REFERENCE_WHITE_NITS = 203.0
"""Reference white of graphics and scenes (ITU-R BT.2408): maps to 1; highlights above it are rolled off."""
HLG_REFERENCE_WHITE = 0.265
"""Reference white in hybrid log-gamma scene light, relative to a peak of 1."""
KNEE = 0.8
BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


def srgb_from_hdr(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Convert BT.2020 code values, (H, W, 3) uint16, to sRGB, (H, W, 3) uint8; `transfer` is PQ or HLG."""
    light = _light_table(transfer)[rgb >> 4] @ BT709_FROM_BT2020.T
    levels = (_roll_off_highlights(light) * (len(_srgb_table()) - 1) + 0.5).astype(np.uint16)
    return _srgb_table()[levels]


def _roll_off_highlights(light: np.ndarray) -> np.ndarray:
    """Keep light below the knee and compress everything above it into the range up to 1."""
    over = np.maximum(light - KNEE, 0) / (1 - KNEE)
    bent = KNEE + (1 - KNEE) * over / (1 + over)
    return np.where(light > KNEE, bent, np.maximum(light, 0))


@cache
def _light_table(transfer: int) -> np.ndarray:
    """Return linear light (reference white 1) by 12-bit code value, (4096,) float32."""
    linear: dict[int, Callable[[np.ndarray], np.ndarray]] = {SMPTE2084_PQ: _pq_light, ARIB_STD_B67_HLG: _hlg_light}
    return linear[transfer](np.linspace(0, 1, 4096)).astype(np.float32)


def _hlg_light(code: np.ndarray) -> np.ndarray:
    """Return scene light by the inverse OETF of ITU-R BT.2100, as an SDR camera would have encoded it."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12) / HLG_REFERENCE_WHITE


def _pq_light(code: np.ndarray) -> np.ndarray:
    """Return display light by the EOTF of ITU-R BT.2100."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = code ** (1 / m2)
    return 10000 / REFERENCE_WHITE_NITS * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


@cache
def _srgb_table() -> np.ndarray:
    """Return the sRGB code values of linear light from 0 to 1, (4096,) uint8."""
    light = np.linspace(0, 1, 4096)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * code).astype(np.uint8)
