"""Depth files: what is written comes back, and says what it is."""

import sys

import numpy as np
import pytest
from PIL import Image

from sfmttr.errors import DepthKindError, GroundTruthError, RunFolderError
from sfmttr.io.depth_files import (
    PngScale,
    choose_png_scale,
    read_depth_exr,
    read_depth_npz,
    read_depth_png,
    read_ground_truth,
    write_depth_exr,
    write_depth_npz,
    write_depth_png,
)
from sfmttr.types import Depth, DepthKind

METRIC, UNITS, DISPARITY = DepthKind


def _depth(kind=METRIC, most=60.0):
    values = np.random.default_rng(0).uniform(0.01, most, (37, 51)).astype(np.float32)
    return Depth(values, kind)


@pytest.mark.parametrize(
    ("kind", "most", "steps"),
    [
        (METRIC, 5.0, 1000),
        (METRIC, 65.5, 1000),
        (METRIC, 80.0, 256),
        (METRIC, 255.9, 256),
        (METRIC, 300.0, 100),
        (METRIC, 7000.0, 1),
        (UNITS, 1.0, 50000),
        (UNITS, 100.0, 500),
        (UNITS, 0.0031, 2e7),
        (UNITS, 65535.0, 1),
    ],
)
def test_scale_is_round_and_holds_the_clip(kind, most, steps):
    scale = choose_png_scale(kind, most)
    assert scale.steps_per_unit == pytest.approx(steps)
    assert scale.max_depth >= most


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan"), float("inf")])
def test_no_scale_for_no_depth(most):
    with pytest.raises(ValueError, match="positive depth"):
        choose_png_scale(METRIC, most)


@pytest.mark.parametrize(("kind", "most"), [(METRIC, 60.0), (METRIC, 200.0), (UNITS, 3.7)])
def test_png_round_trip_within_half_a_step(tmp_path, kind, most):
    depth, scale = _depth(kind, most), choose_png_scale(kind, most)
    write_depth_png(tmp_path / "d.png", depth, scale)
    read = read_depth_png(tmp_path / "d.png")
    assert read.kind is kind
    assert read.steps_per_unit == scale.steps_per_unit
    float_rounding = most * np.finfo(np.float32).eps
    assert np.abs(read.values - depth.values).max() <= 0.5 / scale.steps_per_unit + float_rounding


def test_png_says_in_words_what_it_holds(tmp_path):
    write_depth_png(tmp_path / "d.png", _depth(), choose_png_scale(METRIC, 60))
    with Image.open(tmp_path / "d.png") as image:
        assert image.mode == "I;16"
        assert image.text["Description"] == "depth = value / 1000 metres; 0 = no depth; camera z"
        assert image.text["sfmttr:depth_scale"] == "1000"
        assert image.text["sfmttr:depth_unit"] == "metres"


def test_no_depth_is_zero_and_the_nearest_depth_is_not(tmp_path):
    values = np.array([[np.nan, 0.0, 1e-6, 1.0]], np.float32)
    write_depth_png(tmp_path / "d.png", Depth(values, METRIC), PngScale(1000, METRIC))
    assert read_depth_png(tmp_path / "d.png").values.tolist() == [[0.0, 0.0, np.float32(0.001), 1.0]]


@pytest.mark.parametrize("value", [65.6, np.inf, -1.0])
def test_png_never_saturates(tmp_path, value):
    depth = Depth(np.full((2, 2), value, np.float32), METRIC)
    with pytest.raises(ValueError, match=r"beyond|negative"):
        write_depth_png(tmp_path / "d.png", depth, PngScale(1000, METRIC))
    assert not list(tmp_path.iterdir())


def test_kinds_do_not_mix(tmp_path):
    with pytest.raises(DepthKindError):
        write_depth_png(tmp_path / "d.png", _depth(UNITS), PngScale(1000, METRIC))
    with pytest.raises(DepthKindError, match="npz or EXR"):
        choose_png_scale(DISPARITY, 1.0)


def test_png_without_a_scale_needs_one(tmp_path):
    Image.fromarray(np.full((2, 2), 512, np.uint16)).save(tmp_path / "kitti.png")
    with pytest.raises(RunFolderError, match="does not state"):
        read_depth_png(tmp_path / "kitti.png")
    assert read_depth_png(tmp_path / "kitti.png", 256).values.tolist() == [[2.0, 2.0]] * 2


def test_eight_bit_and_damaged_png_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 5, np.uint8)).save(tmp_path / "eight.png")
    write_depth_png(tmp_path / "cut.png", _depth(), choose_png_scale(METRIC, 60))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    for name, message in (("eight.png", "16-bit"), ("cut.png", "cannot be read"), ("none.png", "cannot be read")):
        with pytest.raises(GroundTruthError, match=message):
            read_ground_truth(tmp_path / name, 256)


@pytest.mark.parametrize("kind", [METRIC, DISPARITY])
def test_npz_is_exact(tmp_path, kind):
    depth = _depth(kind)
    write_depth_npz(tmp_path / "d.npz", depth, "0000000005")
    read, name = read_depth_npz(tmp_path / "d.npz")
    assert name == "0000000005"
    assert read.kind is kind
    np.testing.assert_array_equal(read.values, depth.values)


def test_npz_that_is_not_ours(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.zeros((2, 2), np.float32))
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 nonsense")
    np.savez(tmp_path / "c.npz", depth=np.array([object()]), kind="metric", name="x")
    for name in "abc":
        with pytest.raises(RunFolderError):
            read_depth_npz(tmp_path / f"{name}.npz")


def test_exr_is_exact(tmp_path):
    pytest.importorskip("OpenEXR")
    write_depth_exr(tmp_path / "d.exr", _depth(), "frame")
    read = read_depth_exr(tmp_path / "d.exr")
    assert read.kind is METRIC
    np.testing.assert_array_equal(read.values, _depth().values)


def test_exr_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(RunFolderError, match="pip install OpenEXR"):
        write_depth_exr(tmp_path / "d.exr", _depth(), "frame")


def test_exr_on_a_full_disk(tmp_path, monkeypatch):
    exr = pytest.importorskip("OpenEXR")

    def write(*_):
        raise RuntimeError("Failed to write pixel data. No space left on device.")

    monkeypatch.setattr(exr.File, "write", write)
    with pytest.raises(RunFolderError, match="is full; free some space"):
        write_depth_exr(tmp_path / "d.exr", _depth(), "frame")
    assert not list(tmp_path.iterdir())


def test_damaged_exr(tmp_path):
    pytest.importorskip("OpenEXR")
    (tmp_path / "d.exr").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="EXR"):
        read_depth_exr(tmp_path / "d.exr")


def test_ground_truth_from_arrays(tmp_path):
    raw = np.array([[512.0, 0, -1], [np.nan, np.inf, 256]])
    np.save(tmp_path / "a.npy", raw)
    np.savez(tmp_path / "b.npz", depth=raw / 256)
    for name, scale in (("a.npy", 256.0), ("b.npz", None)):
        assert read_ground_truth(tmp_path / name, scale).tolist() == [[2, 0, 0], [0, 0, 1]]
    np.savez(tmp_path / "c.npz", z=raw)
    with pytest.raises(GroundTruthError, match="no array named 'depth'"):
        read_ground_truth(tmp_path / "c.npz")
