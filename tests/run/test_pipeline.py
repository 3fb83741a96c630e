"""A whole run on a rendered clip: what it writes, when it stops, what a second call does."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from export.exporter import ExportConfig, export_run
from export.spec import Variant
from sfmttr import networks
from sfmttr.api import refine_clip
from sfmttr.cli.main import main
from sfmttr.config import (
    RECIPES,
    FuseConfig,
    GroundTruthConfig,
    OutputConfig,
    Preset,
    Recipe,
    RunConfig,
    SfmConfig,
    SplitConfig,
    TrainableScope,
    VideoConfig,
)
from sfmttr.errors import Cancelled, RunFolderError, SfmttrError
from sfmttr.evaluation.comparison import Column
from sfmttr.frames import loader
from sfmttr.geometry import resize_numpy
from sfmttr.io import depth_maps
from sfmttr.networks.base import state_dict_cpu
from sfmttr.networks.inference import predict_maps
from sfmttr.refinement.observations import Observations
from sfmttr.refinement.trust_gate import Trust
from sfmttr.run import align_stage, fuse_stage, pipeline, refine_stage, stages
from sfmttr.run.evaluate import evaluate_run
from sfmttr.run.folder import RunFolder
from sfmttr.run.frames_stage import clip_identity
from sfmttr.run.manifest import read_manifest
from sfmttr.run.results import RunResult
from sfmttr.sfm.protocol import SfmPhase
from sfmttr.types import Progress, ResultOrigin
from sfmttr.viz import colormap
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny
from tools.synthetic import RenderedClip, write_frames, write_ground_truth

# Recorded by a run of a network that predicts depth.
STAGES = tuple(
    stage.name
    for stage in stages.STAGES
    if stage.name not in ("weights", "disparity", "aligned", "compare", "export", "kit")
)
MEASURES = {"abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "count"}
CONFIG = RunConfig(
    network=TINY,
    steps=6,
    device="cpu",
    split=SplitConfig(hold_out_frames=3),
    video=VideoConfig(duplicate_threshold=0.0),
    output=OutputConfig(pictures=False, clouds=False),
)


@pytest.fixture(scope="module")
def assets(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clip/` (PNGs), `truth/`, and `state.pt`: weights that half fit the clip."""
    folder = tmp_path_factory.mktemp("assets")
    write_frames(room, folder / "clip")
    truth = write_ground_truth(room, folder / "truth")
    for i in range(len(room)):
        (truth / f"{i}.png").rename(truth / f"{i:06d}.png")  # named as the pictures are
    torch.manual_seed(0)
    torch.save(dict(state_dict_cpu(fit(TinyNetwork(), room, steps=15))), folder / "state.pt")
    return folder


class Bench:
    """Runs of the same clip into the same folder."""

    def __init__(self, assets: Path, out: Path, sfm: FakeSfm) -> None:
        self.assets, self.out, self.sfm = assets, out, sfm

    def run(self, config: RunConfig = CONFIG, on_progress: Callable[[Progress], None] = lambda _: None) -> RunResult:
        return pipeline.run(self.assets / "clip", self.out, config, on_progress)

    def stages_made(self, config: RunConfig = CONFIG) -> set[str]:
        """Run again; the stages that were not already done."""
        done: set[str] = set()

        def note(progress: Progress) -> None:
            if progress.origin is ResultOrigin.RUN_FOLDER:
                done.add(progress.stage)

        self.run(config, note)
        return set(STAGES) - done

    def truth(self, **changes: Any) -> RunConfig:
        return replace(CONFIG, ground_truth=GroundTruthConfig(self.assets / "truth"), **changes)

    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "report.json").read_text())

    def stages(self) -> list[str]:
        return [record.name for record in read_manifest(self.out).stages]

    def missing(self) -> list[str]:
        """Files that the manifest has and the disk has not."""
        records = read_manifest(self.out).stages
        return [name for record in records for name in record.files if not (self.out / name).is_file()]


