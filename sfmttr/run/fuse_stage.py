"""Fusion of depth maps with the SfM points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sfmttr.config import FuseConfig
from sfmttr.io.json_files import cache_key
from sfmttr.refinement.fusion import fuse_clip, fusion_hw
from sfmttr.refinement.observations import Observations, Split, merge_observations
from sfmttr.refinement.weighting import point_weights
from sfmttr.run.context import RunContext
from sfmttr.run.results import Aligned
from sfmttr.run.stages import StageName
from sfmttr.types import Progress


def fused_depth(
    context: RunContext, name: StageName, maps: np.ndarray, aligned: Aligned, refinement_key: str
) -> np.ndarray:
    """(N, h, w): `maps` fused with all points but those that the comparison is made on.

    Validation points are used, too: fusion follows the training that they were kept from.
    """
    rows = (aligned.selection.mask & ~aligned.observations.test) & ~aligned.observations.frame_held_out
    known = aligned.propagated.split != Split.TEST
    observations = merge_observations(aligned.observations.where(rows), aligned.propagated.where(known))

    def on_frame(done: int) -> None:
        context.on_progress(Progress(name, done, len(maps)))

    return context.depth_stage(
        name,
        cache_key(refinement_key, [name, context.config.fuse]),
        lambda: fuse_with_points(context, maps, observations, aligned, context.config.fuse, on_frame),
    )


def fuse_with_points(
    context: RunContext,
    maps: np.ndarray,
    observations: Observations,
    aligned: Aligned,
    config: FuseConfig,
    on_frame: Callable[[int], None],
) -> np.ndarray:
    """(N, h, w): `maps`, in network units, fused with `observations`. `on_frame` gets the number of frames done."""
    reference = (aligned.alignment.scale * observations.z).astype(np.float32)
    weight = point_weights(observations, context.config.recipe.weight)
    hw = fusion_hw(context.frames.hw, config)
    return fuse_clip(maps, observations, reference, weight, hw, config, on_frame)
