"""The command `evaluate`: compare a finished run with ground truth, which the run need not have known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfmttr.config import GroundTruthConfig
from sfmttr.errors import GroundTruthError, RunFolderError
from sfmttr.evaluation.comparison import Column, Comparison, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import match_ground_truth
from sfmttr.evaluation.metrics import protocol
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.json_files import write_json
from sfmttr.refinement.observations import held_out_frames
from sfmttr.run.manifest import REPORT
from sfmttr.run.report import ComparisonReport, RunReport, read_report

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """Errors of every column of a run against ground truth."""

    network: str
    preset: str
    comparisons: dict[str, Comparison]
    """By name: ground_truth, and ground_truth_held_out_frames when the run held frames out."""
    path: Path


def evaluate_run(run: Path, truth_config: GroundTruthConfig) -> Evaluation:
    """Compare the depth of a finished run with ground truth, and write `evaluation.json` into the run folder.

    Raises `RunFolderError` when `run` is not a finished run, `GroundTruthError` when nothing matches.
    """
    if not (run / REPORT).is_file():
        raise RunFolderError(f"{run} is not a finished run: there is no {REPORT} in it.")
    report = read_report(run)
    frames = loader.frame_set_from_folder(run / "frames")
    maps = _read_columns(run, report)
    truth = match_ground_truth(frames, truth_config.folder, truth_config.scale)
    rules = protocol(truth_config.protocol, median_scaling=truth_config.median_scaling)
    kind = report.kind
    held_out = held_out_frames(len(frames), report.frames.hold_out_block)
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
    write_json(path, {name: ComparisonReport.of(comparison) for name, comparison in comparisons.items()})
    return Evaluation(report.network, report.preset, comparisons, path)


def _read_columns(run: Path, report: RunReport) -> dict[Column, np.ndarray]:
    """Return the depth maps of every column that the run has."""
    folder = run / "depth"
    # Without refinement, files other than `before` are those of an earlier run.
    alignment = report.alignment if report.refinement is not None else None
    wanted = [Column.BEFORE] if alignment is None else Column
    stored = [column for column in wanted if (folder / f"{column}.npz").is_file()]
    maps = {column: depth_maps.read_maps(folder / f"{column}.npz") for column in stored}
    if Column.BEFORE not in maps:
        raise RunFolderError(f"{folder} holds no depth; run refine again.")
    if alignment is not None:
        maps[Column.ALIGNED] = depth_maps.read_aligned(folder, alignment.network_scale)
    return {column: maps[column] for column in Column if column in maps}
