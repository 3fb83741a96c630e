"""Split-half consistency: the earlier and the later part of a clip, mapped apart, should give the same depths.

A static scene has one shape all through the clip. Moving objects can look like a static scene for a while, but not like
the same one later. Even and odd frames would see the same motion and agree on the same wrong shape (measured: 0.017 to
0.037 in traffic, up to 0.009 in static scenes), so the parts are consecutive. They overlap, so that the compared
points, which the middle sees, are well known to both (static scenes: twice the disagreement without overlap).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sfmttr.sfm.attempts import AttemptRunner, FoundModel
from sfmttr.sfm.protocol import RawModel, SfmSettings
from sfmttr.types import FrameSet

_MIN_COMMON = 10
_PART_SHARE, _MIN_PART_FRAMES, _MIN_REGISTERED_SHARE = 0.6, 5, 0.5
"""Parts that are compared: share of the frames, minimum frames, share of them that must be registered."""


def split_half_disagreement(whole: RawModel, first: RawModel, second: RawModel) -> float:
    """Return the median absolute deviation of log(first / second) over points; nan with too few common points.

    Depth in each half is taken relative to the whole model at the same observations, so that points can be compared
    although each half may use other features.
    """
    first_ratio, second_ratio = (_log_ratio_by_point(half, whole) for half in (first, second))
    difference = first_ratio - second_ratio
    difference = difference[np.isfinite(difference)]
    if len(difference) < _MIN_COMMON:
        return float("nan")
    return float(np.median(np.abs(difference - np.median(difference))))


def _log_ratio_by_point(half: RawModel, whole: RawModel) -> np.ndarray:
    """Return (P,) mean log(depth in `half` / depth in `whole`) of each point of `whole`, over common features."""
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


def map_halves(frames: FrameSet, runner: AttemptRunner, settings: SfmSettings, found: FoundModel) -> float:
    """Map the first and the last 60 % of the registered frames apart and return how much their depths disagree.

    Return 1 when one part alone finds no model, or one with too few of its frames; nan when there was no time, or too
    little to compare. Features and matches exist already, so it costs two mappings of fewer frames.
    """
    whole = RawModel.read(found.folder)
    names = {str(name) for name in whole.image_name}
    registered = tuple(file for file in frames.files if file in names)
    length = round(_PART_SHARE * len(registered))
    models, lost = [], False
    for name, subset in (("earlier part", registered[:length]), ("later part", registered[-length:])):
        left_s = runner.time_left_s()
        if len(subset) < _MIN_PART_FRAMES or left_s <= 0:
            return float("nan")
        result = runner.run(replace(settings, name=name), left_s, subset)
        if result.interrupted:
            return float("nan")
        if result.model is None:
            return 1.0
        lost = lost or result.attempt.registered < _MIN_REGISTERED_SHARE * len(subset)
        models.append(RawModel.read(result.model.folder))
    disagreement = split_half_disagreement(whole, *models)
    return 1.0 if lost and math.isnan(disagreement) else disagreement
