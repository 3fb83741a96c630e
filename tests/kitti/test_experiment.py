"""KITTI's folders and split, the paper's experiment on them, and its table."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfmttr.cli.main import main
from sfmttr.config import Objective, RunConfig
from sfmttr.errors import Cancelled, ClipError, ConfigError, GroundTruthError, NetworkError
from sfmttr.evaluation.comparison import DistanceErrors
from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.kitti import experiment
from sfmttr.kitti.config import KittiConfig, KittiSplit, Setting
from sfmttr.kitti.dataset import EIGEN, eigen_numbers, find_drives, frame_name, missing_drives
from sfmttr.kitti.table import PUBLISHED, PaperTable, Row
from sfmttr.networks.base import state_dict_cpu
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.task import RefineStep, RefineTask
from sfmttr.run import pipeline
from sfmttr.types import FrameSet, NoModel, Progress, ResultOrigin, SparseModel
from tests.support.data_paths import data_root, existing
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny, write_fake_model
from tests.support.kitti_folders import DRIVE, KittiFolders, empty, lay_out_clip, lay_out_drive
from tools.synthetic import RenderedClip

# ------------------------------------------------------------------------------- folders and split


def test_eigen_split_is_complete() -> None:
    numbers = {drive: eigen_numbers(drive) for drive in EIGEN}
    assert len(EIGEN) == 28
    assert sum(map(len, numbers.values())) == 652
    assert all(list(each) == sorted(set(each)) for each in numbers.values())
    assert numbers[DRIVE] == (*range(6, 64, 3), 69)
    assert numbers["2011_09_26_drive_0048_sync"] == tuple(range(5, 17))
    assert numbers["2011_10_03_drive_0027_sync"][-1] == 4535
    assert eigen_numbers("2011_09_26_drive_0001_sync") == ()


@pytest.fixture
def folders(tmp_path: Path, room: RenderedClip) -> KittiFolders:
    """Twelve frames of a room as drive 0002; frames 3 to 11 have truth, of which Eigen's list names 6 and 9."""
    made = empty(tmp_path / "kitti")
    lay_out_clip(made, room, range(3, 12))
    return made


def test_drives_are_found_with_their_evaluated_frames(folders: KittiFolders) -> None:
    (drive,) = find_drives(folders.raw, folders.depth, KittiSplit.EIGEN)
    assert (drive.name, len(drive.files)) == (DRIVE, 12)
    assert drive.evaluated == (frame_name(6), frame_name(9))
    (drive,) = find_drives(folders.raw, folders.depth, KittiSplit.ALL, ["0002"])
    assert drive.evaluated == tuple(map(frame_name, range(3, 12)))
    frames = drive.frames()
    assert frames.hw == (96, 128)
    truth = drive.ground_truth(frames)
    assert sorted(truth.files) == list(range(3, 12))
    assert truth.read(3).max() > 1
    assert DRIVE not in missing_drives([drive])
    assert len(missing_drives([drive])) == 27


def test_ground_truth_may_be_in_train(folders: KittiFolders) -> None:
    folders.truth(part="train").parent.mkdir(parents=True)
    folders.truth().rename(folders.truth(part="train"))
    (drive,) = find_drives(folders.raw, folders.depth, KittiSplit.EIGEN, [DRIVE])
    assert len(drive.evaluated) == 2


def test_bad_folders_are_reported(folders: KittiFolders, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="raw data were unzipped"):
        find_drives(tmp_path / "nowhere", folders.depth, KittiSplit.EIGEN)
    with pytest.raises(ClipError, match="annotated depth maps were unzipped"):
        find_drives(folders.raw, tmp_path / "nowhere", KittiSplit.EIGEN)
    with pytest.raises(ClipError, match="holds no drives"):
        find_drives(folders.depth, folders.depth, KittiSplit.EIGEN)
    with pytest.raises(ClipError, match=f"no drive '0099'; available: {DRIVE}"):
        find_drives(folders.raw, folders.depth, KittiSplit.EIGEN, ["0099"])
    with pytest.raises(GroundTruthError, match="both an image"):
        find_drives(folders.raw, folders.raw, KittiSplit.EIGEN)


# ---------------------------------------------------------------------------------- the experiment


@dataclass
class KittiSfm(FakeSfm):
    """Knows frames by their names, whichever of a drive's they are."""

    def load_model(self, frames: FrameSet, folder: Path) -> SparseModel:
        numbers = tuple(map(int, frames.names))
        return super().load_model(replace(frames, numbers=numbers), folder)


