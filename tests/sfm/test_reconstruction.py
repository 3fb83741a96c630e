"""Structure-from-motion: conversion, health, attempt_settings, child process, import, cache."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sfmttr.config import SfmConfig
from sfmttr.errors import Cancelled, ReconstructionError
from sfmttr.io.json_files import read_model, write_json
from sfmttr.refinement import trust_gate
from sfmttr.sfm import cache, database, mapping, model_arrays, reconstruction, split_half
from sfmttr.sfm import health as sfm_health
from sfmttr.sfm import subprocess_runner as sfm_child
from sfmttr.sfm.attempts import NO_MODEL, FoundModel
from sfmttr.sfm.cache import match_images
from sfmttr.sfm.health import HealthFigures, health_score
from sfmttr.sfm.protocol import Mapper, MatchStatistics, RawModel, SfmJob, SfmPhase, SfmSettings
from sfmttr.sfm.retry_policy import AttemptResult, attempt_settings, run_attempts
from sfmttr.sfm.sparse import camera_from_colmap, camera_to_colmap, largest_angles_deg, sparse_from_raw
from sfmttr.sfm.split_half import split_half_disagreement
from sfmttr.types import Camera, FrameSet, NoModel, NoModelReason, Progress, SfmAttempt, SparseModel

pycolmap = pytest.importorskip("pycolmap")

ROOT = Path(__file__).resolve().parents[2]


def frame_set(folder: Path, files: list[str], hw: tuple[int, int], *, from_video: bool = True) -> FrameSet:
    return FrameSet(
        folder=folder,
        files=tuple(files),
        names=tuple(Path(f).stem for f in files),
        numbers=tuple(range(len(files))),
        time_s=tuple(0.1 * i for i in range(len(files))),
        hw=hw,
        source_hw=hw,
        source_count=len(files),
        from_video=from_video,
        content_hash="0" * 64,
        focal_prior_px=None,
    )


# ------------------------------------------------------------------------------------------- synthetic model


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A perfect reconstruction made by the library, without images."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 8, 120
    pycolmap.set_random_seed(0)
    path = tmp_path_factory.mktemp("synthetic") / "syn.db"
    with pycolmap.Database.open(path) as database:
        return pycolmap.synthesize_dataset(options, database)


@pytest.fixture(scope="module")
def raw(synthetic) -> RawModel:  # type: ignore[no-untyped-def]
    return model_arrays.raw_model(synthetic)


@pytest.fixture
def frames(raw: RawModel, tmp_path: Path) -> FrameSet:
    return frame_set(tmp_path, [str(name) for name in raw.image_name], raw.hw(0))


def test_depth_is_camera_z_of_the_library(synthetic, raw: RawModel, frames: FrameSet) -> None:  # type: ignore[no-untyped-def]
    sparse = sparse_from_raw(raw, np.arange(len(frames)), frames)
    ids = sorted(synthetic.points3D)
    assert len(sparse.views) == len(frames)
    for view in sparse.views:
        image = synthetic.find_image_with_name(frames.files[view.frame])
        xyz = np.array([synthetic.points3D[ids[p]].xyz for p in view.point])
        np.testing.assert_allclose(view.depth, (image.cam_from_world() * xyz)[:, 2], rtol=1e-5)
        assert (view.depth > 0).all()
        assert (view.xy_px >= 0).all()
        assert (view.xy_px < [frames.hw[1], frames.hw[0]]).all()


def test_figures_of_points(synthetic, raw: RawModel, frames: FrameSet) -> None:  # type: ignore[no-untyped-def]
    points = sparse_from_raw(raw, np.arange(len(frames)), frames).points
    lengths = [synthetic.points3D[i].track.length() for i in sorted(synthetic.points3D)]
    np.testing.assert_array_equal(points.track_length, lengths)
    assert points.error_px.max() < 1e-3


def test_a_shifted_observation_is_the_reprojection_error(raw: RawModel, frames: FrameSet) -> None:
    shifted = replace(raw, obs_xy_px=raw.obs_xy_px + np.array([0.3, 0.4]))
    error_px = sparse_from_raw(shifted, np.arange(len(frames)), frames).points.error_px
    np.testing.assert_allclose(error_px, 0.5, atol=1e-3)


def test_everything_scales_to_the_stored_size(raw: RawModel, frames: FrameSet) -> None:
    whole = sparse_from_raw(raw, np.arange(len(frames)), frames)
    small = replace(frames, hw=(frames.hw[0] // 2, frames.hw[1] // 2))
    shifted = replace(raw, obs_xy_px=raw.obs_xy_px + np.array([0.3, 0.4]))
    half = sparse_from_raw(shifted, np.arange(len(frames)), small)
    np.testing.assert_allclose(half.points.error_px, 0.25, atol=1e-3)
    assert half.views[0].camera.fx == pytest.approx(whole.views[0].camera.fx / 2)
    np.testing.assert_allclose(half.views[0].xy_px, whole.views[0].xy_px / 2 + [0.15, 0.2], atol=1e-3)
    np.testing.assert_allclose(half.views[0].depth, whole.views[0].depth)


def test_points_behind_or_outside_are_left_out(raw: RawModel, frames: FrameSet) -> None:
    xy_px = raw.obs_xy_px.copy()
    xy_px[0] = -1, 5
    xy_px[1] = raw.hw(0)[1] + 1, 5
    xyz = raw.xyz_in_world.copy()
    behind = int(np.flatnonzero(raw.obs_point == raw.obs_point[1] + 1)[0])
    pose = raw.cam_from_world[raw.obs_image[behind]]
    xyz[raw.obs_point[behind]] = pose[:3, :3].T @ ([0, 0, -1] - pose[:3, 3])
    sparse = sparse_from_raw(replace(raw, obs_xy_px=xy_px, xyz_in_world=xyz), np.arange(len(frames)), frames)
    total = sum(len(view.depth) for view in sparse.views)
    assert total <= len(raw.obs_point) - 3
    assert min(view.depth.min() for view in sparse.views) > 0
    assert max(view.point.max() for view in sparse.views) == len(sparse.points) - 1


def test_images_without_a_frame_do_not_count(raw: RawModel, frames: FrameSet) -> None:
    frame_of_image = np.arange(len(frames))
    frame_of_image[0] = -1
    sparse = sparse_from_raw(raw, frame_of_image, frames)
    assert [view.frame for view in sparse.views] == list(range(1, len(frames)))
    assert sparse.points.track_length.sum() == sum(len(view.depth) for view in sparse.views)


def test_another_aspect_is_refused(raw: RawModel, frames: FrameSet) -> None:
    with pytest.raises(ReconstructionError, match="aspect"):
        sparse_from_raw(raw, np.arange(len(frames)), replace(frames, hw=(300, 300)))


def test_largest_angle_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    xyz, point = rng.normal(size=(5, 3)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 4])
    centres = rng.normal(size=(10, 3)) + 3
    angles = largest_angles_deg(xyz, centres, point)
    for p in range(5):
        rays = [(c - xyz[p]) / np.linalg.norm(c - xyz[p]) for c in centres[point == p]]
        expected = max((math.degrees(math.acos(min(a @ b, 1))) for a in rays for b in rays), default=0)
        assert angles[p] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        ("SIMPLE_PINHOLE", [500, 320, 240], Camera((480, 640), 500, 500, 320, 240)),
        ("PINHOLE", [500, 510, 320, 240], Camera((480, 640), 500, 510, 320, 240)),
        ("SIMPLE_RADIAL", [500, 320, 240, 0.1], Camera((480, 640), 500, 500, 320, 240, 0.1)),
        ("RADIAL", [500, 320, 240, 0.1, 0.2], Camera((480, 640), 500, 500, 320, 240, 0.1, 0.2)),
        (
            "OPENCV",
            [5e2, 5e2, 320, 240, 0.1, 0.2, 0.3, 0.4],
            Camera((480, 640), 5e2, 5e2, 320, 240, 0.1, 0.2, 0.3, 0.4),
        ),
    ],
)
def test_camera_models(model: str, params: list[float], expected: Camera) -> None:
    assert camera_from_colmap(model, np.array([*params, np.nan]), (480, 640)) == expected
    back = camera_from_colmap(*_as_arrays(camera_to_colmap(expected)), (480, 640))
    assert back == expected


def _as_arrays(named: tuple[str, tuple[float, ...]]) -> tuple[str, np.ndarray]:
    return named[0], np.array(named[1])


def test_unsupported_camera_is_named() -> None:
    with pytest.raises(ReconstructionError, match="OPENCV_FISHEYE"):
        camera_from_colmap("OPENCV_FISHEYE", np.zeros(12), (480, 640))


@pytest.mark.parametrize(
    ("params", "hw"),
    [
        ([0, 500, 320, 240], (480, 640)),
        ([500, -80, 320, 240], (480, 640)),
        ([500, np.nan, 320, 240], (480, 640)),
        ([500, 500, 320, 240], (0, 0)),
    ],
)
def test_cameras_that_there_cannot_be(params: list[float], hw: tuple[int, int]) -> None:
    with pytest.raises(ReconstructionError, match="invalid camera"):
        camera_from_colmap("PINHOLE", np.array(params, float), hw)


@pytest.mark.parametrize("pose", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([2.0, 2.0, 2.0, 1.0])])
def test_poses_that_are_none(pose: np.ndarray, raw: RawModel, frames: FrameSet) -> None:
    poses = raw.cam_from_world.copy()
    poses[1] = pose
    with pytest.raises(ReconstructionError, match="no pose for its image"):
        sparse_from_raw(replace(raw, cam_from_world=poses), np.arange(len(raw.image_name)), frames)


# -------------------------------------------------------------------------------------------------- health

# reprojection px, step evenness, horizontal field of view: docs/method.md, trust gate
HEALTHY = [(0.45, 0.32, 82.6), (0.82, 0.51, 63.2)]
POOR = [(1.07, 1.12, 135.7), (1.13, 0.94, 81.4)]


@pytest.mark.parametrize("row", HEALTHY)
def test_good_reconstructions_are_healthy(row: tuple[float, float, float]) -> None:
    verdict = health_score(HealthFigures(*row))
    assert verdict.score > 0.6
    assert verdict.advice == ""


@pytest.mark.parametrize("row", POOR)
def test_traffic_is_poor_and_says_why(row: tuple[float, float, float]) -> None:
    verdict = health_score(HealthFigures(*row))
    assert verdict.score < 0.4
    assert verdict.advice.endswith(".")
    assert any("jumps" in concern for concern in verdict.concerns)


def test_an_implausible_view_counts_only_when_it_was_found() -> None:
    found = health_score(HealthFigures(0.5, 0.3, horizontal_view_deg=136.0))
    given = health_score(HealthFigures(0.5, 0.3, horizontal_view_deg=math.nan))
    assert found.score < 0.5 < given.score
    assert "136" in found.concerns[0]
    assert "intrinsics" in found.advice


@pytest.mark.parametrize(
    "worse",
    [
        {"reprojection_px": 1.4},
        {"step_evenness": 1.3},
        {"horizontal_view_deg": 12.0},
        {"triangulation_angle_deg": 1.1},
        {"degenerate_pair_ratio": 0.95},
        {"registered_ratio": 0.4},
        {"track_length": 2.3},
        {"halves_disagreement": 0.25},
    ],
)
def test_every_figure_can_lower_the_score(worse: dict[str, float]) -> None:
    good = HealthFigures(0.4, 0.3, 70.0, 7.0, 0.1, 1.0, 6.0, 0.02)
    assert health_score(good) == sfm_health.HealthScore(1.0, (), "")
    verdict = health_score(replace(good, **worse))
    assert verdict.score < 0.8
    assert len(verdict.concerns) == 1


# One with small pictures and cars that move, one from a hand that pauses; their cheap figures are alike.
GREY = HealthFigures(0.55, 0.97, 94.0, 7.0, 0.5, 1.0, 14.0)
BLURRED = HealthFigures(0.9, 0.95, 65.0, 7.0, 0.3, 1.0, 6.0)


def test_parts_of_the_clip_decide_in_doubt() -> None:
    assert health_score(GREY).score > 0.5
    assert health_score(replace(GREY, halves_disagreement=0.2)).score < 0.2
    assert health_score(BLURRED).score < 0.5
    assert health_score(replace(BLURRED, halves_disagreement=0.01)).score > 0.6


def test_poor_is_what_the_trust_gate_calls_poor() -> None:
    assert sfm_health.POOR == trust_gate.THRESHOLD


def test_parts_that_agree_do_not_excuse_everything() -> None:
    rotation = HealthFigures(0.15, 0.05, 49.0, 5.0, 1.0, 1.0, 7.5)
    assert health_score(replace(rotation, halves_disagreement=0.005)).score < 0.5


@pytest.mark.parametrize(
    ("figures", "worth"),
    [
        (HealthFigures(0.4, 0.3, 70.0), False),  # clear
        (GREY, True),
        (BLURRED, True),
        (HealthFigures(0.15, 0.05, 49.0, degenerate_pair_ratio=1.0), False),  # poor in any case
        (HealthFigures(*POOR[0]), False),
    ],
)
def test_parts_are_compared_only_when_they_could_turn_the_verdict(figures: HealthFigures, worth: bool) -> None:
    assert sfm_health.split_half_can_decide(figures) is worth


def test_step_evenness() -> None:
    x = np.array([0.0, 1, 2, 3, 5])
    path = np.stack([x, 0 * x, 0 * x], axis=1)
    assert sfm_health.step_evenness(path, x) == pytest.approx(0)  # a gap in time is not a jump
    assert sfm_health.step_evenness(path, np.arange(5.0)) == pytest.approx(np.std([1, 1, 1, 2]) / 1.25)
    assert math.isnan(sfm_health.step_evenness(path[:2], x[:2]))


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ((30.0, 0, math.nan, math.nan), NoModelReason.TEXTURELESS),
        ((3000.0, 0, math.nan, math.nan), NoModelReason.NO_OVERLAP),
        ((3000.0, 50, 1.0, 0.002), NoModelReason.STATIC),
        ((3000.0, 50, 1.0, 0.1), NoModelReason.ROTATION),
        ((3000.0, 50, 0.1, 0.1), NoModelReason.UNSTABLE),
    ],
)
def test_reason_and_advice_without_a_model(figures: tuple[float, int, float, float], reason: NoModelReason) -> None:
    assert sfm_health.no_model_reason(*figures) is reason
    assert sfm_health.NO_MODEL_ADVICE[reason]


# -------------------------------------------------------------------------------------------------- retry policy


def fake_attempts(
    registered: list[int], *, not_recoverable: int = -1
) -> Callable[[SfmSettings, float], AttemptResult[str]]:
    def run(settings: SfmSettings, limit_s: float) -> AttemptResult[str]:
        index = int(settings.name)
        count = registered[index]
        attempt = SfmAttempt(settings.name, count, 10 * count, 1.0)
        return AttemptResult(attempt, settings.name if count else None, not_recoverable=index == not_recoverable)

    return run


@pytest.mark.parametrize(
    ("registered", "best", "tried"),
    [
        ([100, 100], "0", 1),  # the first will do
        ([80, 100], "0", 1),  # 80 % is enough
        ([0, 90, 100], "1", 2),
        ([40, 60, 50], "1", 3),  # none is enough: the largest
        ([40, 42], "0", 2),  # hardly more is not better
        ([0, 0, 0], None, 3),
    ],
)
def test_retry_policy_keeps_the_best(registered: list[int], best: str | None, tried: int) -> None:
    planned = [SfmSettings(str(i)) for i in range(len(registered))]
    found = run_attempts(planned, fake_attempts(registered), total=100, time_left_s=lambda: 1.0)
    assert len(found.attempts) == tried
    assert (found.best.model if found.best else None) == best


def test_retry_policy_ends_when_the_time_is_up() -> None:
    left = iter([5.0, 0.0])
    found = run_attempts(
        [SfmSettings("0"), SfmSettings("1")], fake_attempts([50, 100]), total=100, time_left_s=lambda: next(left)
    )
    assert len(found.attempts) == 1
    assert found.best is not None


def test_retry_policy_ends_when_nothing_can_help() -> None:
    found = run_attempts(
        [SfmSettings("0"), SfmSettings("1")],
        fake_attempts([0, 100], not_recoverable=0),
        total=100,
        time_left_s=lambda: 1.0,
    )
    assert [attempt.rung for attempt in found.attempts] == ["0"]


def test_attempts_for_clips_and_photo_sets(tmp_path: Path) -> None:
    clip = frame_set(tmp_path, [f"{i}.png" for i in range(40)], (48, 64))
    assert attempt_settings(clip, SfmConfig())[0].overlap == SfmConfig().overlap
    assert attempt_settings(clip, SfmConfig())[-1].mapper == Mapper.GLOBAL
    photos = replace(clip, from_video=False)
    assert attempt_settings(photos, SfmConfig(exhaustive_up_to=40))[0].overlap == 0
    assert attempt_settings(photos, SfmConfig())[0].overlap == 2 * SfmConfig().overlap


def test_the_largest_model_wins() -> None:
    models = [SimpleNamespace(num_reg_images=lambda n=n: n, num_points3D=lambda: 10) for n in (2, 77, 3)]
    assert model_arrays.largest(models) is models[1]  # type: ignore[arg-type]


def test_image_pairs() -> None:
    assert database.image_pairs(3, 0) == [(0, 1), (0, 2), (1, 2)]
    assert database.image_pairs(4, 1) == [(0, 1), (1, 2), (2, 3)]
    assert {j - i for i, j in database.image_pairs(30, 3)} == {1, 2, 4}
    assert {j - i for i, j in database.image_pairs(30, 5)} == {1, 2, 3, 4, 8, 16}


# ------------------------------------------------------------------------------------------- child process


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Replace the worker by a few lines of Python; all temporary files go below `tmp_path`."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def replace_worker(code: str) -> None:
        monkeypatch.setattr(sfm_child, "worker_command", lambda job: [sys.executable, "-c", textwrap.dedent(code)])

    return replace_worker


def clip(tmp_path: Path) -> FrameSet:
    return frame_set(tmp_path, [f"{i:06d}.png" for i in range(10)], (48, 64))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_cancel_kills_the_child_and_its_children(misbehave: Callable[[str], None], tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    misbehave(f"""
        import os, subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open({str(pids)!r} + ".part", "w").write(f"{{os.getpid()}} {{grandchild.pid}}")
        os.rename({str(pids)!r} + ".part", {str(pids)!r})
        while True: pass
    """)
    calls: list[float] = []

    def cancel_once_running(progress: Progress) -> None:
        calls.append(time.monotonic())
        if pids.exists():
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        reconstruction.reconstruct(clip(tmp_path), SfmConfig(), tmp_path / "out", cancel_once_running)
    assert time.monotonic() - calls[-1] < 1
    assert max(np.diff(calls), default=0) < 1.0
    assert all(wait_for(lambda pid=pid: not alive_or_zombie(pid), 1) for pid in map(int, pids.read_text().split()))  # type: ignore[misc]
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def alive_or_zombie(pid: int) -> bool:
    """A killed grandchild whose new parent has not yet collected it counts as gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return alive(pid) and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_timeout_gives_no_model_that_says_so(misbehave: Callable[[str], None], tmp_path: Path) -> None:
    misbehave("import time; time.sleep(60)")
    start = time.monotonic()
    result = reconstruction.reconstruct(clip(tmp_path), SfmConfig(time_limit_s=0.5), tmp_path / "out")
    assert time.monotonic() - start < 3
    assert isinstance(result, NoModel)
    assert result.reason is NoModelReason.OUT_OF_TIME
    assert "ran out of its" in result.advice
    assert result.attempts[0].note == "out of time"


