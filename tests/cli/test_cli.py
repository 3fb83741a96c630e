"""The command line: quick help, and one line for everything that can be put right."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfmttr import networks
from sfmttr.cli.main import build_parser, main
from sfmttr.cli.refine import run_config
from sfmttr.config import Preset, RunConfig
from sfmttr.networks.base import state_dict_cpu
from sfmttr.run import pipeline
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, register_tiny
from tools.synthetic import RenderedClip, render_textureless, write_frames, write_video


@pytest.fixture(scope="module")
def clips(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`room/` (PNGs) and `room.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    write_frames(room, folder / "room")
    write_video(room, folder / "room.mp4")
    return folder


class Command:
    """`sfmttr refine` with a tiny network and no real structure-from-motion."""

    def __init__(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.out, self._capsys = out, capsys
        self.error = ""

    def refine(self, clip: Path, *more: str, network: str = TINY) -> int:
        quiet = ["--device", "cpu", "--steps", "2", "--no-pictures", "--no-clouds"]
        try:
            code = main(["refine", str(clip), "--out", str(self.out), "--network", network, *quiet, *more])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        self.error = self._capsys.readouterr().err
        return code

    def is_refused(self, clip: Path, *more: str, network: str = TINY) -> str:
        """The one line that says why; nothing was written."""
        assert self.refine(clip, *more, network=network) == 2
        assert not self.out.exists()
        lines = self.error.splitlines()
        assert len(lines) == 1, self.error
        assert lines[0].startswith("sfmttr")
        return lines[0]


@pytest.fixture
def command(
    room: RenderedClip, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    register_tiny(monkeypatch, tmp_path / "weights")
    FakeSfm(room).install(monkeypatch)
    return Command(tmp_path / "run", capsys)


# ------------------------------------------------------------------------------------------ help


def test_help_imports_no_torch() -> None:
    code = """
import sys
from sfmttr.cli.main import main
for command in ([], ["refine"], ["evaluate"], ["evaluate", "kitti"], ["networks"], ["export"], ["page"]):
    try:
        main([*command, "--help"])
    except SystemExit as exit:
        assert exit.code == 0
heavy = {"torch", "scipy", "matplotlib", "pycolmap", "av", "PIL.ImageDraw", "onnx", "gradio"} & set(sys.modules)
assert not heavy, heavy
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("usage: sfmttr") == 7


def test_module_runs_as_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "sfmttr", "refine"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == ["sfmttr refine: the following arguments are required: clip (see --help)"]


def test_defaults_are_those_of_the_configuration() -> None:
    assert run_config(build_parser().parse_args(["refine", "clip.mp4"])) == RunConfig()


def test_options_reach_the_configuration() -> None:
    given = "refine c.mp4 --preset paper --steps 9 --seed 4 --max-frames 30 --start 1.5 --hold-out-frames --force"
    config = run_config(build_parser().parse_args([*given.split(), "--intrinsics", "1,2,3,4", "--sfm", "model"]))
    assert (config.preset, config.steps, config.seed, config.force) == (Preset.PAPER, 9, 4, True)
    assert (config.video.max_frames, config.video.start_s, config.split.hold_out_frames) == (30, 1.5, 8)
    assert (config.intrinsics, config.sfm.model_folder, config.recipe.refine.steps) == ("1,2,3,4", Path("model"), 9)


def test_networks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in networks.names())


# ------------------------------------------------------------------------------------- good ends


