"""`infer.py` as people run it: what it writes is what the network says, and one line for what can be put right."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import struct
import subprocess
import sys
import types
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.runtime import OnnxDepth
from sfmttr.io.depth_files import read_depth_npz, read_depth_png
from sfmttr.types import DepthKind
from sfmttr.viz import colormap
from tests.support.exported import Exported


@pytest.fixture(scope="module")
def kit(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.build_kit(tmp_path_factory.mktemp("kits") / "kit")


class Infer:
    """`python infer.py ...`, in this process."""

    def __init__(self, module: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.module, self._capsys = module, capsys
        self.said, self.error = "", ""

    def __call__(self, *arguments: str | Path) -> int:
        try:
            code = int(self.module.main([str(argument) for argument in arguments]))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        self.said, self.error = self._capsys.readouterr()
        return code


def imported(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """The module `infer` of the kit in `folder`, with the `runtime` beside it."""
    patch.syspath_prepend(folder)
    for name in ("infer", "runtime"):
        patch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("infer")


@pytest.fixture
def infer(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Infer]:
    monkeypatch.chdir(tmp_path)
    yield Infer(imported(kit, monkeypatch), capsys)
    for name in ("infer", "runtime"):
        sys.modules.pop(name, None)


@pytest.fixture
def photo(kit: Path, tmp_path: Path) -> Path:
    """A picture of another size than the clip's."""
    path = tmp_path / "photo.png"
    with Image.open(kit / "check" / "frame.png") as image:
        image.convert("RGB").resize((131, 77)).save(path)
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------- results


