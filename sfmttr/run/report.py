"""`report.json`: everything that a run found, for people and programs; and the summary table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sfmttr
from sfmttr.evaluation.comparison import Column
from sfmttr.io.json_files import write_json
from sfmttr.run.results import Aligned, RunResult
from sfmttr.types import NoModel, SparseModel

SCHEMA = 1


def write_report(result: RunResult) -> None:
    """Write `report.json` into the run folder, atomically."""
    write_json(result.report_path, build_report(result))


def build_report(result: RunResult) -> dict[str, Any]:
    """The report in plain types. What does not apply is None, never absent."""
    refined = result.refined
    return {
        "schema": SCHEMA,
        "sfmttr": sfmttr.__version__,
        "network": result.network,
        "licence": result.licence,
        "kind": result.kind,
        "preset": result.config.preset,
        "objective": result.config.objective,
        "seed": result.config.seed,
        "frames": {
            "count": len(result.frames),
            "source_count": result.frames.source_count,
            "hw": result.frames.hw,
            "content_hash": result.frames.content_hash,
            "hold_out_block": result.config.split.hold_out_frames,
            "skipped": [asdict(skipped) for skipped in result.frames.skipped],
        },
        "sfm": _sfm(result.sparse),
        "alignment": None if result.aligned is None else _alignment(result.aligned),
        "refinement": None
        if refined is None
        else {
            "steps": refined.steps,
            "best_step": refined.best_step,
            "seconds": refined.seconds,
            "rolled_back": refined.rolled_back,
            "validation": refined.validation,
        },
        "comparison": {
            **dict.fromkeys(("held_out", "held_out_frames", "ground_truth")),
            **{name: comparison and comparison.to_json() for name, comparison in result.comparisons.items()},
        },
        "advice": result.advice,
        "timings_s": result.timings_s,
    }


def _sfm(sparse: SparseModel | NoModel) -> dict[str, Any]:
    common = {"attempts": [asdict(attempt) for attempt in sparse.attempts], "seconds": sparse.seconds}
    if isinstance(sparse, NoModel):
        nothing = dict.fromkeys(("mean_reprojection_error_px", "rung", "health"))
        return {"registered": 0, "total": sparse.total, "points": 0, **nothing, "advice": sparse.advice, **common}
    health = asdict(sparse.health)
    return {
        "registered": health["registered"],
        "total": health["total"],
        "points": health["points"],
        "mean_reprojection_error_px": health["mean_reprojection_error_px"],
        "rung": sparse.rung,
        "health": health,
        **common,
    }


def _alignment(aligned: Aligned) -> dict[str, Any]:
    return {
        "scale": aligned.alignment.scale,
        "network_scale": aligned.alignment.network_scale,
        "shift": None if aligned.alignment.inverse is None else aligned.alignment.inverse.shift,
        "strict_inlier_ratio": aligned.alignment.strict_inlier_ratio,
        "relaxed_inlier_ratio": aligned.alignment.relaxed_inlier_ratio,
        "rank_correlation": aligned.consistency.rank_correlation,
        "scale_spread": aligned.consistency.scale_spread,
        "frame_scale": dict(
            zip(map(int, aligned.consistency.frame), aligned.consistency.frame_scale.tolist(), strict=True)
        ),
        "sfm_health": aligned.trust.sfm_health,
        "agreement": aligned.trust.consistency,
        "trusted": aligned.trust.trusted,
        "statement": aligned.trust.statement,
        "frames_left_out": aligned.selection.num_excluded_frames,
        "tracks_left_out": aligned.selection.num_excluded_tracks,
        "observations": len(aligned.observations),
    }


MEASURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")


def comparison_rows(comparison: Mapping[str, Any]) -> list[tuple[str, list[float]]]:
    """(column, the seven measures) for a table, in the order of the columns, of one comparison's JSON."""
    return [
        (str(column).replace("_", " "), [comparison[column][measure] for measure in MEASURES])
        for column in Column
        if column in comparison
    ]
