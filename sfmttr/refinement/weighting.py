"""Weights of sparse points, in training and in fusion."""

from __future__ import annotations

import numpy as np

from sfmttr.config import FuseConfig, WeightConfig
from sfmttr.refinement.observations import Observations


def point_weights(observations: Observations, config: WeightConfig) -> np.ndarray:
    """Return the weight (M,) float32 in [0, 1] of each observation.

    `exp(-e^2)` with the point's mean reprojection error e in pixels (Izquierdo and Civera, CVPR 2023, section 3.3).
    With `config.sigma_scale`, a second factor that is not in the paper reduces the weight of points triangulated under
    a small angle: their depth is uncertain by about `relative_sigma`, whatever their reprojection error.
    """
    weight = np.exp(-(observations.error_px.astype(np.float64) ** 2))
    if config.sigma_scale is not None:
        weight /= 1 + (observations.relative_sigma / config.sigma_scale) ** 2
    return weight.astype(np.float32)


def cauchy_weights(residual: np.ndarray, config: FuseConfig) -> np.ndarray:
    """Return Cauchy's weights (M,) float32 of log residuals (M,), scaled by their own median over the clip."""
    if not len(residual):
        return np.ones(0, np.float32)
    half = config.outlier_scale * max(float(np.median(np.abs(residual))), 1e-6)
    return (1.0 / (1.0 + (residual / half) ** 2)).astype(np.float32)