def test_refine_then_evaluate(clips: Path, command: Command, room: RenderedClip, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for i, depth in enumerate(room.depth):
        Image.fromarray((1000 * depth).astype(np.uint16)).save(truth / f"{i}.png")
    assert command.refine(clips / "room.mp4") == 0
    assert main(["evaluate", str(command.out), "--ground-truth", str(truth)]) == 0
    assert (command.out / "evaluation.json").is_file()


def test_summary_says_where_everything_is(
    clips: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run [a b]" / ("long" * 30)
    arguments = ["--network", TINY, "--steps", "2", "--device", "cpu", "--no-pictures", "--no-clouds"]
    assert main(["refine", str(clips / "room"), "--out", str(out), *arguments]) == 0
    shown = capsys.readouterr()
    assert f"Everything is in {out}" in shown.out
    assert shown.err == ""


def test_textureless_clip_ends_without_refinement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch, tmp_path / "weights")
    clip = tmp_path / "wall"
    write_frames(render_textureless(6, (96, 128), noise=8), clip)  # as noisy as that, frames do not look alike
    quiet = ["--network", TINY, "--device", "cpu", "--no-pictures", "--no-clouds"]
    assert main(["refine", str(clip), "--out", str(tmp_path / "run"), *quiet]) == 3
    assert (tmp_path / "run" / "report.json").is_file()


# ------------------------------------------------------------------------------------- bad clips


def text_file(folder: Path, clips: Path) -> Path:
    (folder / "notes.mp4").write_text("no video\n" * 50)
    return folder / "notes.mp4"


def truncated_video(folder: Path, clips: Path) -> Path:
    whole = (clips / "room.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    return folder / "cut.mp4"


def empty_video(folder: Path, clips: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def empty_folder(folder: Path, clips: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def pictures(folder: Path, images: list[np.ndarray]) -> Path:
    clip = folder / "pictures"
    clip.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(clip / f"{i}.png")
    return clip


def rough(hw: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (hw[0] // 8, hw[1] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def two_frames(folder: Path, clips: Path) -> Path:
    return pictures(folder, [rough((96, 128), i) for i in range(2)])


def still_camera(folder: Path, clips: Path) -> Path:
    return pictures(folder, [rough((96, 128), 0)] * 8)


def mixed_sizes(folder: Path, clips: Path) -> Path:
    return pictures(folder, [rough((96, 128), 0), rough((96, 128), 1), rough((64, 128), 2)])


def climbing_zip(folder: Path, clips: Path) -> Path:
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        for name in ("../../evil.png", "a.png", "b.png", "c.png"):
            archive.writestr(name, (clips / "room" / "000000.png").read_bytes())
    return folder / "evil.zip"


def nothing_there(folder: Path, clips: Path) -> Path:
    return folder / "nowhere.mp4"


BAD_CLIPS: dict[Callable[[Path, Path], Path], str] = {
    text_file: "notes.mp4",
    truncated_video: "cut.mp4",
    empty_video: "empty",
    empty_folder: "nothing",
    two_frames: "2 usable frames",
    still_camera: "does not move",
    mixed_sizes: "pixels",
    climbing_zip: "evil",
    nothing_there: "no clip at",
}


@pytest.mark.parametrize(("make", "words"), BAD_CLIPS.items(), ids=[make.__name__ for make in BAD_CLIPS])
def test_bad_clip(
    make: Callable[[Path, Path], Path], words: str, clips: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    assert words in command.is_refused(make(tmp_path / "bad", clips))
    assert not list(tmp_path.rglob("evil.png"))


def test_dangling_link_among_pictures(clips: Path, command: Command, tmp_path: Path) -> None:
    clip = pictures(tmp_path, [rough((96, 128), i) for i in range(2)])
    (clip / "2.png").symlink_to(tmp_path / "gone.png")
    assert "2 usable frames" in command.is_refused(clip)


# ----------------------------------------------------------------------------------- bad options


def test_unknown_network(clips: Path, command: Command) -> None:
    line = command.is_refused(clips / "room", network="meter-xxs-kity")
    assert "did you mean meter-xxs-kitti" in line


def test_missing_weights(clips: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SFMTTR_WEIGHTS")
    line = command.is_refused(clips / "room", network="rt-monodepth-s")
    assert "m_640_192_encoder.pth is missing" in line
    assert "get it from https://" in line


def test_wrong_weights(clips: Path, command: Command, tmp_path: Path) -> None:
    state = dict(state_dict_cpu(TinyNetwork()))
    torch.save({**state, "head.bias": torch.zeros(7)}, tmp_path / "weights" / "tiny.pt")
    assert "does not fit this network" in command.is_refused(clips / "room")


def test_damaged_weights(clips: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "weights" / "tiny.pt").write_bytes(b"PK\3\4 no weights")
    assert "damaged" in command.is_refused(clips / "room")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--intrinsics", "500,500,64"], "hold 3 values"),
        pytest.param(["--intrinsics", "500,500,640,480"], "outside the image"),
        pytest.param(["--ground-truth", "nowhere"], "no folder of ground truth"),
        pytest.param(["--device", "tpu"], "no device 'tpu'"),
        (["--steps", "0"], "argument --steps: 0 is less than 1"),
        (["--steps", "many"], "not an integer"),
        (["--seed", "-1"], "argument --seed"),
        (["--max-frames", "0"], "argument --max-frames"),
        (["--long-side", "0"], "argument --long-side"),
        (["--hold-out-frames", "-3"], "argument --hold-out-frames"),
        (["--preset", "best"], "argument --preset"),
        (["--no-such-option"], "unrecognized arguments"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, list) else "",
)
def test_bad_option(options: list[str], words: str, clips: Path, command: Command) -> None:
    assert words in command.is_refused(clips / "room", *options)


def test_intrinsics_of_another_aspect(clips: Path, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "camera.json"
    file.write_text('{"fx": 500, "fy": 500, "cx": 320, "cy": 320, "width": 640, "height": 640}')
    assert command.refine(clips / "room", "--intrinsics", str(file)) == 2
    assert "another aspect" in command.error


def test_what_a_late_refusal_leaves_can_be_gone_on_with(clips: Path, command: Command) -> None:
    assert command.refine(clips / "room", "--ground-truth", "nowhere") == 2
    assert not (command.out / "report.json").exists()
    assert command.refine(clips / "room") == 0


# ------------------------------------------------------------------------------------ out folder


def test_folder_that_is_not_ours(clips: Path, command: Command) -> None:
    command.out.mkdir()
    (command.out / "thesis.tex").write_text("precious")
    assert command.refine(clips / "room") == 2
    assert "holds other files and no run" in command.error
    assert [path.name for path in command.out.iterdir()] == ["thesis.tex"]


def test_out_is_a_file(clips: Path, command: Command) -> None:
    command.out.write_text("precious")
    assert command.refine(clips / "room") == 2
    assert "is a file" in command.error
    assert command.out.read_text() == "precious"


def test_clip_as_its_own_run_folder(clips: Path, command: Command) -> None:
    command.out = clips / "room"
    before = sorted(path.name for path in command.out.iterdir())
    assert command.refine(clips / "room") == 2
    assert sorted(path.name for path in command.out.iterdir()) == before


def test_interrupt_is_said(clips: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    assert command.refine(clips / "room") == 130
    assert "the same command again to resume" in command.error


# -------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("content", [None, "{}", "[]", "no json"])
def test_evaluating_what_is_no_run(tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    if content is not None:
        (tmp_path / "run" / "report.json").write_text(content)
    assert main(["evaluate", str(tmp_path / "run"), "--ground-truth", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_evaluating_against_what_is_no_truth(clips: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.refine(clips / "room") == 0
    for folder, words in (("nowhere", "no folder of ground truth"), (str(clips / "room"), "is a picture")):
        assert main(["evaluate", str(command.out), "--ground-truth", folder]) == 2
        assert words in capsys.readouterr().err
    assert not (command.out / "evaluation.json").exists()
    (command.out / "report.json").write_text("{}")
    assert main(["evaluate", str(command.out), "--ground-truth", str(clips / "room")]) == 2
    assert "damaged" in capsys.readouterr().err
