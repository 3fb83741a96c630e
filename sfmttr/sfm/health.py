"""Health of a reconstruction, scored from its own statistics: without network and without ground truth.

Thresholds and their evidence: `docs/method.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sfmttr.types import NoModelReason

_NAN = float("nan")

LOW_FEATURES = 200
"""Minimum number of features in the median image; below it there is too little texture."""
STATIC_DISPLACEMENT = 0.01
"""Minimum image motion over the image width; below it the camera counts as static."""
ALL_DEGENERATE = 0.9
"""Share of planar or pure-rotation pairs from which, without a model, the camera counts as only rotating."""

NO_MODEL_ADVICE = {
    NoModelReason.TEXTURELESS: "There is too little texture to follow: film something with more detail, in better "
    "light and without motion blur.",
    NoModelReason.STATIC: "The camera hardly moved: walk sideways while filming.",
    NoModelReason.ROTATION: "The camera only turned on the spot: move it sideways as well, by at least a step.",
    NoModelReason.NO_OVERLAP: "The frames have too little in common: film more slowly, or use more frames of a shorter "
    "stretch.",
    NoModelReason.UNSTABLE: "The frames match but fit no common 3D model: film a place where little moves, walk "
    "sideways, or give the intrinsics.",
}


@dataclass(frozen=True)
class HealthFigures:
    """Inputs of the health score; nan means unknown and does not lower the score."""

    reprojection_px: float
    step_evenness: float = _NAN
    horizontal_view_deg: float = _NAN
    """Horizontal field of view; nan when the focal length was given, which is then not judged."""
    triangulation_angle_deg: float = _NAN
    degenerate_pair_ratio: float = _NAN
    registered_ratio: float = 1.0
    track_length: float = _NAN
    halves_disagreement: float = _NAN
    """Median |log ratio| of depths from the earlier and the later part (`split_half`); 1 when a part has no model."""


@dataclass(frozen=True)
class HealthScore:
    """Score, concerns and advice; see `SfmHealth` for the fields."""

    score: float
    concerns: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class _HealthFactor:
    """Factor of the score from one statistic, with its concern for the report and advice."""

    factor: float
    concern: str
    advice: str
    has_harmless_causes: bool = False
    """True when blur or stop-and-go can lower it too: split-half agreement then takes its square root."""


CLEARLY_HEALTHY = 0.8
"""Score from the statistics of the whole model from which split-half consistency is not computed."""
POOR = 0.5
"""Score below which advice is given, and the trust gate also compares with the network's predictions."""
_CONCERN_BELOW = 0.75
_SPLIT_HALF_AGREES, _SPLIT_HALF_DISAGREES = 0.02, 0.035
"""Measured by `benchmarks.trust`: static scenes 0.003 to 0.006 (rendered street, also with stop-and-go, and room;
drive_0002) and 0.022 (RedKitchen); fully registered traffic clips with errors of 19 to 52 %: at least 0.037, or a part
without a model. With other features and pairs: static scenes up to 0.024, traffic at least 0.033."""


def health_score(figures: HealthFigures) -> HealthScore:
    """Return a score between 0 and 1: the product of one factor per statistic, so that mild signs accumulate.

    The thresholds of the statistics of the whole model were set on the five reconstructions of the trust gate's table
    (`docs/method.md`). With them, wrong models of small clips (0.5 px, speeds that vary by 100 %, a plausible field of
    view) score 0.58, close to a static street with stop-and-go (0.78) and to RedKitchen (0.79). Reprojection errors
    relative to the width or the focal length separate them no better: RedKitchen is then where traffic is. For scores
    in between, split-half consistency decides.
    """
    signs = _factors(figures)
    score = math.prod(sign.factor for sign in signs)
    worrying = sorted((s for s in signs if s.factor < _CONCERN_BELOW), key=lambda s: s.factor)
    advice = worrying[0].advice if worrying and score < POOR else ""
    return HealthScore(score, tuple(sign.concern for sign in worrying), advice)


def split_half_can_decide(figures: HealthFigures) -> bool:
    """Return whether split-half consistency can decide: the score is not clearly healthy, and not poor on agreement."""
    return (
        health_score(figures).score < CLEARLY_HEALTHY
        and health_score(replace(figures, halves_disagreement=0.0)).score >= POOR
    )


