"""Do two halves of the frames, mapped apart, give the same depths? Arrays only."""

from __future__ import annotations

import numpy as np

from sfmttr._sfm.job import RawModel

_MIN_COMMON = 10


def halves_disagreement(whole: RawModel, even: RawModel, odd: RawModel) -> float:
    """Median over points of |log(even / odd)|, after the median; nan with too few common points."""
    even_ratio, odd_ratio = (_log_ratio_by_point(half, whole) for half in (even, odd))
    difference = even_ratio - odd_ratio
    difference = difference[np.isfinite(difference)]
    if len(difference) < _MIN_COMMON:
        return float("nan")
    return float(np.median(np.abs(difference - np.median(difference))))


def _log_ratio_by_point(half: RawModel, whole: RawModel) -> np.ndarray:
    """Mean log(depth in `half` / depth in `whole`) for each point of `whole`, over the features that both use."""
    names = {str(name): row for row, name in enumerate(whole.image_name)}
    image = np.array([names.get(str(name), -1) for name in half.image_name])[half.obs_image]
    ids_whole = whole.obs_image * 2**32 + whole.obs_feature
    ids_half = image * 2**32 + half.obs_feature
    _, in_whole, in_half = np.intersect1d(ids_whole, ids_half, return_indices=True)
    depth_whole, depth_half = _depths(whole)[in_whole], _depths(half)[in_half]
    positive = (depth_whole > 0) & (depth_half > 0)
    ratio = np.log(depth_half[positive] / depth_whole[positive])
    point = whole.obs_point[in_whole][positive]
    count = np.bincount(point, minlength=len(whole.xyz_in_world))
    total = np.bincount(point, ratio, len(whole.xyz_in_world))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _depths(raw: RawModel) -> np.ndarray:
    """Camera z of every observation, (M,)."""
    z_row = raw.cam_from_world[raw.obs_image, 2]
    return np.einsum("mi,mi->m", z_row[:, :3], raw.xyz_in_world[raw.obs_point]) + z_row[:, 3]
