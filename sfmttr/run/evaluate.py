"""`evaluate`: a finished run against ground truth that it may not have known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfmttr.config import GroundTruthConfig
from sfmttr.errors import GroundTruthError, RunFolderError
from sfmttr.evaluation.comparison import Column, Comparison, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import match_ground_truth
from sfmttr.evaluation.metrics import protocol
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.json_files import read_json, write_json
from sfmttr.refinement.observations import held_out_frames
from sfmttr.run.results import REPORT
from sfmttr.types import DepthKind

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """Every column of a run against ground truth."""

    network: str
    preset: str
    comparisons: dict[str, Comparison]
    """ground_truth, and ground_truth_held_out_frames when the run held frames out."""
    path: Path


def evaluate_run(run: Path, truth_config: GroundTruthConfig) -> Evaluation:
    """Compare, and write `evaluation.json` into the run folder.

    Raises `RunFolderError` when `run` is not a finished run, `GroundTruthError` when nothing matches.
    """
    if not (run / REPORT).is_file():
        raise RunFolderError(f"{run} is not a finished run: there is no {REPORT} in it.")
    report = _read_report(run)
    frames = loader.frame_set_from_folder(run / "frames")
    maps = _read_columns(run, report)
    truth = match_ground_truth(frames, truth_config.folder, truth_config.scale)
    rules = protocol(truth_config.protocol, median_scaling=truth_config.median_scaling)
    kind = DepthKind(report["kind"])
    held_out = held_out_frames(len(frames), report["frames"]["hold_out_block"])
    wanted: dict[str, np.ndarray | None] = {"ground_truth": None}
    if held_out.any():
        wanted["ground_truth_held_out_frames"] = held_out
    comparisons = {}
    for name, chosen in wanted.items():
        comparison = compare_with_ground_truth(maps, kind, truth, rules, chosen)
        if comparison is not None:
            comparisons[name] = comparison
    if not comparisons:
        raise GroundTruthError("No frame of this run has ground truth.")
    path = run / EVALUATION
    write_json(path, {name: comparison.to_json() for name, comparison in comparisons.items()})
    return Evaluation(report["network"], report["preset"], comparisons, path)


def _read_report(run: Path) -> dict[str, Any]:
    """`report.json` with all that is read from it here. Raises `RunFolderError` when it is damaged."""
    report = read_json(run / REPORT)
    try:
        _ = report["network"], report["preset"], DepthKind(report["kind"]), report["frames"]["hold_out_block"]
        if report["refinement"] is not None:
            _ = float(report["alignment"]["network_scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{run / REPORT} is damaged or from another version; run refine again.") from error
    return dict(report)


def _read_columns(run: Path, report: dict[str, Any]) -> dict[Column, np.ndarray]:
    """The depth maps of every column that the run has."""
    folder = run / "depth"
    refined = report["refinement"] is not None  # else what lies there beyond `before` is an earlier run's
    wanted = Column if refined else [Column.BEFORE]
    stored = [column for column in wanted if (folder / f"{column}.npz").is_file()]
    maps = {column: depth_maps.read_maps(folder / f"{column}.npz") for column in stored}
    if Column.BEFORE not in maps:
        raise RunFolderError(f"{folder} holds no depth; run refine again.")
    if refined:
        maps[Column.ALIGNED] = depth_maps.read_aligned(folder, report["alignment"]["network_scale"])
    return {column: maps[column] for column in Column if column in maps}