@pytest.fixture
def tiny(tmp_path: Path, room: RenderedClip, monkeypatch: pytest.MonkeyPatch) -> KittiSfm:
    """A network that half fits the room, and a reconstruction that fits it well."""
    torch.manual_seed(0)
    register_tiny(monkeypatch, tmp_path / "weights", state_dict_cpu(fit(TinyNetwork(), room, steps=15)))
    found = KittiSfm(room)
    found.install(monkeypatch)
    return found


def config_of(folders: KittiFolders, out: Path, **changes: object) -> KittiConfig:
    config = KittiConfig(folders.raw, folders.depth, out, networks=(TINY,), device="cpu", steps=8)
    return replace(config, **changes)  # type: ignore[arg-type]


def by_objective(table: PaperTable) -> dict[str, Row]:
    assert len({row.objective for row in table.rows}) == len(table.rows)
    return {row.objective: row for row in table.rows}


def test_every_objective_has_its_row(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path) -> None:
    objectives = ("none", "aligned", "photometric", "sfm", "both")
    table = experiment.run_experiment(config_of(folders, tmp_path / "out", objectives=objectives, split=KittiSplit.ALL))
    rows = by_objective(table)
    assert tuple(rows) == objectives
    assert {(row.network, row.scaling, row.frames, row.drives) for row in table.rows} == {(TINY, "median", 9, 1)}
    assert rows["none"].setting == ""
    assert rows["sfm"].setting == "paper"
    assert not any(row.unrefined for row in table.rows)
    # Frames are scaled by their medians: the clip's one scale changes nothing.
    assert rows["aligned"].metrics.abs_rel == pytest.approx(rows["none"].metrics.abs_rel, rel=1e-5)
    assert len({round(row.metrics.abs_rel, 6) for row in table.rows}) == 4
    assert table.missing
    assert not table.comparable


def test_a_model_of_the_hub_that_gives_disparity(
    folders: KittiFolders, tiny: KittiSfm, tmp_path: Path, room_model: Path
) -> None:
    config = config_of(folders, tmp_path / "out", objectives=("none", "aligned", "sfm"), split=KittiSplit.ALL)
    table = experiment.run_experiment(replace(config, networks=(str(room_model),)))
    rows = by_objective(table)
    assert {row.scaling for row in table.rows} == {"median"}
    # The scale is the median's, so that what alignment adds is the shift.
    assert rows["aligned"].metrics.abs_rel != pytest.approx(rows["none"].metrics.abs_rel, rel=1e-3)
    assert all(0 < row.metrics.abs_rel < 0.3 for row in table.rows)
    assert not any(row.unrefined for row in table.rows)
    with pytest.raises(NetworkError, match="neither a model on the Hub nor a folder"):
        experiment.run_experiment(replace(config, networks=("hf:nobody",)))


def test_results_are_on_disk_in_three_forms(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path) -> None:
    table = experiment.run_experiment(config_of(folders, tmp_path / "out", objectives=("none", "sfm")))
    assert (tmp_path / "out/table.txt").read_text() == table.text()
    stored = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["objective"] for row in stored["rows"]] == ["none", "sfm"]
    assert stored["rows"][1]["metrics"]["abs_rel"] == table.rows[1].metrics.abs_rel
    assert stored["rows"][0]["by_distance"][0]["near"] == 0
    lines = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    assert len(lines) == len(PUBLISHED) + 2
    assert float(lines[-1]["abs_rel"]) == pytest.approx(table.rows[1].metrics.abs_rel, abs=1e-6)
    assert {line["source"] for line in lines} == {"published", "sfmttr"}


