"""Do the earlier and the later part of a clip, mapped apart, give the same depths? Arrays only.

What stands still has one shape all through the clip. What moves by itself can look like a still scene for a while, but
not like the same one later. Even and odd frames would see the same movements and agree on the same wrong shape (tried:
0.017 to 0.037 in traffic, up to 0.009 in still scenes), so the parts are consecutive. They overlap, so that the points
compared, which the middle sees, are known well to both (still scenes: twice as much disagreement without overlap).
"""

from __future__ import annotations

import numpy as np

from sfmttr.sfm.protocol import RawModel

_MIN_COMMON = 10


def halves_disagreement(whole: RawModel, first: RawModel, second: RawModel) -> float:
    """Median over points of |log(first / second)|, after the median; nan with too few common points.

    Each half's depth of a point is taken relative to the whole model's at the same observations, so that points can be
    compared though the features that each half uses may differ.
    """
    first_ratio, second_ratio = (_log_ratio_by_point(half, whole) for half in (first, second))
    difference = first_ratio - second_ratio
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
