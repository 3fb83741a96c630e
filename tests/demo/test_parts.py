"""Parts of the page that need no browser: folders, queue, jobs, uploads, estimates, charts, the export's child."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import api, clip_preview, export_worker
from demo.clip_preview import preview_clip, warnings
from demo.eta import TimingHistory, format_duration, remaining_s, total_s
from demo.export_worker import ExportFailedError, ExportRequest, export
from demo.jobs import INTERNAL_ERROR, Job, Jobs
from demo.queue import QueueFullError, WorkQueue
from demo.sessions import SessionStore
from demo.uploads import keep_upload, safe_name
from demo.views.charts import Axis, Level, Mark, Series, line_chart
from sfmttr.errors import Cancelled, ClipError
from sfmttr.types import Progress
from tests.support.page import children, page_config
from tools.synthetic import RenderedClip, write_video

# ---------------------------------------------------------------------------------------- folders


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "visitors", keep_s=100.0, keep_most=3)


def aged(store: SessionStore, age_s: float):  # type: ignore[no-untyped-def]
    session = store.new()
    then = time.time() - age_s
    os.utime(session.folder / ".looked-at", (then, then))
    return session


def test_an_id_opens_its_folder_and_nothing_else_does(store: SessionStore) -> None:
    session = store.new()
    assert store.find(session.id) == session
    for other in (
        session.id[:-1],
        session.id + "x",
        "..",
        "../" + session.id,
        "",
        None,
        3,
        "/etc",
        session.id.swapcase(),
    ):
        assert store.find(other) is None
    assert len({store.new().id for _ in range(50)}) == 50


def test_old_folders_go_and_used_ones_stay(store: SessionStore) -> None:
    old, young, used = aged(store, 200), aged(store, 50), aged(store, 200)
    with store.in_use(used):
        assert store.sweep() == 1
    assert [session.folder.is_dir() for session in (old, young, used)] == [False, True, True]
    assert store.sweep() == 0  # whoever was at work has looked at it


def test_the_oldest_of_too_many_go(store: SessionStore) -> None:
    sessions = [aged(store, age) for age in (5, 40, 10, 30, 20)]
    assert store.sweep() == 2
    assert [session.folder.is_dir() for session in sessions] == [True, False, True, False, True]


def test_looking_at_a_folder_keeps_it(store: SessionStore) -> None:
    session = aged(store, 200)
    store.find(session.id)
    assert store.sweep() == 0


# ------------------------------------------------------------------------------------------- line


def test_first_come_first_served_and_all_know_their_position() -> None:
    queue, order, positions, gate = WorkQueue(8), [], [], threading.Event()

    def stand(name: str, note: Callable[[int], None]) -> threading.Thread:
        def work() -> None:
            with queue.acquire(note):
                order.append(name)
                gate.wait(5)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    first = stand("first", lambda position: None)
    while "first" not in order:
        time.sleep(0.01)
    second = stand("second", lambda position: None)
    while queue.waiting < 1:
        time.sleep(0.01)
    third = stand("third", positions.append)
    while not positions:
        time.sleep(0.01)
    assert (queue.waiting, positions[0]) == (2, 2)
    gate.set()
    for thread in (first, second, third):
        thread.join(5)
    assert order == ["first", "second", "third"]
    assert positions[-1] == 0
    assert sorted(positions, reverse=True) == positions
    assert queue.idle


def test_leaving_the_queue_lets_others_pass() -> None:
    queue = WorkQueue(8)

    def leave(position: int) -> None:
        raise Cancelled("gone")

    with queue.acquire(lambda position: None), pytest.raises(Cancelled), queue.acquire(leave):
        pass
    assert queue.idle


def test_a_full_queue_is_refused_with_a_sentence() -> None:
    queue = WorkQueue(0)
    with (
        queue.acquire(lambda position: None),
        pytest.raises(QueueFullError, match="come back"),
        queue.acquire(lambda position: None),
    ):
        pass


# ------------------------------------------------------------------------------------------- jobs


def run_to_end(job: Job[int]) -> None:
    job.start()
    assert job.join(5)


def test_a_job_reports_and_ends() -> None:
    def work(on_event: Callable[[object], None]) -> int:
        on_event("one")
        on_event("two")
        return 3

    job = Job(work)
    run_to_end(job)
    assert job.result is not None
    assert job.result.value == 3
    assert list(job.events(0.1)) == ["one", "two", None]


def test_a_stopped_job_ends_at_its_next_event() -> None:
    cleaned = []

    def work(on_event: Callable[[object], None]) -> int:
        try:
            while True:
                on_event("tick")
                time.sleep(0.01)
        finally:
            cleaned.append(True)

    job, jobs = Job(work), Jobs()
    jobs.start(job, "visitor")
    next(iter(job.events(5)))
    assert not jobs.stop("another")
    assert jobs.stop(job.id)
    assert job.join(2)
    assert job.result is not None
    assert job.result.stopped
    assert cleaned
    jobs.forget(job.id)
    assert jobs.running == 0


def test_only_the_visitor_s_own_jobs_end_with_them() -> None:
    def work(on_event: Callable[[object], None]) -> int:
        while True:
            on_event(None)
            time.sleep(0.01)

    mine, yours, jobs = Job(work), Job(work), Jobs()
    jobs.start(mine, "me")
    jobs.start(yours, "you")
    jobs.stop_visitor("me")
    assert mine.join(2)
    assert yours.result is None
    yours.stop()
    assert yours.join(2)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(ClipError("Film again."), "Film again."), (ZeroDivisionError("secret path"), INTERNAL_ERROR)],
)
def test_a_failed_job_has_a_sentence(error: Exception, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    def work(on_event: Callable[[object], None]) -> int:
        raise error

    job = Job(work)
    run_to_end(job)
    assert job.result is not None
    assert job.result.problem == sentence
    assert ("secret path" in caplog.text) is isinstance(error, ZeroDivisionError)


# ---------------------------------------------------------------------------------------- uploads


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "Choose a video"),
        (("a.png",), "no motion"),
        (("a.mp4", "b.mp4"), "one video"),
        (("a.mp4", "b.png"), "one video"),
        (("a.exe",), r"Files \.exe"),
        (("plain",), "without an extension"),
        (tuple(f"{i}.png" for i in range(6)), "at most 5"),
    ],
)
def test_unsupported_uploads_are_refused_with_a_sentence(tmp_path: Path, names: tuple[str, ...], sentence: str) -> None:
    paths = touch(tmp_path / "up", *names)
    (tmp_path / "kept").mkdir()
    with pytest.raises(ClipError, match=sentence):
        keep_upload(paths, tmp_path / "kept", 1000, 5)


def test_too_large_uploads_are_refused(tmp_path: Path) -> None:
    (path,) = touch(tmp_path / "up", "a.mp4")
    path.write_bytes(bytes(2_000_001))
    with pytest.raises(ClipError, match="more than 2 MB"):
        keep_upload([path], tmp_path, 2_000_000, 5)


def test_names_become_plain(tmp_path: Path) -> None:
    assert safe_name("../../etc/pass wd;.MP4") == "pass_wd.mp4"
    assert safe_name("....png") == "clip.png"
    assert safe_name("<script>.zip") == "script.zip"
    assert len(safe_name("x" * 300 + ".mov")) < 100
    kept = keep_upload(touch(tmp_path / "up", "a b.png", "a;b.png", "A_b.png"), tmp_path, 1000, 5)
    assert sorted(path.name for path in kept.iterdir()) == ["A_b_3.png", "a_b.png", "a_b_2.png"]


def test_pictures_with_long_names_keep_their_order(tmp_path: Path) -> None:
    paths = touch(tmp_path / "up", *(f"{'x' * 90}_{i:04d}.png" for i in range(9)))
    for path, content in zip(paths, "abcdefghi", strict=True):
        path.write_text(content)
    kept = keep_upload(paths[::-1], tmp_path, 1000, 9)
    assert "".join(path.read_text() for path in sorted(kept.iterdir())) == "abcdefghi"


def test_an_answer_has_a_folder_of_its_own_and_old_ones_go(tmp_path: Path) -> None:
    first, second = (api.make_answer_folder(tmp_path / "predicted") for _ in range(2))
    assert first != second
    os.utime(first, (0, 0))
    third = api.make_answer_folder(tmp_path / "predicted")
    assert set((tmp_path / "predicted").iterdir()) == {second, third}


# --------------------------------------------------------------------------------------- estimate


def test_a_preview_describes_the_clip(room: RenderedClip, tmp_path: Path) -> None:
    config = page_config(tmp_path)
    clip = write_video(room, tmp_path / "room.mp4", fps=10.0)
    preview = preview_clip(clip, config.video)
    assert preview.used_s == pytest.approx(1.2, abs=0.15)
    assert preview.frames == 12
    assert 2 <= len(preview.pictures) <= clip_preview.PREVIEW_FRAMES
    assert [text for text in warnings(preview, config) if "Only 1.2 s" in text]


def test_a_clip_that_hardly_moves_is_warned_of(tmp_path: Path) -> None:
    config = page_config(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    folder = tmp_path / "still"
    folder.mkdir()
    for i in range(20):
        noisy = np.clip(picture.astype(int) + i % 2, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.png")
    assert any("hardly moves" in text for text in warnings(preview_clip(folder, config.video), config))


def test_timings_are_recorded_and_kept(tmp_path: Path) -> None:
    timings = TimingHistory(tmp_path / "rates.json")
    before = total_s(timings.stages_s(50, "bundled", "fast"))
    timings.record_run({"sfm": 500.0, "refine": 10.0, "unknown": 5.0}, 50, "bundled", "fast")
    again = TimingHistory(tmp_path / "rates.json").stages_s(50, "bundled", "fast")
    assert again["sfm"] == pytest.approx(500)
    assert again["refine"] == pytest.approx(10)
    assert total_s(again) > before
    (tmp_path / "rates.json").write_text("{ damaged")
    assert total_s(TimingHistory(tmp_path / "rates.json").stages_s(50, "bundled", "fast")) == pytest.approx(before)


def test_time_left_shrinks() -> None:
    stages = TimingHistory(Path("nowhere")).stages_s(60, "bundled", "fast")
    times = [
        remaining_s(stages, "frames", 0.0, 0.0),
        remaining_s(stages, "sfm", 0.0, 0.0),
        remaining_s(stages, "sfm", 0.5, stages["sfm"] / 2),
        remaining_s(stages, "refine", 0.9, 1.0),
        remaining_s(stages, "outputs", 1.0, 3.0),
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] == 0.0
    assert format_duration(3) == "about 5 s"
    assert format_duration(200) == "about 3 min"


# ----------------------------------------------------------------------------------------- charts


def test_a_chart_draws_what_is_finite() -> None:
    series = Series("error", [(0, 0.2), (10, float("nan")), (20, 0.1)], dots=True)
    svg = line_chart(
        [series],
        Axis("step"),
        Axis("<error>", percent=True),
        level=Level(0.2, "before & after"),
        mark=Mark(20, 0.1, "best"),
    )
    (points,) = re.findall(r'points="([^"]+)"', svg)
    assert len(points.split()) == 2
    assert svg.count("<circle") == 3
    assert "before &amp; after" in svg
    assert "&lt;error&gt;" in svg
    assert "20 %" in svg
    assert line_chart([Series("none", [])], Axis("x"), Axis("y")) == ""


# ---------------------------------------------------------------------------------- export's child

TALKS = """
import json, sys
print(json.dumps(["export", 1, 4, "half way", "fp32"]), flush=True)
print("noise", flush=True)
print(json.dumps({"problem": sys.argv[1]} if sys.argv[1] else {}), flush=True)
"""
HANGS = """
import json, pathlib, sys, time
pathlib.Path(sys.argv[1], ".tmp-1234-export").mkdir()
print(json.dumps(["export", 1, 4, "half way", "fp32"]), flush=True)
time.sleep(60)
"""


def child(patch: pytest.MonkeyPatch, code: str, argument: str) -> None:
    patch.setattr(export_worker, "command", lambda run, request: [sys.executable, "-c", code, argument])


def test_the_child_s_progress_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, TALKS, "")
    heard: list[Progress] = []
    export(tmp_path, ExportRequest(), heard.append)
    assert Progress("export", 1, 4, "half way", "fp32") in heard


def test_the_child_s_sentence_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, TALKS, "It is not faithful.")
    with pytest.raises(ExportFailedError, match="not faithful"):
        export(tmp_path, ExportRequest(), lambda _: None)


def test_a_child_that_dies_is_a_sentence_and_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    child(monkeypatch, "import sys; sys.exit('some trace')", "")
    with pytest.raises(ExportFailedError, match="ended unexpectedly"):
        export(tmp_path, ExportRequest(), lambda _: None)
    assert "some trace" in caplog.text


def test_stopping_ends_the_child_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, HANGS, str(tmp_path))

    def stop(progress: Progress) -> None:
        if progress.phase == "fp32":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        export(tmp_path, ExportRequest(), stop)
    assert not list(tmp_path.glob(".tmp-*"))
    assert child_processes() == []


def child_processes() -> list[str]:
    """Command lines of this process's children that are no helpers of tests."""
    return [line for line in children() if "resource_tracker" not in line and "playwright" not in line]


def test_zips_hold_what_the_folder_holds(tmp_path: Path) -> None:
    from demo.downloads import available_downloads, download_path
    from demo.sessions import Session

    session = Session("x" * 22, tmp_path)
    (session.run / "depth" / "refined").mkdir(parents=True)
    for i in range(3):
        (session.run / "depth" / "refined" / f"{i}.png").write_bytes(bytes([i]) * 50)
    assert [offer.name for offer in available_downloads(session)] == ["depth-refined.zip"]
    path = download_path(session, "depth-refined.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["0.png", "1.png", "2.png"]
    for name in ("../manifest.json", "manifest.json", "depth/refined", "kit.zip"):
        with pytest.raises(KeyError):
            download_path(session, name)
