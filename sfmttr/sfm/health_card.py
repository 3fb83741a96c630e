"""The health card of a reconstruction: figures read off the model, and their score (`health`)."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from sfmttr.sfm import cache, health
from sfmttr.sfm.protocol import MatchStatistics, RawModel
from sfmttr.sfm.sparse import Sparse, sparse_from_raw
from sfmttr.types import Camera, FrameSet, SfmHealth


def read_sparse(frames: FrameSet, folder: Path) -> Sparse:
    """Read the model of an attempt from `folder`."""
    raw = RawModel.read(folder)
    return sparse_from_raw(raw, cache.match_images(raw, frames), frames)


def health_figures(frames: FrameSet, sparse: Sparse, statistics: MatchStatistics) -> health.HealthFigures:
    """Return the figures of a model that cost nothing to compute."""
    views, points = sparse.views, sparse.points
    centres = np.array([-v.cam_from_world[:3, :3].T @ v.cam_from_world[:3, 3] for v in views])
    return health.HealthFigures(
        reprojection_px=float(points.error_px.mean()),
        step_evenness=health.step_evenness(centres, np.array([frames.time_s[v.frame] for v in views])),
        horizontal_view_deg=_middle_camera(sparse).horizontal_view_deg,
        triangulation_angle_deg=float(np.median(points.triangulation_angle_deg)),
        degenerate_pair_ratio=statistics.degenerate_ratio,
        registered_ratio=len(views) / len(frames),
        track_length=float(points.track_length.mean()),
    )


def doubtful_figures(figures: health.HealthFigures, focal_given: bool, ordered: bool) -> health.HealthFigures:
    """Set figures without doubt to nan: a given focal length, the camera path through an unordered photo set."""
    return replace(
        figures,
        step_evenness=figures.step_evenness if ordered else float("nan"),
        horizontal_view_deg=float("nan") if focal_given else figures.horizontal_view_deg,
    )


def health_card(
    sparse: Sparse, figures: health.HealthFigures, frames: FrameSet, *, focal_given: bool, ordered: bool
) -> SfmHealth:
    """Return the health card of a model with these figures."""
    verdict = health.health_score(doubtful_figures(figures, focal_given, ordered))
    disagreement = figures.halves_disagreement
    return SfmHealth(
        registered=len(sparse.views),
        total=len(frames),
        points=len(sparse.points),
        mean_track_length=figures.track_length,
        mean_reprojection_error_px=figures.reprojection_px,
        focal_px=_middle_camera(sparse).fx,
        focal_given=focal_given,
        horizontal_view_deg=figures.horizontal_view_deg,
        median_triangulation_angle_deg=figures.triangulation_angle_deg,
        step_evenness=figures.step_evenness,
        degenerate_pair_ratio=figures.degenerate_pair_ratio,
        halves_disagreement=None if math.isnan(disagreement) else disagreement,
        **asdict(verdict),
    )


def _middle_camera(sparse: Sparse) -> Camera:
    return sparse.views[len(sparse.views) // 2].camera
