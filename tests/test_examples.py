"""Out of the box: the bundled clips and network, with no network connection and without a flag."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from sfmttr import networks
from sfmttr.config import OutputConfig, RunConfig
from sfmttr.evaluation.comparison import Column
from sfmttr.evaluation.ground_truth import find_companion_ground_truth
from sfmttr.io.depth_files import read_depth_png
from sfmttr.networks.lookup import entry
from sfmttr.networks.weights import SHIPPED_FOLDER, find, sha256_of
from sfmttr.run import pipeline

CLIPS = ("street", "room")
MEGABYTE = 1_000_000


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing may be fetched, and nothing was fetched before."""

    def refuse(*arguments: object) -> None:
        raise OSError("no network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("SFMTTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SFMTTR_WEIGHTS", raising=False)


def test_bundled_is_the_default_and_its_weights_are_the_registered_ones(offline: None) -> None:
    name = RunConfig().network
    (file,) = entry(name).files
    path = find(file)
    assert path is not None
    assert path.parent == SHIPPED_FOLDER
    assert sha256_of(path) == file.sha256
    assert path.stat().st_size <= 8 * MEGABYTE
    assert sum(parameter.numel() for parameter in networks.load(name).parameters()) <= 2_000_000


@pytest.mark.parametrize("name", CLIPS)
def test_clip_and_its_truth_are_complete_and_small(name: str) -> None:
    clip = SHIPPED_FOLDER / f"{name}.mp4"
    assert clip.stat().st_size <= 3 * MEGABYTE
    truth = find_companion_ground_truth(clip)
    assert truth is not None
    files = sorted(truth.folder.glob("*.png"))
    assert len(files) == 60
    assert sum(file.stat().st_size for file in files) <= 6 * MEGABYTE
    depth = read_depth_png(files[0])
    assert (depth.values > 0).mean() > 0.5
    recorded = json.loads((SHIPPED_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert recorded["command"].startswith("python -m tools.render_scene clip")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("street", 0.53), ("room", 0.5)])
def test_error_falls_against_true_depth_without_a_flag(offline: None, name: str, share: float, tmp_path: Path) -> None:
    config = RunConfig(output=OutputConfig(pictures=False, clouds=False))
    result = pipeline.run(SHIPPED_FOLDER / f"{name}.mp4", tmp_path / "run", config)
    comparison = result.comparisons["ground_truth"]
    assert comparison is not None, "the truth beside the clip was not found"
    errors = {column: values.overall.abs_rel for column, values in comparison.columns.items()}
    assert errors[Column.AFTER] <= share * errors[Column.BEFORE]
    shutil.rmtree(tmp_path / "run")
