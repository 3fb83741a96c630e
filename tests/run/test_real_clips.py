"""From a real clip and a real network to figures on ground truth. Slow; needs the shared data and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfmttr.config import GroundTruthConfig, OutputConfig, Preset, RunConfig
from sfmttr.evaluation.comparison import Column
from sfmttr.io.depth_files import read_depth_png
from sfmttr.run import pipeline
from sfmttr.run.results import RunResult
from tests.support.data_paths import data_root, existing, weights_root

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: both presets learn from the same reconstruction."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def drive(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    data = existing(data_root())
    monkeypatch.setenv("SFMTTR_CACHE", str(cache))
    return RunConfig(
        network="meter-xxs-kitti",
        weights_dir=existing(weights_root()),
        ground_truth=GroundTruthConfig(data / "kitti_drive_0002/groundtruth", 256.0, "kitti"),
        output=OutputConfig(pictures=False, clouds=False),
    )


def run(config: RunConfig, out: Path) -> RunResult:
    return pipeline.run(existing(data_root()) / "clips/kitti_drive_0002.mp4", out, config)


def abs_rel(result: RunResult, column: Column) -> float:
    comparison = result.comparisons["ground_truth"]
    assert comparison is not None
    return comparison.columns[column].overall.abs_rel


def test_paper_preset_on_drive_0002(drive: RunConfig, tmp_path: Path) -> None:
    result = run(replace(drive, preset=Preset.PAPER), tmp_path / "run")
    assert abs_rel(result, Column.BEFORE) == pytest.approx(0.0635, abs=0.0015)
    assert abs_rel(result, Column.AFTER) < 0.035
    assert result.refined is not None
    assert not result.refined.rolled_back


def test_default_preset_on_drive_0002(drive: RunConfig, tmp_path: Path) -> None:
    result = run(drive, tmp_path / "run")
    assert abs_rel(result, Column.AFTER) < 0.029
    assert abs_rel(result, Column.AFTER_FUSED) < 0.026
    depth = read_depth_png(tmp_path / "run/depth/refined/000030.png")
    assert depth.values.shape == result.frames.hw
    assert 5 < np.median(depth.values) < 40, "metres"
