"""report.json: what is written is read back as the same values; old, damaged and hostile files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfmttr.errors import RunFolderError
from sfmttr.evaluation.comparison import Column, ColumnErrors, Comparison, DistanceErrors
from sfmttr.evaluation.metrics import NOTHING_COMPARED, DepthMetrics
from sfmttr.io.json_files import to_plain, write_json
from sfmttr.run.report import (
    AlignmentReport,
    ComparisonReport,
    ComparisonsReport,
    FramesReport,
    RefinementReport,
    RunReport,
    SfmReport,
    read_report,
)
from sfmttr.types import DepthKind, NoModel, NoModelReason, SfmAttempt, SkippedFrame

MEASURES = {"abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "count"}
ERRORS = DepthMetrics(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, count=8)
COMPARISON = Comparison(
    "held out",
    "m",
    {
        Column.BEFORE: ColumnErrors(ERRORS, (DistanceErrors(1.0, 2.0, ERRORS),)),
        Column.AFTER: ColumnErrors(ERRORS, (DistanceErrors(1.0, 2.0, NOTHING_COMPARED),)),
    },
)
ALIGNMENT = AlignmentReport(
    scale=2.0,
    network_scale=1.5,
    strict_inlier_ratio=0.5,
    relaxed_inlier_ratio=0.75,
    rank_correlation=float("nan"),
    scale_spread=0.25,
    frame_scale={0: 1.0, 7: 1.25},
    sfm_health=1.0,
    agreement=0.5,
    trusted=True,
    statement="",
    frames_left_out=1,
    tracks_left_out=2,
    observations=100,
)
NO_MODEL = NoModel(
    (SfmAttempt("standard", 0, 0, 1.0),), total=9, advice="Walk sideways.", seconds=2.0, reason=NoModelReason.STATIC
)
REPORT = RunReport(
    schema=1,
    sfmttr="0.1",
    network="bundled",
    licence="MIT",
    kind=DepthKind.METRIC,
    preset="default",
    seed=0,
    frames=FramesReport(9, 20, (48, 64), "abc", 0, (SkippedFrame("1", "blurred"),)),
    sfm=SfmReport.of(NO_MODEL),
    alignment=ALIGNMENT,
    refinement=RefinementReport(10, 5, 1.0, False, ((0, 0.5), (5, 0.25))),
    comparison=ComparisonsReport(held_out=ComparisonReport.of(COMPARISON)),
    advice="",
    timings_s={"refine": 1.0},
)


def write_plain(folder: Path, change: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(to_plain(REPORT) | change))


def test_json_holds_every_measure_of_every_column() -> None:
    plain = to_plain(ComparisonReport.of(COMPARISON))
    assert plain.keys() == {"protocol", "unit", "before", "after"}
    assert plain["before"].keys() == MEASURES | {"by_distance"}
    assert plain["after"]["by_distance"][0].keys() == MEASURES | {"near", "far"}


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", REPORT)
    read = read_report(tmp_path)
    assert read.alignment is not None
    assert math.isnan(read.alignment.rank_correlation)
    assert replace(read.alignment, rank_correlation=0.0) == replace(ALIGNMENT, rank_correlation=0.0)
    assert read.comparison.held_out is not None
    assert read.comparison.held_out.before == REPORT.comparison.held_out.before  # type: ignore[union-attr]
    assert list(read.comparison.held_out.columns) == [Column.BEFORE, Column.AFTER]
    assert to_plain(read) == to_plain(REPORT)
    assert (read.frames, read.sfm, read.refinement) == (REPORT.frames, REPORT.sfm, REPORT.refinement)


def test_keys_are_written_in_the_order_that_readers_of_the_file_know() -> None:
    plain = to_plain(REPORT)
    heads = "schema sfmttr network licence kind preset objective seed frames sfm alignment refinement comparison"
    assert list(plain) == [*heads.split(), "advice", "timings_s"]
    assert list(plain["comparison"]) == ["held_out", "held_out_frames", "ground_truth"]
    assert plain["alignment"]["shift"] is None
    assert plain["sfm"]["advice"] == "Walk sideways."


def test_an_old_report_without_later_keys_is_read(tmp_path: Path) -> None:
    plain = to_plain(REPORT)
    del plain["licence"], plain["objective"], plain["alignment"]["shift"]
    (tmp_path / "report.json").write_text(json.dumps(plain))
    read = read_report(tmp_path)
    assert (read.licence, read.objective) == ("", "sfm")
    assert read.alignment is not None
    assert read.alignment.shift is None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "zero"},
        {"seed": 10**40},
        {"kind": "colour"},
        {"alignment": {"scale": 1.0}},
        {"alignment": None},
        {"comparison": {"held_out": {"protocol": "p", "unit": "m", "after": {"abs_rel": "0.1"}}}},
        {"comparison": []},
        {"frames": None},
        {"timings_s": {"refine": "long"}},
    ],
)
def test_a_report_of_other_values_ends_in_one_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    write_plain(tmp_path, change)
    with pytest.raises(RunFolderError, match="damaged or from another version"):
        read_report(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"seed": ' + "9" * 10_000 + "}", "\udcff"])
def test_what_is_no_report_ends_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunFolderError, match="damaged or from another version"):
        read_report(tmp_path)


def test_a_report_of_a_newer_version_says_so(tmp_path: Path) -> None:
    write_plain(tmp_path, {"schema": 2, "sfmttr": "9.9", "seed": "of another kind"})
    with pytest.raises(RunFolderError, match=r"newer sfmttr \(9.9\); update sfmttr"):
        read_report(tmp_path)
