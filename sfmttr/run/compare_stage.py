"""Comparison of all depth maps with held-out SfM points and, where there is some, with ground truth."""

from __future__ import annotations

from sfmttr.config import GroundTruthConfig
from sfmttr.evaluation.comparison import Comparison, Maps, compare_at_points, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import match_ground_truth
from sfmttr.evaluation.metrics import protocol
from sfmttr.refinement.observations import held_out_frames
from sfmttr.run.context import RunContext
from sfmttr.run.results import Aligned
from sfmttr.run.stages import StageName
from sfmttr.types import DepthKind

Comparisons = dict[str, Comparison | None]


def compare(
    context: RunContext, maps: Maps, aligned: Aligned | None, ground_truth: GroundTruthConfig | None
) -> Comparisons:
    """Return the comparisons by name (see `RunResult.comparisons`). `aligned`: None for a clip that is not refined."""
    with context.stages.timed(StageName.COMPARE):
        result: Comparisons = {"held_out": None, "held_out_frames": None}
        if aligned is not None:
            result |= _compare_at_held_out_points(context, maps, aligned)
        if ground_truth is not None:
            result |= _compare_with_ground_truth(context, maps, ground_truth)
    return result


def _compare_at_held_out_points(context: RunContext, maps: Maps, aligned: Aligned) -> Comparisons:
    observations, scale = aligned.observations, aligned.alignment.scale
    unit = "m" if context.depth_kind is DepthKind.METRIC else "network units"
    rows = {"held_out": observations.test, "held_out_frames": observations.test_on_held_out_frames}
    return {
        name: compare_at_points(
            maps, observations.where(mask & observations.reliable), scale, unit, name.replace("_", " ")
        )
        for name, mask in rows.items()
    }


def _compare_with_ground_truth(context: RunContext, maps: Maps, config: GroundTruthConfig) -> Comparisons:
    truth = match_ground_truth(context.frames, config.folder, config.scale)
    rules = protocol(config.protocol, median_scaling=config.median_scaling)
    result: Comparisons = {"ground_truth": compare_with_ground_truth(maps, context.depth_kind, truth, rules)}
    held_out = held_out_frames(len(context.frames), context.config.split.hold_out_frames)
    if held_out.any():
        result["ground_truth_held_out_frames"] = compare_with_ground_truth(
            maps, context.depth_kind, truth, rules, held_out
        )
    return result