@pytest.fixture
def bench(assets: Path, room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    register_tiny(monkeypatch, tmp_path / "weights", torch.load(assets / "state.pt"))
    return Bench(assets, tmp_path / "run", FakeSfm(room).install(monkeypatch))


@pytest.fixture(scope="module")
def finished(assets: Path, room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A run with ground truth, to be looked at only."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch, folder / "weights", torch.load(assets / "state.pt"))
        bench = Bench(assets, folder / "run", FakeSfm(room).install(patch))
        bench.run(bench.truth(steps=30))
        yield bench


CLOSED = {"score": 0.2, "outliers": 0.8, "noise": 0.8}
"""A reconstruction that fits neither itself nor the network."""


def reconstructing(phase: SfmPhase, attempt: str = "standard") -> Progress:
    return Progress("sfm", 1, 2, phase=phase, attempt=attempt)


def recipe(**changes: Any) -> Recipe:
    base = RECIPES[Preset.DEFAULT]
    return replace(base, refine=replace(base.refine, **changes))


# ------------------------------------------------------------------------------- what is written


def test_every_file_is_there(bench: Bench, room: RenderedClip) -> None:
    result = bench.run(replace(CONFIG, output=OutputConfig(exr=True)))
    singles = ["manifest.json", "report.json", "refined.safetensors", "refinement.json", "comparison.mp4"]
    singles += [f"depth/{name}.npz" for name in ("before", "after", "before_fused", "after_fused")]
    singles += [f"cloud_{name}.{end}" for name in ("before", "after") for end in ("ply", "glb")]
    singles += [f"pictures/{name}.png" for name in ("compare", "curves", "points")]
    folders = ["depth/refined", "depth/fused", "coloured/before", "coloured/refined"]
    numbered = [f"{folder}/{i:06d}.png" for folder in folders for i in range(len(room))]
    numbered += [f"depth/refined/{i:06d}.exr" for i in range(len(room))]
    assert [name for name in singles + numbered if not (result.folder / name).is_file()] == []
    assert bench.missing() == []
    assert not list(result.folder.rglob(".*"))


def test_coloured_depth_is_in_the_clip_s_colours(bench: Bench) -> None:
    result = bench.run(replace(CONFIG, output=OutputConfig(clouds=False)))
    maps = {name: depth_maps.read_maps(result.folder / "depth" / f"{name}.npz") for name in ("before", "after")}
    colours = colormap.color_range(frame for values in maps.values() for frame in values)
    with Image.open(result.folder / "coloured" / "refined" / "000002.png") as picture:
        shown = np.asarray(picture.convert("RGB"))
        assert picture.mode == "P"
    depth = resize_numpy(maps["after"][2], shown.shape[:2])
    np.testing.assert_array_equal(shown, colormap.colorize(depth, colours))


def test_report_holds_every_key(finished: Bench) -> None:
    report = finished.report()
    wanted = {
        "frames": {"count", "hw"},
        "sfm": {"registered", "total", "points", "mean_reprojection_error_px", "rung", "seconds"},
        "alignment": {"scale", "strict_inlier_ratio", "relaxed_inlier_ratio", "rank_correlation", "scale_spread"}
        | {"sfm_health", "trusted"},
        "refinement": {"steps", "best_step", "seconds", "rolled_back"},
        "comparison": {"held_out", "held_out_frames", "ground_truth"},
        "timings_s": set(STAGES) | {"compare"},
    }
    assert {"network", "preset", "seed"} <= report.keys()
    assert {name: keys - report[name].keys() for name, keys in wanted.items()} == {name: set() for name in wanted}


@pytest.mark.parametrize("name", ["held_out", "held_out_frames", "ground_truth"])
def test_comparison_holds_every_column_and_measure(finished: Bench, name: str) -> None:
    comparison = finished.report()["comparison"][name]
    assert list(comparison)[2:] == [str(column) for column in Column]
    for column in Column:
        assert comparison[column].keys() == MEASURES | {"by_distance"}
        assert comparison[column]["count"] > 0
        assert np.isfinite([comparison[column][measure] for measure in MEASURES]).all()


def test_what_does_not_apply_is_none_never_absent(bench: Bench) -> None:
    bench.run(replace(CONFIG, split=SplitConfig()))
    whole = bench.report()
    assert whole["comparison"].keys() >= {"held_out", "held_out_frames", "ground_truth"}
    assert whole["comparison"]["ground_truth"] is whole["comparison"]["held_out_frames"] is None
    bench.sfm.found = False
    shutil.rmtree(bench.out)
    bench.run()
    assert bench.report()["sfm"].keys() >= whole["sfm"].keys()


def test_refined_weights_give_the_refined_depth(finished: Bench) -> None:
    frames = loader.frame_set_from_folder(finished.out / "frames")
    network = networks.load_refined(finished.out / "refined.safetensors")
    images = torch.cat([network.prepare(frames.read(i).rgb) for i in range(len(frames))])
    with torch.inference_mode():
        again = network(images)[:, 0].numpy()
    np.testing.assert_allclose(depth_maps.read_maps(finished.out / "depth" / "after.npz"), again, rtol=1e-4)


def test_refining_helps_and_fusing_helps_more(finished: Bench) -> None:
    errors = {column: finished.report()["comparison"]["ground_truth"][column]["abs_rel"] for column in Column}
    assert errors[Column.AFTER] < errors[Column.ALIGNED] == pytest.approx(errors[Column.BEFORE], rel=1e-3)
    assert errors[Column.BEFORE_FUSED] < errors[Column.BEFORE]
    assert errors[Column.AFTER_FUSED] < errors[Column.AFTER]


def test_nothing_of_held_out_frames_reaches_the_network(bench: Bench) -> None:
    result = bench.run()
    assert result.aligned is not None
    frames = set(result.aligned.observations.frame[result.aligned.observations.trainable])
    assert frames == {0, 1, 2, 6, 7, 8}
    after, fused = (depth_maps.read_maps(result.folder / "depth" / f"{name}.npz") for name in ("after", "after_fused"))
    for i in range(12):  # where no point may be used, fusing is resizing
        assert np.array_equal(fused[i], resize_numpy(after[i], fused[i].shape)) is (i not in frames)


def test_no_path_of_this_machine_is_published(finished: Bench) -> None:
    for name in ("report.json", "manifest.json", "refinement.json"):
        assert str(finished.out.parent) not in (finished.out / name).read_text()


def test_one_call_from_python(bench: Bench) -> None:
    result = refine_clip(str(bench.assets / "clip"), str(bench.out), config=CONFIG, seed=3)
    assert result.config == replace(CONFIG, seed=3)
    assert bench.report()["seed"] == 3


# ---------------------------------------------------------------------------------------- resume


def test_second_call_does_nothing(bench: Bench) -> None:
    bench.run()
    before = bench.report()
    assert bench.stages_made() == set()
    assert bench.sfm.calls == 1
    after = bench.report()
    assert {k: v for k, v in after.items() if k != "timings_s"} == {k: v for k, v in before.items() if k != "timings_s"}


CHANGES: dict[str, tuple[RunConfig, set[str]]] = {
    "truth, which no stage reads": (replace(CONFIG, force=True), set()),
    "output": (replace(CONFIG, output=OutputConfig(pictures=False, clouds=False, exr=True)), {"outputs"}),
    "fuse": (replace(CONFIG, fuse=FuseConfig(prior=0.2)), {"before_fused", "after_fused", "outputs"}),
    "steps": (replace(CONFIG, steps=7), set(STAGES) - {"frames", "sfm", "before"}),
    "seed": (replace(CONFIG, seed=5), set(STAGES) - {"frames", "sfm", "before"}),
    "sfm": (replace(CONFIG, sfm=replace(CONFIG.sfm, overlap=7)), set(STAGES) - {"frames", "before"}),
    "frames": (replace(CONFIG, video=replace(CONFIG.video, max_frames=9)), set(STAGES)),
}


@pytest.mark.parametrize(("config", "expected"), CHANGES.values(), ids=CHANGES)
def test_exactly_what_changed_is_made_anew(bench: Bench, config: RunConfig, expected: set[str]) -> None:
    bench.run()
    assert bench.stages_made(config) == expected
    assert bench.missing() == []
    assert sorted(bench.stages()) == sorted(STAGES)


def test_a_resumed_run_is_a_fresh_run(bench: Bench) -> None:
    bench.run()
    bench.run(replace(CONFIG, steps=8))
    resumed = load_file(bench.out / "refined.safetensors")
    bench.out = bench.out.with_name("fresh")
    bench.run(replace(CONFIG, steps=8))
    fresh = load_file(bench.out / "refined.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in fresh.items())


def test_a_deleted_file_is_made_again(bench: Bench) -> None:
    bench.run()
    (bench.out / "depth" / "after.npz").unlink()
    assert bench.stages_made() == {"after", "after_fused", "outputs"}


def test_exporting_again_leaves_what_was_made_meanwhile(bench: Bench) -> None:
    fp32 = ExportConfig(variants=(Variant.FP32,))
    bench.run()
    export_run(bench.out, config=fp32)
    bench.run(replace(CONFIG, fuse=FuseConfig(prior=0.2)))  # what it makes anew then stands behind the export
    export_run(bench.out, config=fp32)
    assert sorted(bench.stages()) == sorted([*STAGES, "export"])
    assert bench.missing() == []
    assert bench.stages_made(replace(CONFIG, fuse=FuseConfig(prior=0.2))) == set()


def test_outputs_are_those_of_the_last_run(bench: Bench) -> None:
    everything = replace(CONFIG, output=OutputConfig())
    bench.run(everything)
    frames = len(list((bench.out / "frames").glob("*.png")))
    assert len(list((bench.out / "depth" / "refined").glob("*.png"))) == frames
    record = read_manifest(bench.out).stage("outputs")
    assert record is not None
    assert {"comparison.mp4", "depth/refined/000000.png", "cloud_after.ply"} <= set(record.files)
    for name in ("comparison.mp4", "cloud_after.ply"):
        (bench.out / name).unlink()
    assert bench.stages_made(everything) == {"outputs"}
    assert bench.missing() == []
    bench.run(replace(everything, video=replace(CONFIG.video, max_frames=frames - 3)))
    for folder in ("depth/refined", "depth/fused", "coloured/refined"):
        assert len(list((bench.out / folder).glob("*.png"))) == frames - 3
    (bench.out / "depth" / "refined" / "000099.png").write_bytes(b"of an earlier version, which did not note it")
    bench.run()
    assert not (bench.out / "depth" / "refined" / "000099.png").exists()
    assert not (bench.out / "comparison.mp4").exists()


@pytest.mark.parametrize(
    ("clip", "changes", "message"),
    [
        ("nowhere.mp4", {}, "nowhere.mp4"),
        ("clip", {"network": "no-such-network"}, "no-such-network"),
        ("clip", {"video": VideoConfig(max_frames=2, duplicate_threshold=0.0)}, "allow 3"),
        ("clip", {"sfm": SfmConfig(model_folder=Path("no-model-here"))}, "no-model-here"),
        ("clip", {"sfm": SfmConfig(model_folder=Path("any")), "intrinsics": "50,50,64,48"}, "cameras of its own"),
        ("clip", {"sfm": SfmConfig(time_limit_s=-1)}, "time limit of -1 s"),
    ],
)
def test_what_cannot_be_done_takes_nothing_of_a_finished_run(
    clip: str, changes: dict[str, Any], message: str, bench: Bench, assets: Path
) -> None:
    bench.run()
    before = {path: path.stat().st_mtime_ns for path in bench.out.rglob("*") if path.is_file() and path.suffix}
    settings = read_manifest(bench.out)
    changes = {"video": VideoConfig(max_frames=9), **changes}
    with pytest.raises(SfmttrError, match=message):
        pipeline.run(assets / clip, bench.out, replace(CONFIG, preset=Preset.PAPER, **changes))
    for path in before:
        assert path.is_file(), path
    assert read_manifest(bench.out) == settings
    assert bench.stages_made() == set()


def test_a_run_that_fails_leaves_no_new_folder(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(SfmttrError):
        pipeline.run(bench.assets / "nowhere.mp4", tmp_path / "there" / "new" / "newer" / "run", CONFIG)
    assert list((tmp_path / "there").iterdir()) == []


def test_an_evaluation_goes_with_what_it_is_of(bench: Bench) -> None:
    bench.run()
    bench.run()
    evaluation = bench.out / "evaluation.json"
    evaluation.write_text("{}")
    bench.run(replace(CONFIG, output=OutputConfig(pictures=False)))  # the same depth
    assert evaluation.exists()
    bench.run(replace(CONFIG, steps=7))
    assert not evaluation.exists()
    evaluation.write_text("{}")
    bench.sfm.settings = CLOSED
    bench.run(replace(CONFIG, sfm=replace(CONFIG.sfm, overlap=7)))
    assert not evaluation.exists()


def test_others_may_read_what_was_written(finished: Bench) -> None:
    modes = {oct(path.stat().st_mode & 0o777) for path in finished.out.iterdir() if path.suffix in (".json", ".npz")}
    assert {oct((finished.out / "refined.safetensors").stat().st_mode & 0o777)} == modes


def test_another_model_in_the_same_folder_is_taken(bench: Bench, tmp_path: Path) -> None:
    given = tmp_path / "colmap"
    given.mkdir()
    for name in ("cameras", "images", "points3D"):
        (given / f"{name}.txt").write_text("# what is in it is read off the truth\n")
    config = replace(CONFIG, sfm=replace(CONFIG.sfm, model_folder=given))
    bench.run(config)
    assert bench.stages_made(config) == set()
    (given / "points3D.txt").write_text("# and now another\n")
    assert bench.stages_made(config) == set(STAGES) - {"frames", "before"}


def test_pictures_that_change_names_are_another_clip(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_text("as long as the other")
        os.utime(tmp_path / f"{number}.png", (0, number))
    before = clip_identity(tmp_path)
    assert clip_identity(tmp_path) == before
    for old, new in (("1.png", "other"), ("2.png", "1.png"), ("other", "2.png")):
        (tmp_path / old).rename(tmp_path / new)
    exchanged = clip_identity(tmp_path)
    assert exchanged != before
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    assert clip_identity(tmp_path) not in (before, exchanged)


def test_a_folder_that_another_run_holds_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been made between the look whether there is one and the attempt to lock it."""
    bench.out.mkdir()
    with RunFolder(bench.out):
        monkeypatch.setattr(Path, "exists", lambda path: path != bench.out and os.path.exists(path))
        with pytest.raises(RunFolderError, match="in use"):
            bench.run()
        assert os.path.exists(bench.out / "manifest.json")


@pytest.mark.parametrize("stage", ["frames", "before", "refine", "after", "outputs"])
def test_a_cancelled_run_goes_on_where_it_was(bench: Bench, stage: str) -> None:
    def cancel(progress: Progress) -> None:
        if progress.stage == stage:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        bench.run(on_progress=cancel)
    assert not (bench.out / "report.json").exists()
    if stage == "frames":
        assert not bench.out.exists()
    else:
        assert bench.missing() == []
    made = bench.stages_made()
    assert made == set(STAGES[STAGES.index(stage) :])
    assert bench.report()["refinement"]["steps"] == 6


def test_the_unrefined_network_predicts_in_the_background_while_sfm_maps(
    bench: Bench, finished: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def predict(*arguments: Any) -> np.ndarray:
        threads.append(threading.current_thread().name)
        return predict_maps(*arguments)

    monkeypatch.setattr("sfmttr.refinement.backend.predict_maps", predict)
    bench.sfm.reports = tuple(map(reconstructing, (SfmPhase.MATCHING, SfmPhase.MAPPING, SfmPhase.MAPPING)))
    bench.run()
    background, after = threads
    assert background != threading.main_thread().name == after
    before = depth_maps.read_maps(bench.out / "depth" / "before.npz")
    np.testing.assert_allclose(before, depth_maps.read_maps(finished.out / "depth" / "before.npz"), rtol=1e-5)
    shutil.rmtree(bench.out / "sfm")
    bench.run()
    assert threads == [background, after, after]  # the unrefined prediction is stored


@pytest.mark.parametrize(
    ("changes", "once"),
    [({}, True), ({"trained": TrainableScope.ENCODER}, False), ({"split": SplitConfig(hold_out_frames=3)}, False)],
)
def test_early_features_of_a_frame_are_computed_once(
    bench: Bench, room: RenderedClip, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], once: bool
) -> None:
    """For the unrefined depth and all of the refinement; unless the early part moves, or frames must not be seen."""
    stages, seen = [""], {"before": 0, "refine": 0}
    early = TinyNetwork.stem_features

    def watched(self: TinyNetwork, image: Tensor) -> tuple[Tensor, ...]:
        stage = "refine" if stages[-1] == "refine" else "before"
        if "after" not in stages:
            seen[stage] += len(image)
        return early(self, image)

    monkeypatch.setattr(TinyNetwork, "stem_features", watched)
    config = replace(CONFIG, **{"split": SplitConfig(), **changes})
    bench.run(config, lambda progress: stages.append(progress.stage))
    assert seen["before"] == len(room)
    assert (seen["refine"] == 0) is once


def test_early_features_are_kept_for_a_refinement_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are large: without a model nobody will ask for them."""
    kept: list[bool] = []

    def predict(*arguments: Any) -> np.ndarray:
        kept.append(arguments[-1] is not None)
        return predict_maps(*arguments)

    monkeypatch.setattr("sfmttr.refinement.backend.predict_maps", predict)
    config = replace(CONFIG, split=SplitConfig())
    bench.sfm.found = False
    bench.run(config)
    assert kept == [False]
    bench.sfm.found = True
    shutil.rmtree(bench.out)
    bench.run(config)
    assert kept == [False, True, False]  # before and, of the refined network, after


def test_a_run_that_is_cancelled_while_sfm_maps_leaves_no_thread(bench: Bench) -> None:
    def cancel(progress: Progress) -> None:
        if progress.attempt == "elsewhere":
            raise Cancelled("stopped")

    bench.sfm.reports = (reconstructing(SfmPhase.MAPPING), reconstructing(SfmPhase.MAPPING, "elsewhere"))
    before = threading.active_count()
    with pytest.raises(Cancelled):
        bench.run(on_progress=cancel)
    assert threading.active_count() == before
    assert bench.stages_made() == set(STAGES[1:])


def test_a_failed_run_leaves_an_earlier_one_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    with monkeypatch.context() as patch:
        patch.setattr("sfmttr.run.align_stage.evaluate_trust", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.run()
    assert bench.stages_made() == set()


# ---------------------------------------------------------------------------------- not refined


def command(bench: Bench, *more: str) -> int:
    """The command line, with what `CONFIG` says."""
    given = ["refine", str(bench.assets / "clip"), "--out", str(bench.out), "--network", TINY, "--device", "cpu"]
    return main([*given, "--steps", "6", "--no-pictures", "--no-clouds", "--hold-out-frames", "3", *more])


def test_no_model_is_a_result(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.sfm.found = False
    assert command(bench) == 3
    report = bench.report()
    assert report["refinement"] is report["alignment"] is None
    assert report["advice"] == "Walk sideways while filming."
    assert report["sfm"]["registered"] == 0
    assert "Walk sideways" in capsys.readouterr().out
    assert (bench.out / "depth" / "refined" / "000000.png").is_file()
    assert not (bench.out / "refined.safetensors").exists()


def test_closed_gate_is_a_result(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.sfm.settings = CLOSED
    assert command(bench) == 3
    report = bench.report()
    assert report["refinement"] is None
    assert report["alignment"]["trusted"] is False
    assert report["alignment"]["sfm_health"] == 0.2
    assert "not self-consistent" in report["advice"]
    printed = capsys.readouterr().out
    assert "Not refined" in printed
    assert "--force refines anyway." in printed
    assert "--force" not in report["advice"]


def test_force_refines_all_the_same(bench: Bench) -> None:
    bench.sfm.settings = CLOSED
    assert command(bench, "--force") == 0
    assert bench.report()["refinement"]["steps"] == 6
    assert bench.report()["alignment"]["trusted"] is False


def test_force_after_a_closed_gate_keeps_all_files(bench: Bench) -> None:
    bench.sfm.settings = CLOSED
    bench.run()
    bench.run(replace(CONFIG, force=True))
    assert (bench.out / "refined.safetensors").is_file()
    assert bench.missing() == []
    assert bench.stages() == list(STAGES)
    assert bench.stages_made(replace(CONFIG, force=True)) == set()


def test_a_model_after_no_model_keeps_all_files(bench: Bench) -> None:
    bench.sfm.found = False
    bench.run()
    bench.sfm.found = True
    bench.run()
    assert (bench.out / "sfm").is_dir()
    assert (bench.out / "refined.safetensors").is_file()
    assert bench.stages_made() == set()


def test_gate_that_closes_again_leaves_nothing_refined(bench: Bench) -> None:
    bench.sfm.settings = CLOSED
    bench.run(bench.truth(force=True))
    bench.run(bench.truth())
    assert bench.report()["refinement"] is None
    assert not (bench.out / "refined.safetensors").exists()
    assert not (bench.out / "depth" / "after.npz").exists()


def test_no_model_is_compared_with_ground_truth_all_the_same(bench: Bench) -> None:
    bench.sfm.found = False
    bench.run(bench.truth())
    comparison = bench.report()["comparison"]
    assert comparison["held_out"] is None
    assert comparison["ground_truth"]["before"]["count"] > 0


def test_diverged_run_resumes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, Preset.DEFAULT, recipe(learning_rate=1e30))
    result = bench.run(replace(CONFIG, output=OutputConfig(clouds=False)))
    assert result.refined is not None
    assert result.refined.rolled_back
    report = bench.report()
    assert report["refinement"]["rolled_back"] is True
    original = torch.load(bench.assets / "state.pt")
    assert all(torch.equal(v, original[k]) for k, v in load_file(bench.out / "refined.safetensors").items())
    assert bench.stages_made(replace(CONFIG, output=OutputConfig(clouds=False))) == set()


# -------------------------------------------------------------------------------------- evaluate


def test_evaluating_is_what_the_run_compared(finished: Bench) -> None:
    evaluated = evaluate_run(finished.out, GroundTruthConfig(finished.assets / "truth"))
    compared = finished.report()["comparison"]
    stored = json.loads(evaluated.path.read_text())
    assert stored == {name: compared[name] for name in ("ground_truth", "ground_truth_held_out_frames")}
    assert (evaluated.network, evaluated.preset) == (TINY, "default")


def test_a_run_that_was_not_refined_can_be_evaluated(bench: Bench) -> None:
    bench.sfm.found = False
    bench.run()
    comparison = evaluate_run(bench.out, GroundTruthConfig(bench.assets / "truth")).comparisons["ground_truth"]
    assert list(comparison.columns) == [Column.BEFORE]


def test_what_an_earlier_run_refined_is_not_evaluated(bench: Bench) -> None:
    bench.sfm.settings = CLOSED
    bench.run(replace(CONFIG, force=True))
    bench.run()
    comparison = evaluate_run(bench.out, GroundTruthConfig(bench.assets / "truth")).comparisons["ground_truth"]
    assert list(comparison.columns) == [Column.BEFORE]


def test_dense_targets_are_made_of_training_points_of_frames_trained_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Observations] = []
    fuse = fuse_stage.fuse_clip

    def spy(maps: np.ndarray, observations: Observations, *rest: Any) -> np.ndarray:
        made.append(observations)
        return fuse(maps, observations, *rest)

    monkeypatch.setattr(fuse_stage, "fuse_clip", spy)
    bench.run()
    dense, *others = made
    assert len(dense) > 0
    assert dense.trainable.all()
    assert len(others) == 2  # before and after, which may use the points that chose the best step
    made.clear()
    bench.run(replace(CONFIG, preset=Preset.PAPER))
    assert len(made) == 2


def test_a_network_far_from_its_domain_keeps_nothing_between_the_points(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("dense targets were made")

    monkeypatch.setattr(refine_stage, "add_dense_targets", refuse)
    monkeypatch.setattr(align_stage, "evaluate_trust", lambda health, agreed: Trust(True, 1.0, 0.1, ""))
    assert bench.run().refined is not None
