"""True depth: which file belongs to which frame, and what is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfmttr.errors import GroundTruthError
from sfmttr.evaluation.ground_truth import find_companion_ground_truth, match_ground_truth
from sfmttr.io.depth_files import PngScale, write_depth_png
from sfmttr.types import Depth, DepthKind, FrameSet


def frames(names: list[str], numbers: list[int], *, from_video: bool = True, source_count: int = 0) -> FrameSet:
    files = tuple(f"{i:06d}.png" for i in range(len(names)))
    times = tuple(map(float, numbers))
    hw = (4, 6)
    return FrameSet(
        Path(), files, tuple(names), tuple(numbers), times, hw, hw, source_count, from_video, "0" * 64, None
    )


def video(numbers: list[int], source_count: int = 0) -> FrameSet:
    return frames([str(n) for n in numbers], numbers, source_count=source_count)


def write(folder: Path, *names: str) -> Path:
    """A PNG for each name; the value of its pixels is its position in `names`, plus one."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.full((4, 6), i + 1, np.uint16)).save(folder / name)
    return folder


def matched(frame_set: FrameSet, folder: Path) -> dict[int, str]:
    return {i: path.name for i, path in match_ground_truth(frame_set, folder, 1000).files.items()}


def test_images_by_name(tmp_path: Path) -> None:
    photos = frames(["b", "a", "c"], [0, 1, 2], from_video=False)
    assert matched(photos, write(tmp_path / "t", "a.png", "b.png", "x.png")) == {0: "b.png", 1: "a.png"}


def test_video_frames_by_number_however_it_is_written(tmp_path: Path) -> None:
    truth = write(tmp_path / "t", "depth_0000.png", "depth_0002.png", "7.png", "scene1_0005.png")
    assert matched(video([0, 2, 5, 6, 7], 8), truth) == {
        0: "depth_0000.png",
        1: "depth_0002.png",
        2: "scene1_0005.png",
        4: "7.png",
    }


def test_same_count_matches_in_order(tmp_path: Path) -> None:
    truth = write(tmp_path / "t", *(f"{i:04d}.png" for i in range(101, 105)))
    assert matched(video([0, 2, 3], 4), truth) == {0: "0101.png", 1: "0103.png", 2: "0104.png"}


def test_order_is_that_of_the_numbers_not_of_the_letters(tmp_path: Path) -> None:
    truth = write(tmp_path / "t", *(f"{i}.png" for i in range(1, 13)))
    assert matched(video([0, 1, 11], 12), truth) == {0: "1.png", 1: "2.png", 2: "12.png"}


def test_numbers_beyond_the_video_are_refused(tmp_path: Path) -> None:
    truth = write(tmp_path / "t", "1.png", "40.png")
    with pytest.raises(GroundTruthError, match="numbered up to 40 and the video has 30"):
        matched(video([0, 1], 30), truth)


def test_values_become_metres_and_zero_stays_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", "0.png")
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(folder / "0.png")
    depth = match_ground_truth(video([0]), folder, 256).read(0)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[0, 1, 65535 / 256]])


def test_files_state_their_own_scale_unless_one_is_given(tmp_path: Path) -> None:
    depth = Depth(np.full((4, 6), 3.0, np.float32), DepthKind.METRIC)
    (tmp_path / "t").mkdir()
    write_depth_png(tmp_path / "t/0.png", depth, PngScale(256.0, DepthKind.METRIC))
    assert match_ground_truth(video([0]), tmp_path / "t", None).read(0)[0, 0] == 3.0
    assert match_ground_truth(video([0]), tmp_path / "t", 128.0).read(0)[0, 0] == 6.0


def test_files_that_state_no_scale_are_in_millimetres(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", "0.png")
    assert match_ground_truth(video([0]), folder, None).read(0)[0, 0] == np.float32(0.001)


def test_truth_beside_a_clip_is_found_by_name(tmp_path: Path) -> None:
    write(tmp_path / "street.depth", "0.png")
    found = find_companion_ground_truth(tmp_path / "street.mp4")
    assert found is not None
    assert (found.folder, found.scale, found.protocol) == (tmp_path / "street.depth", None, "plain")
    assert find_companion_ground_truth(tmp_path / "street2.mp4") is None
    (tmp_path / "v1.2").mkdir()
    write(tmp_path / "v1.2.depth", "0.png")
    found = find_companion_ground_truth(tmp_path / "v1.2")
    assert found is not None, "a folder's name has no suffix to take off"
    assert found.folder.name == "v1.2.depth"


@pytest.mark.parametrize("scale", [0, -5, float("nan"), float("inf")])
def test_scale_must_be_positive(tmp_path: Path, scale: float) -> None:
    with pytest.raises(GroundTruthError, match="positive"):
        match_ground_truth(video([0]), write(tmp_path / "t", "0.png"), scale)


@pytest.mark.parametrize(("names", "words"), [([], "has no PNG"), (["77.png"], "matches a frame")])
def test_nothing_that_matches(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(GroundTruthError, match=words):
        matched(video([0, 1]), write(tmp_path / "t", *names))


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="no folder of ground truth"):
        matched(video([0]), tmp_path / "nowhere")


@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_a_picture_is_no_depth_map(tmp_path: Path, mode: str) -> None:
    folder = write(tmp_path / "t", "0.png")
    Image.new("RGB", (6, 4)).convert(mode).save(folder / "0.png")
    with pytest.raises(GroundTruthError, match="16-bit"):
        match_ground_truth(video([0]), folder, 1000).read(0)


@pytest.mark.parametrize("damage", [b"", b"not a png", None])
def test_damaged_file(tmp_path: Path, damage: bytes | None) -> None:
    folder = write(tmp_path / "t", "0.png")
    rough = np.random.default_rng(0).integers(0, 60_000, (200, 200)).astype(np.uint16)
    Image.fromarray(rough).save(folder / "0.png")
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(GroundTruthError, match=r"0\.png cannot be read"):
        match_ground_truth(video([0]), folder, 1000).read(0)