def _factors(f: HealthFigures) -> list[_HealthFactor]:
    agree = (
        0.0
        if math.isnan(f.halves_disagreement)
        else _ramp(f.halves_disagreement, good=_SPLIT_HALF_AGREES, bad=_SPLIT_HALF_DISAGREES, floor=0.0)
    )
    signs = _independent_factors(f)
    return [replace(s, factor=s.factor ** (1 - agree / 2)) if s.has_harmless_causes else s for s in signs]


def _independent_factors(f: HealthFigures) -> list[_HealthFactor]:
    moving = "Film a stretch without traffic or other moving things, or give the intrinsics."
    sideways = "Move the camera more, and sideways."
    return [
        _HealthFactor(
            _ramp(f.reprojection_px, good=0.5, bad=1.4, floor=0.2),
            f"points are reprojected {f.reprojection_px:.2f} pixels off on average",
            moving,
            has_harmless_causes=True,
        ),
        _HealthFactor(
            _ramp(f.step_evenness, good=0.5, bad=1.4, floor=0.3),
            f"the camera seems to move in jumps (steps vary by {100 * f.step_evenness:.0f} %)"
            if math.isfinite(f.step_evenness)
            else "",
            moving,
            has_harmless_causes=True,
        ),
        _HealthFactor(
            _view_factor(f.horizontal_view_deg),
            f"a field of view of {f.horizontal_view_deg:.0f} degrees is unlikely",
            "Give the intrinsics of the camera.",
        ),
        _HealthFactor(
            _ramp(f.triangulation_angle_deg, good=2.5, bad=1.0, floor=0.4),
            f"points are seen under small angles only (median {f.triangulation_angle_deg:.1f} degrees)",
            sideways,
        ),
        _HealthFactor(
            _ramp(f.degenerate_pair_ratio, good=0.6, bad=1.0, floor=0.4),
            "most image pairs look like a flat wall or a camera that only turns",
            sideways,
        ),
        _HealthFactor(
            _ramp(f.registered_ratio, good=0.8, bad=0.3, floor=0.4),
            f"only {100 * f.registered_ratio:.0f} % of the frames found their place",
            "Film more slowly, or use a shorter stretch of the clip.",
        ),
        _HealthFactor(
            _ramp(f.track_length, good=3.5, bad=2.2, floor=0.6),
            f"points are seen in few frames ({f.track_length:.1f} on average)",
            "Film more slowly, or use more frames.",
        ),
        _HealthFactor(
            _ramp(f.halves_disagreement, good=_SPLIT_HALF_AGREES, bad=_SPLIT_HALF_DISAGREES, floor=0.2),
            "the earlier and the later part of the clip do not give the same depths",
            moving,
        ),
    ]


def _ramp(value: float, *, good: float, bad: float, floor: float) -> float:
    """Interpolate linearly from 1 at `good` to `floor` at `bad`, clamped; 1 for nan. `bad` may be below `good`."""
    if math.isnan(value):
        return 1.0
    badness = min(max((value - good) / (bad - good), 0.0), 1.0)
    return 1.0 - (1.0 - floor) * badness


def _view_factor(view_deg: float) -> float:
    """Return 1 for common lenses (25 to 110 degrees), and less for narrower and wider ones."""
    too_wide = _ramp(view_deg, good=110.0, bad=140.0, floor=0.3)
    too_narrow = _ramp(view_deg, good=25.0, bad=10.0, floor=0.3)
    return min(too_wide, too_narrow)


def step_evenness(centres: np.ndarray, time_s: np.ndarray) -> float:
    """Return the coefficient of variation of the camera's speed: 0 is a constant speed; nan for fewer than 3 cameras.

    The name is that of the report's JSON key, although larger values mean less even steps.
    `centres` (V, 3) in time order, SfM units; `time_s` (V,), where times that do not increase count as equal steps.
    """
    if len(centres) < 3:
        return _NAN
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    elapsed = np.diff(time_s)
    speeds = steps / elapsed if (elapsed > 0).all() else steps
    mean = float(speeds.mean())
    return float(speeds.std() / mean) if mean > 0 else _NAN


def no_model_reason(features: float, pairs_verified: int, degenerate: float, displacement: float) -> NoModelReason:
    """Return why a clip gives no model, judged by its features and matches (nan: unknown)."""
    if features < LOW_FEATURES:
        return NoModelReason.TEXTURELESS
    if pairs_verified == 0:
        return NoModelReason.NO_OVERLAP
    if displacement < STATIC_DISPLACEMENT:
        return NoModelReason.STATIC
    if degenerate >= ALL_DEGENERATE:
        return NoModelReason.ROTATION
    return NoModelReason.UNSTABLE
