"""Alignment of the unrefined prediction with the SfM points, and the selection of points to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from sfmttr.io.json_files import cache_key
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.disparity_to_depth import DisparityNetwork
from sfmttr.networks.inverse_depth import unshifted_depth
from sfmttr.refinement.alignment import Alignment, align, align_disparity, relaxed_inliers
from sfmttr.refinement.observations import Observations, observe, propagate_observations, sample_at
from sfmttr.refinement.targets import Selection, select_observations
from sfmttr.refinement.trust_gate import Consistency, Trust, evaluate_trust, measure_consistency
from sfmttr.run.context import RunContext
from sfmttr.run.results import Aligned
from sfmttr.run.stages import StageName
from sfmttr.types import SfmHealth, SparseModel

# A reconstruction below this health is often wrong in parts: frames and tracks that disagree grossly with the network
# are then excluded, and points are not propagated.
LOW_CONFIDENCE_HEALTH = 0.75

IsInlier = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(SfM depth (M,), network depth (M,)) -> (M,) bool: inliers of the relaxed model."""


def align_prediction(context: RunContext, model: SparseModel, raw: np.ndarray) -> Aligned:
    """Align the unrefined prediction `raw` (N, h, w) with the points of `model`. Raises `AlignmentError`."""
    config, frames = context.config, context.frames
    rng = np.random.default_rng(config.seed)
    observations = observe(model, len(frames), frames.hw, config.split, rng)
    rows = observations.trainable
    fit = align_disparity if context.predicts_disparity else align
    alignment = fit(observations.z[rows], sample_at(raw, observations)[rows], config.recipe.align, rng)
    maps = unrefined_depth(raw, alignment)
    depth = sample_at(maps, observations)
    consistency = measure_consistency(observations.frame[rows], observations.z[rows], depth[rows], alignment)
    is_inlier = partial(
        relaxed_inliers,
        scale=alignment.scale,
        config=config.recipe.align,
        in_inverse_depth=context.predicts_disparity,
    )
    trust = evaluate_trust(model.health, consistency)
    selection = _select(context, observations, is_inlier(observations.z, depth), consistency, trust, model.health)
    propagated = _propagate(context, model, observations, maps, is_inlier, trust)
    return Aligned(observations, alignment, consistency, trust, selection, propagated)


def _is_low_confidence(health: SfmHealth) -> bool:
    return health.score < LOW_CONFIDENCE_HEALTH


def _select(
    context: RunContext,
    observations: Observations,
    relaxed: np.ndarray,
    consistency: Consistency,
    trust: Trust,
    health: SfmHealth,
) -> Selection:
    """Select the observations to train on, in frames and at pixels that the network is trained on."""
    selection = select_observations(
        observations,
        relaxed,
        dict(zip(consistency.frame.tolist(), consistency.frame_scale.tolist(), strict=True)),
        low_confidence=_is_low_confidence(health),
        keep_reliable_outliers=context.config.recipe.align.keep_reliable_outliers and trust.out_of_domain,
    )
    return replace(selection, mask=selection.mask & _is_usable(context, observations))


def _propagate(
    context: RunContext,
    model: SparseModel,
    observations: Observations,
    maps: np.ndarray,
    is_inlier: IsInlier,
    trust: Trust,
) -> Observations:
    """Return points in neighbouring frames where they were not detected, as far as they agree with the network.

    Points of a doubtful reconstruction are not propagated. Nor are points that train a network far from its domain: it
    would not notice that a point is hidden in the neighbouring frame.
    """
    frames = context.frames
    is_safe = frames.from_video and not _is_low_confidence(model.health) and not trust.out_of_domain
    reach = context.config.recipe.propagate_frames if is_safe else 0
    propagated = propagate_observations(model, observations, len(frames), frames.hw, reach)
    fits = is_inlier(propagated.z, sample_at(maps, propagated))
    fits &= _is_usable(context, propagated)
    return propagated.where(fits)


def _is_usable(context: RunContext, observations: Observations) -> np.ndarray:
    """(M,) bool: observations at pixels that the network sees, in frames that may be trained on."""
    names, chosen = context.frames.names, context.config.train_frames
    is_train_frame = np.isin(names, names if chosen is None else chosen)
    return context.network.valid_region(observations.grid, context.frames.hw) & is_train_frame[observations.frame]


# ---------------------------------------------------------------------------- depth before refining


def unrefined_depth(raw: np.ndarray, alignment: Alignment) -> np.ndarray:
    """(N, h, w): depth of the unrefined prediction, in the unit that `alignment.scale` converts SfM depth to."""
    return raw if alignment.inverse is None else alignment.inverse.depth(raw)


def depth_network(network: DepthNetwork, alignment: Alignment) -> DepthNetwork:
    """Return the unrefined network as one that predicts depth."""
    return network if alignment.inverse is None else DisparityNetwork(network, alignment.inverse)


def depth_before(context: RunContext, raw: np.ndarray, aligned: Aligned | None) -> np.ndarray:
    """(N, h, w): depth of the unrefined network, with nothing taken from the SfM points but the scale of a disparity.

    Disparity counts as inverse depth without a shift, since only points could tell the shift. Its scale is arbitrary:
    if there are points, it is the one that fits them best.
    """
    if not context.predicts_disparity:
        return raw

    def convert() -> np.ndarray:
        maps = unshifted_depth(raw)
        if aligned is None:
            return maps
        rows = aligned.observations.where(aligned.observations.trainable)
        return maps * np.float32(np.median(aligned.alignment.scale * rows.z / sample_at(maps, rows)))

    scale = None if aligned is None else aligned.alignment.scale
    return context.depth_stage(StageName.BEFORE, cache_key(context.network_key, ["unshifted", scale]), convert)


def depth_aligned(context: RunContext, raw: np.ndarray, alignment: Alignment) -> np.ndarray:
    """(N, h, w): the best depth that alignment alone gives.

    Only that of disparity networks is stored: for others it is the depth before times `alignment.network_scale`.
    """
    maps = unrefined_depth(raw, alignment) * np.float32(alignment.network_scale)
    if alignment.inverse is None:
        return maps
    key = cache_key(context.network_key, [alignment.inverse, alignment.network_scale])
    return context.depth_stage(StageName.ALIGNED, key, lambda: maps)