def test_writes_what_the_network_says(infer: Infer, kit: Path, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--out", "results") == 0
    out = tmp_path / "results"
    assert files(out) == {"depth/photo.png", "npz/photo.npz", "coloured/photo.png"}
    depth = OnnxDepth(kit / "models" / "depth-fp32.onnx").predict(np.asarray(Image.open(photo)))
    stored, name = read_depth_npz(out / "npz" / "photo.npz")
    np.testing.assert_allclose(stored.values, depth, rtol=1e-6)
    assert (stored.kind, name) == (DepthKind.SCALE_INVARIANT, "photo")
    png = read_depth_png(out / "depth" / "photo.png")
    assert png.kind is DepthKind.SCALE_INVARIANT
    np.testing.assert_allclose(png.values, depth, atol=0.501 / png.steps_per_unit)
    assert "1 picture, depth in network units" in infer.said
    assert "CPUExecutionProvider" in infer.said


def test_colours_are_those_of_the_run(infer: Infer, kit: Path, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--formats", "npz,colour") == 0
    colours = json.loads((kit / "kit.json").read_text(encoding="utf-8"))["colour_range"]
    depth, _ = read_depth_npz(tmp_path / "out" / "npz" / "photo.npz")
    expected = colormap.colorize(depth.values, colormap.ColorRange(colours["near"], colours["far"]))
    found = np.asarray(Image.open(tmp_path / "out" / "coloured" / "photo.png"))
    np.testing.assert_allclose(found, expected.astype(int), atol=1)
    assert not (tmp_path / "out" / "depth").exists()


def test_pixels_without_depth_are_marked(infer: Infer) -> None:
    depth = np.array([[1.0, np.nan, 0.0, np.inf, -1.0]], np.float32)
    coloured = infer.module.colourise(depth, 0.5, 2.0)
    np.testing.assert_array_equal(coloured[0, 1:], np.broadcast_to(colormap.NO_DEPTH, (4, 3)))


def test_range_and_variant_are_taken(infer: Infer, kit: Path, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--variant", "int8", "--range", "1", "2", "--threads", "1") == 0
    depth = OnnxDepth(kit / "models" / "depth-int8.onnx").predict(np.asarray(Image.open(photo)))
    stored, _ = read_depth_npz(tmp_path / "out" / "npz" / "photo.npz")
    np.testing.assert_array_equal(stored.values, depth)
    expected = colormap.colorize(depth, colormap.ColorRange(1.0, 2.0))
    found = np.asarray(Image.open(tmp_path / "out" / "coloured" / "photo.png"))
    np.testing.assert_allclose(found, expected.astype(int), atol=1)


def test_run_s_frames_give_the_run_s_depth(infer: Infer, exported: Exported, tmp_path: Path) -> None:
    assert infer(exported.run / "frames", "--formats", "png,npz") == 0
    theirs = sorted((exported.run / "depth" / "refined").iterdir())
    assert [path.name for path in theirs] == sorted(path.name for path in (tmp_path / "out" / "depth").iterdir())
    for path in theirs:
        run, kit = read_depth_png(path), read_depth_npz(tmp_path / "out" / "npz" / f"{path.stem}.npz")[0]
        # Half a step of the run's own PNG, and what float32 leaves open.
        np.testing.assert_allclose(kit.values, run.values, rtol=1e-4, atol=0.501 / run.steps_per_unit)


def test_exif_turns_the_picture(infer: Infer, photo: Path, tmp_path: Path) -> None:
    with Image.open(photo) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # lying on its side
        image.save(tmp_path / "turned.png", exif=exif)
    assert infer(tmp_path / "turned.png", "--formats", "npz") == 0
    depth, _ = read_depth_npz(tmp_path / "out" / "npz" / "turned.npz")
    assert depth.values.shape == (131, 77)


def test_folder_in_the_order_of_numbers(infer: Infer, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("frame10.png", "frame9.png", "Frame1.png", "notes.txt"):
        shutil.copy(photo, folder / name)
    names = [path.name for path in infer.module.pictures_in(folder)]
    assert names == ["Frame1.png", "frame9.png", "frame10.png"]


# ---------------------------------------------------------------------------------------- failures


def test_a_broken_picture_does_not_stop_the_others(infer: Infer, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    (folder / "b.png").write_bytes(photo.read_bytes()[:200])
    shutil.copy(photo, folder / "c.png")
    assert infer(folder, "--formats", "npz") == 1
    assert files(tmp_path / "out") == {"npz/a.npz", "npz/c.npz"}
    assert "b.png cannot be read as a picture" in infer.error
    assert "1 picture could not be done" in infer.error


def test_depth_beyond_the_png_is_refused_not_cut(infer: Infer, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--scale", "1e6") == 1
    assert files(tmp_path / "out") == set()
    advised = infer.error.split("--scale ")[1].split(",")[0]
    assert infer(photo, "--scale", advised) == 0


def test_a_depth_map_is_no_picture(infer: Infer, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--formats", "png") == 0
    assert infer(tmp_path / "out" / "depth" / "photo.png", "--out", "again") == 1
    assert "no colours" in infer.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either"),
        (["--check", "photo.png"], "give either"),
        (["nowhere"], "there is no nowhere"),
        (["photo.png", "--formats", "exr"], "unknown format exr"),
        (["photo.png", "--scale", "0"], "not a positive number"),
        (["photo.png", "--range", "5", "2"], "0 < NEAR < FAR"),
        (["photo.png", "--threads", "0"], "less than 1"),
        (["photo.png", "--variant", "int4"], "holds no variant 'int4'; it holds fp32"),
        (["photo.png", "--providers", "NoSuchProvider"], "NoSuchProvider"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_said_in_one_line(arguments: list[str], words: str, infer: Infer, photo: Path) -> None:
    assert infer(*arguments) == 2
    assert words in infer.error
    assert len(infer.error.splitlines()) == 1
    assert not Path("out").exists()


def test_two_pictures_of_one_name(infer: Infer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(photo, tmp_path / "other" / "Photo.PNG")
    assert infer(photo, tmp_path / "other") == 2
    assert "would both become" in infer.error


def test_a_picture_named_as_a_video_s_frame(infer: Infer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    shutil.copy(photo, tmp_path / "Clip-000007.png")
    assert infer("clip.mp4", tmp_path / "Clip-000007.png") == 2
    assert "a frame of clip.mp4 and" in infer.error
    assert "would both become Clip-000007.png" in infer.error


@pytest.mark.parametrize("error", [TypeError("float"), KeyError("tag"), EOFError(), struct.error("short")])
def test_whatever_pillow_raises_is_one_picture(
    error: Exception, infer: Infer, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photo, tmp_path / "other.png")
    opened = Image.open

    def open_picture(path: Path) -> Image.Image:
        if Path(path).name == "other.png":
            raise error
        return opened(path)

    monkeypatch.setattr(Image, "open", open_picture)
    assert infer(tmp_path / "other.png", photo, "--formats", "npz") == 1
    assert files(tmp_path / "out") == {"npz/photo.npz"}
    assert "other.png cannot be read as a picture" in infer.error


def test_folder_without_pictures(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert infer(tmp_path / "empty") == 2
    assert "holds no pictures" in infer.error


def test_results_that_cannot_be_written(infer: Infer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("precious")
    assert infer(photo, "--out", "taken") == 1
    assert "cannot be written to taken" in infer.error
    assert (tmp_path / "taken").read_text() == "precious"


# -------------------------------------------------------------------------------------- self-check


def test_self_check_passes_for_every_variant(infer: Infer, kit: Path) -> None:
    for variant in json.loads((kit / "kit.json").read_text(encoding="utf-8"))["variants"]:
        assert infer("--check", "--variant", variant) == 0
        assert f"self-check of {variant} on CPUExecutionProvider: passed" in infer.said


def test_self_check_fails_for_other_depth(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled = tmp_path / "kit"
    shutil.copytree(kit, spoiled)
    expected = np.load(spoiled / "check" / "expected.npy")
    expected[0, 0] *= 1.002
    np.save(spoiled / "check" / "expected.npy", expected)
    infer = Infer(imported(spoiled, monkeypatch), capsys)
    assert infer("--check") == 1
    assert "FAILED" in infer.said


def test_damaged_kit(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    spoiled = tmp_path / "kit"
    shutil.copytree(kit, spoiled)
    infer = Infer(imported(spoiled, monkeypatch), capsys)
    (spoiled / "models" / "depth-fp32.onnx").write_bytes(b"no model")
    assert infer("--check") == 2
    (spoiled / "kit.json").write_text("{}")
    assert infer("--check") == 2
    assert "kit.json is missing or damaged" in infer.error


# ------------------------------------------------------------------------------- videos and cameras


def fake_opencv(frames: list[np.ndarray], opens: bool = True) -> types.ModuleType:
    """OpenCV as far as `infer.py` knows it."""
    module = types.ModuleType("cv2")

    class VideoCapture:
        def __init__(self, device: int | str) -> None:
            self._frames = iter(frames)

        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return opens

        def read(self) -> tuple[bool, np.ndarray | None]:
            frame = next(self._frames, None)
            return frame is not None, frame

        def release(self) -> None:
            pass

    def imshow(*_: object) -> None:
        raise module.error("not implemented")

    module.VideoCapture = VideoCapture  # type: ignore[attr-defined]
    module.error = type("error", (Exception,), {})  # type: ignore[attr-defined]
    module.imshow = imshow  # type: ignore[attr-defined]
    return module


def test_camera_frames_are_turned_to_rgb(infer: Infer, kit: Path, photo: Path, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rgb = np.asarray(Image.open(photo))
    monkeypatch.setitem(sys.modules, "cv2", fake_opencv([rgb[:, :, ::-1]] * 2))
    assert infer("--webcam", "--formats", "npz") == 0
    assert files(tmp_path / "out") == {"npz/camera-000000.npz", "npz/camera-000001.npz"}
    stored, _ = read_depth_npz(tmp_path / "out" / "npz" / "camera-000001.npz")
    depth = OnnxDepth(kit / "models" / "depth-fp32.onnx").predict(rgb)
    np.testing.assert_allclose(stored.values, depth, rtol=1e-6)


def test_video_frames_are_numbered(infer: Infer, photo: Path, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cv2", fake_opencv([np.asarray(Image.open(photo))] * 2))
    assert infer("clip.mp4", photo, "--formats", "npz") == 0
    assert files(tmp_path / "out") == {"npz/clip-000000.npz", "npz/clip-000001.npz", "npz/photo.npz"}


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "pip install opencv-python"),
        (fake_opencv([], opens=False), "camera 3 cannot be opened"),
        (fake_opencv([]), "3 gave no frame"),
    ],
    ids=["no-opencv", "no-camera", "no-frame"],
)
def test_camera_problems(module: types.ModuleType | None, words: str, infer: Infer, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "cv2", module)
    assert infer("--webcam", "3") == 2
    assert words in infer.error
    assert len(infer.error.splitlines()) == 1


def test_opencv_without_windows(infer: Infer, photo: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "cv2", fake_opencv([]))
    assert infer(photo, "--show") == 2
    assert "leave --show out" in infer.error


# ------------------------------------------------------------------------------------- clean room


@pytest.mark.slow
def test_in_an_environment_with_three_packages(exported: Exported, kit: Path, photo: Path, tmp_path: Path) -> None:
    """The kit gives the run's depth on the run's frames where nothing but its three packages is installed."""
    python = clean_environment(tmp_path / "venv")
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not installed & {"torch", "sfmttr", "onnx", "scipy", "opencv-python", "matplotlib"}
    results = tmp_path / "results"
    for arguments in (["--check"], [str(exported.run / "frames"), "--out", str(results)]):
        ran = subprocess.run([python, "-E", "-s", str(kit / "infer.py"), *arguments], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    runs = sorted((exported.run / "depth" / "refined").iterdir())
    assert len(runs) == len(list((results / "depth").iterdir()))
    for path in runs:
        run, own = read_depth_png(path), read_depth_png(results / "depth" / path.name)
        steps = 0.501 / run.steps_per_unit + 0.501 / own.steps_per_unit
        np.testing.assert_allclose(own.values, run.values, rtol=1e-4, atol=steps)


def clean_environment(folder: Path) -> str:
    """Python with onnxruntime, numpy and pillow alone; skips the test where they cannot be had."""
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    packages = ["onnxruntime", "numpy", "pillow"]
    ran = subprocess.run([python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"pip cannot install {' '.join(packages)} here: {ran.stderr.strip().splitlines()[-1]}")
    return python