def test_paper_setting_trains_on_listed_frames_only(
    folders: KittiFolders, tiny: KittiSfm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, sources = [], []
    made = Refinement.__init__

    def note(self: Refinement, task: RefineTask, *arguments: object) -> None:
        made(self, task, *arguments)  # type: ignore[arg-type]
        learnt.append([target.frame for target in self._train])
        sources.append({s.frame for view in task.views.values() for s in view.sources})  # type: ignore[union-attr]

    monkeypatch.setattr(Refinement, "__init__", note)
    experiment.run_experiment(config_of(folders, tmp_path / "out", objectives=("photometric",)))
    names = [path.stem for path in sorted((tmp_path / "out" / DRIVE / "clip-paper").iterdir())]
    assert names == [frame_name(i) for i in (5, 6, 7, 8, 9, 10)]
    assert [names[i] for i in learnt[0]] == [frame_name(6), frame_name(9)]
    assert {names[i] for i in sources[0]} >= {frame_name(5), frame_name(7), frame_name(8), frame_name(10)}
    assert tiny.calls == 2, "one reconstruction of the drive, which the run takes over"


def test_our_setting_is_a_run_on_the_drive_as_a_clip(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path) -> None:
    config = config_of(folders, tmp_path / "out", objectives=("sfm",), settings=(Setting.OURS,))
    (row,) = experiment.run_experiment(config).rows
    run = tmp_path / "out" / DRIVE / f"{TINY}-ours-sfm"
    report = json.loads((run / "report.json").read_text())
    assert (row.setting, report["preset"], report["frames"]["count"]) == ("ours", "default", 12)
    assert row.frames == 2


def test_a_second_call_makes_nothing_again(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path) -> None:
    config = config_of(folders, tmp_path / "out", objectives=("none", "sfm"))
    first, calls = experiment.run_experiment(config), tiny.calls
    steps: list[Progress] = []
    assert experiment.run_experiment(config, steps.append).text() == first.text()
    assert tiny.calls == calls
    assert {step.origin for step in steps if step.stage == "refine"} == {ResultOrigin.RUN_FOLDER}


def test_interrupted_experiment_resumes(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path) -> None:
    config = config_of(folders, tmp_path / "out", objectives=("sfm", "both"))

    def stop_in_the_second(progress: Progress) -> None:
        done = (tmp_path / "out" / DRIVE / f"{TINY}-paper-sfm" / "report.json").is_file()
        if done and progress.stage == "refine" and progress.origin is ResultOrigin.COMPUTED:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        experiment.run_experiment(config, stop_in_the_second)
    seen: list[Progress] = []
    rows = experiment.run_experiment(config, seen.append).rows
    assert [row.objective for row in rows] == ["sfm", "both"]
    refined = [step.origin for step in seen if step.stage == "refine"]
    assert refined[0] is ResultOrigin.RUN_FOLDER
    assert refined.count(ResultOrigin.RUN_FOLDER) == 1


def test_drive_without_reconstruction_uses_original_network(
    folders: KittiFolders, tiny: KittiSfm, tmp_path: Path
) -> None:
    tiny.found = False
    rows = by_objective(experiment.run_experiment(config_of(folders, tmp_path / "out", objectives=("none", "sfm"))))
    assert rows["none"].unrefined == ()
    assert rows["sfm"].unrefined == (DRIVE,)
    assert rows["sfm"].metrics == rows["none"].metrics
    assert (
        f"Not refined, and scored as it was ({TINY}, SfM-TTR, paper): {DRIVE}."
        in (tmp_path / "out/table.txt").read_text()
    )
    calls = tiny.calls
    experiment.run_experiment(config_of(folders, tmp_path / "out", objectives=("none", "sfm")))
    assert tiny.calls == calls, "it is not looked for again"


def test_untrusted_reconstruction_is_not_trained_on(
    folders: KittiFolders, tiny: KittiSfm, room: RenderedClip, tmp_path: Path
) -> None:
    tiny.settings = {"score": 0.1, "noise": 1.5}
    for setting, unrefined in ((Setting.OURS, (DRIVE,)), (Setting.PAPER, ())):
        config = config_of(folders, tmp_path / setting, objectives=("sfm",), settings=(setting,))
        (row,) = experiment.run_experiment(config).rows
        assert row.unrefined == unrefined, "the paper has no gate"


def test_existing_models_are_used(
    folders: KittiFolders, tiny: KittiSfm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fake_model(tmp_path / "models" / DRIVE / "sparse")
    taken = []

    def reconstruct(frames: FrameSet, config, folder: Path, *rest: object) -> SparseModel | NoModel:  # type: ignore[no-untyped-def]
        taken.append(config.model_folder)
        return KittiSfm.reconstruct(tiny, frames, config, folder, *rest)

    monkeypatch.setattr("sfmttr.sfm.reconstruction.reconstruct", reconstruct)
    config = config_of(folders, tmp_path / "out", objectives=("sfm",), models=tmp_path / "models")
    assert experiment.run_experiment(config).rows[0].unrefined == ()
    assert taken == [tmp_path / "models" / DRIVE / "sparse"]
    other = replace(config, models=tmp_path / "weights", out=tmp_path / "other")
    assert experiment.run_experiment(other).rows[0].unrefined == (DRIVE,)


def test_tune_on_limits_what_is_learnt(tiny: KittiSfm, folders: KittiFolders, tmp_path: Path) -> None:
    frames_of: list[set[int]] = []

    def note(step: RefineStep, refinement: Refinement) -> None:
        frames_of.append({target.frame for target in (*refinement._train, *refinement._validation)})

    names = (frame_name(2), frame_name(7))
    config = RunConfig(network=TINY, steps=2, device="cpu", train_frames=names, objective=Objective.SFM)
    pipeline.run(folders.pictures(), tmp_path / "run", config, on_step=note)
    assert frames_of[0] == {2, 7}


# -------------------------------------------------------------------------------------- the table


def metrics(value: float, count: int = 10) -> DepthMetrics:
    return DepthMetrics(value, value, value, value, value, value, value, count)


def row(**changes: object) -> Row:
    ranges = tuple(
        DistanceErrors(near, far, metrics(value, count))
        for near, far, value, count in ((0, 10, 0.1, 30), (10, 30, 0.2, 10), (30, 50, 0.3, 10), (50, 80, 0.5, 10))
    )
    made = Row("diffnet", "sfm", "paper", "median", metrics(0.05), ranges, 652, 28, ())
    return replace(made, **changes)  # type: ignore[arg-type]


def test_far_errors_are_pooled_over_values() -> None:
    assert row().near_and_far == pytest.approx((0.125, 0.4))
    assert np.isnan(row(by_distance=row().by_distance[:2]).near_and_far[1])


def test_published_figures_stand_beside_ours_of_the_same_frames() -> None:
    whole = PaperTable((row(),), "kitti", "eigen", ())
    assert whole.comparable
    assert "not comparable" not in whole.text()
    text = PaperTable((row(frames=21, drives=1, unrefined=("a", "b")),), "kitti", "eigen", ("c",)).text()
    assert "not comparable" in text
    assert "Not here: c." in text
    assert "Not refined, and scored as it was (diffnet, SfM-TTR, paper): a, b." in text
    lines = whole.text().splitlines()
    assert lines[0].split()[:3] == ["TTR", "network", "setting"]
    assert len({len(line) for line in lines[1 : 1 + len(PUBLISHED)]}) == 1
    published = next(line for line in lines if line.startswith("SfM-TTR  diffnet"))
    assert "0.052" in published
    assert "2.444" in published


def test_csv_has_a_column_for_everything() -> None:
    first, *rest = csv.reader(io.StringIO(PaperTable((row(),), "kitti", "eigen", ()).csv()))
    assert {len(line) for line in rest} == {len(first)}


# --------------------------------------------------------------------------------- the command line


def test_command(folders: KittiFolders, tiny: KittiSfm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--raw", str(folders.raw), "--ground-truth", str(folders.depth), "--out", str(tmp_path / "out")]
    more = ["--networks", TINY, "--objectives", "none,sfm", "--settings", "paper", "ours", "--steps", "2"]
    assert main(["evaluate", "kitti", *where, *more, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert sum(TINY in line and "SfM-TTR" in line for line in out.splitlines()) == 2
    assert (tmp_path / "out/table.csv").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--objectives", "depth"], "no objective 'depth': choose from none, aligned"),
        (["--settings", "theirs"], "no setting 'theirs': choose from paper, ours"),
        (["--networks", "no-net"], "no network is called 'no-net'"),
        (["--sequences", "0099"], "no drive '0099'"),
        (["--networks", "diffnet"], "weights file diffnet_1024x320/encoder.pth is missing"),
    ],
)
def test_command_reports_errors(
    folders: KittiFolders, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    where = ["--raw", str(folders.raw), "--ground-truth", str(folders.depth), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "kitti", *where, *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_config_is_checked_where_it_is_made() -> None:
    with pytest.raises(ConfigError):
        KittiConfig(Path(), Path(), objectives=("nothing",))
    assert NetworkError.exit_code == 2


# ----------------------------------------------------------------------------------- the real drive


@pytest.mark.slow
def test_the_real_drive_gives_the_known_figures(tmp_path: Path) -> None:
    folders = empty(tmp_path / "kitti")
    lay_out_drive(folders, existing(data_root() / "kitti_drive_0002"))
    config = KittiConfig(folders.raw, folders.depth, tmp_path / "out", networks=("bundled",), objectives=("none",))
    (eigen,) = experiment.run_experiment(config).rows
    (everything,) = experiment.run_experiment(replace(config, split=KittiSplit.ALL, out=tmp_path / "all")).rows
    assert (eigen.frames, everything.frames) == (21, 67)
    assert everything.metrics.abs_rel == pytest.approx(0.1952, abs=2e-3)
    near, far = everything.near_and_far
    assert near < far