def test_native_abort_is_a_result(misbehave: Callable[[str], None], tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    misbehave("import os, sys; print('chatter', file=sys.stderr, flush=True); print('chatter', flush=True); os.abort()")
    result = reconstruction.reconstruct(clip(tmp_path), SfmConfig(), tmp_path / "out")
    assert isinstance(result, NoModel)
    assert result.reason is NoModelReason.CRASHED
    assert "crashed" in result.advice
    assert "signal 6" in result.attempts[0].note
    assert "chatter" in result.attempts[0].note
    assert len(result.attempts) == len(
        attempt_settings(clip(tmp_path), SfmConfig())
    )  # one failed attempt does not end the run
    assert "chatter" not in "".join(capfd.readouterr())


def test_one_frame_and_odd_names(tmp_path: Path) -> None:
    single = reconstruction.reconstruct(frame_set(tmp_path, ["a.png"], (48, 64)), SfmConfig(), tmp_path / "out")
    assert isinstance(single, NoModel)
    with pytest.raises(ReconstructionError, match="white space"):
        reconstruction.reconstruct(frame_set(tmp_path, ["a b.png", "c.png"], (48, 64)), SfmConfig(), tmp_path / "out")


def test_abort_while_importing_is_an_error(misbehave: Callable[[str], None], tmp_path: Path, synthetic) -> None:  # type: ignore[no-untyped-def]
    synthetic.write_binary(tmp_path)
    misbehave("import os; os.abort()")
    with pytest.raises(ReconstructionError, match="crashed"):
        reconstruction.import_model(clip(tmp_path), tmp_path, tmp_path / "out")


def test_child_ends_when_its_parent_dies(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = (
        "import os, time; from sfmttr.utils.child_process import die_with_parent; die_with_parent(os.getppid());"
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = textwrap.dedent(f"""
        import sys, pathlib
        from sfmttr.sfm import subprocess_runner as sfm_child
        from sfmttr.sfm.protocol import SfmJob
        sfm_child.worker_command = lambda job: [sys.executable, "-c", {child!r}]
        folder = pathlib.Path({str(tmp_path)!r})
        sfm_child.run_job(SfmJob("reconstruct", str(folder / "out")), folder, lambda progress: None, 60)
    """)
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    try:
        assert wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", 30)
        process.kill()
        process.wait()
        assert wait_for(lambda: not alive_or_zombie(int(pid_file.read_text())), 3)
    finally:
        process.kill()
        process.wait()


def test_job_and_facts_survive_json(tmp_path: Path) -> None:
    job = SfmJob(
        "reconstruct",
        "out",
        files=("a.png",),
        camera_params=(1.0, 2.0),
        settings=SfmSettings("x", mapper=Mapper.GLOBAL),
    )
    write_json(tmp_path / "job.json", job)
    assert read_model(tmp_path / "job.json", SfmJob) == job
    statistics = MatchStatistics(
        seconds={"features": 1.0}, median_features=3.0, degenerate_ratio=0.5, model_sizes=(2, 77)
    )
    statistics.write(tmp_path)
    assert replace(MatchStatistics.read(tmp_path), displacement_ratio=0.0) == replace(
        statistics, displacement_ratio=0.0
    )


# ------------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize("form", ["binary", "text"])
def test_import_of_a_given_model(synthetic, raw: RawModel, frames: FrameSet, tmp_path: Path, form: str) -> None:  # type: ignore[no-untyped-def]
    given = tmp_path / "given" / "sparse" / "0"
    given.mkdir(parents=True)
    (synthetic.write_binary if form == "binary" else synthetic.write_text)(given)
    # Stored as PNG at half the size: names agree by their stems, pixels scale.
    stored = replace(
        frames,
        files=tuple(f"{Path(f).stem}.jpg" for f in frames.files),
        hw=(frames.hw[0] // 2, frames.hw[1] // 2),
    )
    model = reconstruction.reconstruct(stored, SfmConfig(model_folder=tmp_path / "given"), tmp_path / "out")
    assert isinstance(model, SparseModel)
    expected = sparse_from_raw(raw, np.arange(len(frames)), stored)
    assert len(model.views) == len(expected.views)
    for view, wanted in zip(model.views, expected.views, strict=True):
        np.testing.assert_allclose(np.sort(view.depth), np.sort(wanted.depth), rtol=1e-5)
    assert model.rung == "given"
    assert model.health.focal_given
    assert model.health.registered == len(frames)
    reloaded = reconstruction.load_model(stored, tmp_path / "out")
    np.testing.assert_array_equal(reloaded.views[0].depth, model.views[0].depth)
    assert reloaded.health == replace(model.health, degenerate_pair_ratio=reloaded.health.degenerate_pair_ratio)
    assert (tmp_path / "out" / "points3D.bin").exists()


def test_a_damaged_model_is_a_clear_error(synthetic, frames: FrameSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    synthetic.write_binary(tmp_path)
    (tmp_path / "images.bin").write_bytes((tmp_path / "images.bin").read_bytes()[:100])
    with pytest.raises(ReconstructionError, match="given model cannot be used"):
        reconstruction.import_model(frames, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_model_in_the_folder(frames: FrameSet, tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match="no COLMAP model"):
        reconstruction.import_model(frames, tmp_path, tmp_path / "out")


def test_images_match_by_name_stem_or_number(raw: RawModel, frames: FrameSet) -> None:
    def matched(names: list[str]) -> list[int]:
        return match_images(replace(raw, image_name=np.array(names)), frames).tolist()

    everyone = list(range(len(frames)))
    assert matched([f"left/{f}" for f in frames.files]) == everyone
    assert matched([f"{n}.tiff" for n in frames.names]) == everyone
    assert matched([f"frame_{n:05d}.png" for n in reversed(frames.numbers)]) == everyone[::-1]
    some = [f if i else "other.png" for i, f in enumerate(frames.files)]
    assert matched(some) == [-1, *everyone[1:]]
    with pytest.raises(ReconstructionError, match="No image of the model"):
        matched(["x.png"] * len(frames))
    with pytest.raises(ReconstructionError, match="one camera"):
        matched([f"{side}/{f}" for side in ("left", "right") for f in frames.files][: len(frames) + 2])


# ------------------------------------------------------------------------------------------------- halves


def half_of(raw: RawModel, first: int, scale: float, noise: float) -> RawModel:
    """Every second image of a model, at another scale, each point off by a factor about 1 + noise."""
    keep = np.flatnonzero(np.isin(raw.obs_image, np.arange(first, len(raw.image_name), 2)))
    pose = raw.cam_from_world.copy()
    pose[:, :3, 3] *= scale
    factors = np.exp(np.random.default_rng(first).normal(0, noise, (len(raw.xyz_in_world), 1)))
    # Points move along the ray of their first camera: depths there change by exactly the factor.
    return replace(
        raw,
        cam_from_world=pose,
        xyz_in_world=raw.xyz_in_world * scale * factors,
        obs_image=raw.obs_image[keep],
        obs_feature=raw.obs_feature[keep],
        obs_point=raw.obs_point[keep],
        obs_xy_px=raw.obs_xy_px[keep],
    )


def test_halves_agree_up_to_scale(raw: RawModel) -> None:
    assert split_half_disagreement(raw, half_of(raw, 0, 3.0, 0.0), half_of(raw, 1, 0.2, 0.0)) < 1e-6
    assert split_half_disagreement(raw, half_of(raw, 0, 3.0, 0.3), half_of(raw, 1, 0.2, 0.3)) > 0.01


@pytest.fixture
def parts(raw: RawModel, frames: FrameSet, tmp_path: Path) -> Callable[..., float]:
    """The disagreement of the parts of `raw` when each part's rung ends with one of the given results."""

    def disagreement(*results: AttemptResult[FoundModel], left_s: float = 9.0) -> float:
        raw.write(tmp_path)
        endings = iter(results)
        runner = SimpleNamespace(time_left_s=lambda: left_s, run=lambda settings, limit_s, subset: next(endings))
        return split_half.map_halves(frames, runner, SfmSettings(), FoundModel(tmp_path, MatchStatistics()))  # type: ignore[arg-type]

    return disagreement


def ending(registered: int, folder: Path | None, note: str = "") -> AttemptResult[FoundModel]:
    attempt = SfmAttempt("part", registered, 100, 1.0, note)
    found = None if folder is None else FoundModel(folder, MatchStatistics())
    return AttemptResult(attempt, found, interrupted=note not in ("", NO_MODEL))


def test_parts_that_agree(parts: Callable[..., float], tmp_path: Path) -> None:
    assert parts(ending(5, tmp_path), ending(5, tmp_path)) == pytest.approx(0, abs=1e-9)


def test_a_part_without_a_model_disagrees(parts: Callable[..., float], tmp_path: Path) -> None:
    assert parts(ending(0, None, NO_MODEL)) == 1.0
    assert parts(ending(5, tmp_path), ending(2, tmp_path)) < 1e-9  # few frames, but they agree


def test_a_part_that_has_lost_the_common_points_disagrees(
    parts: Callable[..., float], raw: RawModel, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    replace(raw, obs_feature=raw.obs_feature + 10_000).write(elsewhere)
    assert parts(ending(5, tmp_path), ending(2, elsewhere)) == 1.0
    assert math.isnan(parts(ending(5, tmp_path), ending(5, elsewhere)))


@pytest.mark.parametrize("note", ["out of time", "the process crashed (ended by signal 6)"])
def test_a_part_that_was_not_finished_says_nothing(parts: Callable[..., float], tmp_path: Path, note: str) -> None:
    assert math.isnan(parts(ending(5, tmp_path), ending(0, None, note)))
    assert math.isnan(parts(left_s=0.0))


# ------------------------------------------------------------------------------------------- the first pair

PAIR_NAMES = ("a.png", "b.png", "c.png", "d.png")


@pytest.fixture(scope="module")
def pair_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four views of random points: b is a hand's breadth from a, c half a metre; d turns at c's place. b and d see few
    points."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-3, -2, 4), (3, 2, 9), (400, 3))
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 500, 640, 480)
    camera.has_prior_focal_length = True
    turned = pycolmap.Rotation3d(np.array([0.0, 0.1, 0.0]))
    poses = [pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-x, 0, 0])) for x in (0.0, 0.1, 0.5)]
    poses.append(pycolmap.Rigid3d(turned, turned.matrix() @ np.array([-0.5, 0, 0])))
    xy = [camera.img_from_cam(pose * xyz) for pose in poses]
    path = tmp_path_factory.mktemp("pairs") / "pairs.db"
    with pycolmap.Database.open(path) as database:
        database.write_camera(camera, use_camera_id=True)
        for i, name in enumerate(PAIR_NAMES):
            image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1)
            database.write_image(image, use_image_id=True)
            database.write_keypoints(i + 1, xy[i].astype(np.float32))
        for first, second, count in ((1, 2, 200), (1, 3, 400), (2, 3, 200), (3, 4, 400), (2, 4, 200)):
            matches = np.repeat(np.arange(count, dtype=np.uint32)[:, None], 2, axis=1)
            geometry = pycolmap.estimate_calibrated_two_view_geometry(
                camera, xy[first - 1], camera, xy[second - 1], matches
            )
            database.write_two_view_geometry(first, second, geometry)
    return path


def pair_job(database: Path, count: int) -> SfmJob:
    return SfmJob("reconstruct", "", files=PAIR_NAMES, database=str(database), settings=SfmSettings(first_pairs=count))


def test_the_first_pair_sees_much_under_a_wide_angle(pair_database: Path) -> None:
    """(a, c) is widest and richest; without them (b, d) is left; c and d, which share a place, come last."""
    assert mapping.initial_pairs(pair_job(pair_database, 6), list(PAIR_NAMES)) == [(1, 3), (2, 4)]
    assert mapping.initial_pairs(pair_job(pair_database, 1), list(PAIR_NAMES)) == [(1, 3)]


def test_the_first_pair_turns_in_place_only_for_want_of_better(pair_database: Path) -> None:
    assert mapping.initial_pairs(pair_job(pair_database, 6), ["b.png", "c.png", "d.png"])[0] in {(2, 3), (2, 4)}
    assert (3, 4) not in mapping.initial_pairs(pair_job(pair_database, 6), list(PAIR_NAMES))


@pytest.mark.parametrize(("sizes", "tried"), [([4], 1), ([2, 4, 4], 2), ([0, 1, 1], 3)])
def test_mapping_starts_again_from_another_pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sizes: list[int], tried: int
) -> None:
    pairs = [(1, 2), (3, 4), (5, 6)]
    left = iter(sizes)
    seen: list[object] = []

    def grow(*_: object, pair: tuple[int, int]) -> list[SimpleNamespace]:
        seen.append(pair)
        size = next(left)
        return [SimpleNamespace(num_reg_images=lambda: size, num_points3D=lambda: 0)] if size else []

    monkeypatch.setattr(mapping, "initial_pairs", lambda job, names: pairs)
    monkeypatch.setattr(mapping, "_run_incremental_mapper", grow)
    job = SfmJob("reconstruct", str(tmp_path), files=tuple("abcde"))
    models = mapping.map_incremental(job, 60.0, lambda *_: None)
    assert seen == pairs[:tried]
    assert [model.num_reg_images() for model in models] == [size for size in sizes[:tried] if size]


# --------------------------------------------------------------------------------------- a real small clip


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> FrameSet:
    """Textured cards at several depths before a sideways moving camera: each moves by focal / depth pixels a step."""
    folder, hw, rng = tmp_path_factory.mktemp("layers"), (180, 240), np.random.default_rng(0)
    cards = []
    for shift in (2, 3, 4, 6, 8, 12):  # pixels a frame, far to near
        height, width = hw[0] // 3, hw[1]
        texture = rng.integers(0, 255, (height // 3, (width + 200) // 3, 3), np.uint8)
        big = Image.fromarray(texture).resize((width + 200, height), Image.Resampling.BICUBIC)
        cards.append((shift, int(rng.integers(0, hw[0] - height)), np.asarray(big)))
    cards[0] = (2, 0, np.asarray(Image.fromarray(cards[0][2]).resize((hw[1] + 200, hw[0]))))
    files = []
    for i in range(7):
        canvas = np.zeros((*hw, 3), np.uint8)
        for n, (shift, top, card) in enumerate(cards):
            left, right = (0, hw[1]) if n == 0 else (30 * n, 30 * n + 90)
            left, right = left - shift * i * (n > 0), right - shift * i * (n > 0)
            start, end = max(left, 0), min(right, hw[1])
            canvas[top : top + card.shape[0], start:end] = card[:, start + shift * i : end + shift * i]
        files.append(f"{i:06d}.png")
        Image.fromarray(canvas).save(folder / files[-1])
    return frame_set(folder, files, hw)


LAYERS_CONFIG = SfmConfig(intrinsics=Camera((180, 240), 240.0, 240.0, 120.0, 90.0), threads=1)


@pytest.fixture(scope="module")
def layered(layers: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("layered")
    seen: list[Progress] = []
    model = reconstruction.reconstruct(layers, LAYERS_CONFIG, folder / "model", seen.append, folder / "cache")
    return SimpleNamespace(model=model, seen=seen, folder=folder)


def test_a_clip_is_reconstructed(layers: FrameSet, layered: SimpleNamespace) -> None:
    model = layered.model
    assert isinstance(model, SparseModel), model
    assert model.health.registered == len(layers)
    assert model.health.focal_px == pytest.approx(240.0)  # given, so it stays
    assert model.attempts[0].rung == model.rung == "standard"
    assert model.health.halves_disagreement is None  # there was no doubt
    # depth = focal * baseline / shift; far and near cards differ by a factor of 6
    depth = np.concatenate([view.depth for view in model.views])
    assert np.percentile(depth, 99) / np.percentile(depth, 1) == pytest.approx(6, rel=0.1)


def test_points_have_the_mean_colour_of_their_pixels(layers: FrameSet, layered: SimpleNamespace) -> None:
    points, views = layered.model.points, layered.model.views
    total, count = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for view in views:
        x, y = view.xy_px.astype(int).T
        np.add.at(total, view.point, layers.read(view.frame).rgb[y, x].astype(float))
        np.add.at(count, view.point, 1)
    # All but the few of which an observation was left out after the points were coloured.
    whole = count[:, 0] == points.track_length
    assert whole.mean() > 0.9
    np.testing.assert_allclose(points.rgb[whole], (total / count)[whole], atol=0.51)
    assert points.rgb.std() > 20


def test_in_doubt_the_parts_are_compared_and_reported(
    layers: FrameSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sfm_health, "split_half_can_decide", lambda figures: True)
    monkeypatch.setattr(split_half, "_MIN_PART_FRAMES", 4)
    model = reconstruction.reconstruct(layers, LAYERS_CONFIG, tmp_path / "out")
    assert isinstance(model, SparseModel)
    assert model.health.halves_disagreement is not None
    assert model.health.halves_disagreement < 0.03
    assert reconstruction.load_model(layers, tmp_path / "out").health == model.health
    assert [attempt.rung for attempt in model.attempts] == ["standard"]


def test_progress_names_stage_and_rung(layered: SimpleNamespace) -> None:
    assert {p.stage for p in layered.seen} == {"sfm"}
    assert {p.note for p in layered.seen} >= {"features, standard", "matching, standard", "mapping, standard"}
    assert {p.phase for p in layered.seen} >= {SfmPhase.FEATURES, SfmPhase.MATCHING, SfmPhase.MAPPING}
    assert "standard" in {p.attempt for p in layered.seen}
    assert all(0 <= p.done <= p.total for p in layered.seen)


def test_cached_model_needs_no_child(
    layers: FrameSet, layered: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sfm_child, "worker_command", lambda job: [sys.executable, "-c", "raise SystemExit(1)"])
    again = reconstruction.reconstruct(layers, LAYERS_CONFIG, tmp_path / "again", cache_folder=layered.folder / "cache")
    assert isinstance(again, SparseModel)
    assert again.health == layered.model.health
    np.testing.assert_array_equal(again.points.xyz_in_world, layered.model.points.xyz_in_world)
    other = reconstruction.reconstruct(
        layers, replace(LAYERS_CONFIG, seed=1), tmp_path / "other", cache_folder=layered.folder / "cache"
    )
    assert isinstance(other, NoModel)  # another seed is another reconstruction, and this child fails


def test_a_cache_that_cannot_be_written_or_read_costs_nothing_else(
    layered: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, (cached,) = tmp_path / "source", (layered.folder / "cache").iterdir()
    assert cache.restore(cached, source)
    (tmp_path / "file").write_text("no folder")
    cache.keep(source, tmp_path / "file" / cached.name)
    assert "cannot be kept" in caplog.text
    assert not cache.restore(cached, tmp_path / "file" / "there")
    assert "made anew" in caplog.text


def test_the_cache_keeps_what_was_used_last(layered: SimpleNamespace, tmp_path: Path) -> None:
    (cached,) = (layered.folder / "cache").iterdir()
    kept = tmp_path / "cache"
    names = [f"{i:032x}" for i in range(4)]
    for age_s, name in enumerate(names):
        cache.keep(cached, kept / name)
        os.utime(kept / name, (time.time() - 1000 * age_s,) * 2)
    (kept / "notes").mkdir()
    assert cache.restore(kept / names[3], tmp_path / "out")  # now it was used last
    assert cache.sweep(kept, most=3) == 1
    assert {path.name for path in kept.iterdir()} == {names[0], names[1], names[3], "notes"}
    assert reconstruction.sweep_cache(kept, 500.0) == 1
    assert {path.name for path in kept.iterdir()} == {names[0], names[3], "notes"}
    assert reconstruction.sweep_cache(tmp_path / "nowhere", 0.0) == 0


def test_one_thread_repeats_bit_for_bit(layers: FrameSet, layered: SimpleNamespace, tmp_path: Path) -> None:
    again = reconstruction.reconstruct(layers, LAYERS_CONFIG, tmp_path / "again")
    assert isinstance(again, SparseModel)
    np.testing.assert_array_equal(again.points.xyz_in_world, layered.model.points.xyz_in_world)
    np.testing.assert_array_equal(again.views[-1].cam_from_world, layered.model.views[-1].cam_from_world)
