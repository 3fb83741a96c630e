"""The page's events called directly: a whole run by stand-ins, stopping, leaving, results that are not refined."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from demo.api import Endpoints
from demo.config import Example
from demo.eta import ORDER
from demo.export_worker import ExportRequest
from demo.form import RunRequest, SelectedClip, parse_export_request, parse_known_depth
from demo.handlers import Handlers
from demo.jobs import INTERNAL_ERROR
from demo.run_progress import ProgressTracker
from demo.run_view import view_of, webp
from demo.runner import QueueEvent
from demo.service import Service
from demo.views import common, progress
from demo.views.common import picture_uri
from demo.views.try_it import prediction
from export.spec import NetworkDescription
from sfmttr.config import RECIPES, Preset
from sfmttr.errors import ConfigError, IntrinsicsError
from sfmttr.io.json_files import write_json
from sfmttr.networks.base import state_dict_cpu
from sfmttr.run import pipeline
from sfmttr.sfm import reconstruction
from sfmttr.sfm.protocol import SfmPhase, SfmSettings
from sfmttr.types import Progress
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny
from tests.support.page import cpu_service
from tools.synthetic import RenderedClip, write_video

CLOSED = {"score": 0.2, "outliers": 0.8, "noise": 0.8}
FORM = (TINY, "fast", 12, None, None, "", 0, False)
RESULTS = ("verdict", "compare", "points", "report", "downloads")


class Bench:
    """A page without its layout."""

    def __init__(self, folder: Path, clip: Path, sfm: FakeSfm) -> None:
        self.clip, self.sfm = clip, sfm
        self.service: Service = cpu_service(folder, least_frames=3)
        self.calls = Handlers(self.service)

    def choose(self, *form: Any) -> SelectedClip:
        chosen, _, button = self.calls.inputs.upload([str(self.clip)], *(form or FORM))
        assert chosen is not None
        assert button.interactive
        return chosen

    def run(self, *form: Any) -> list[tuple[Any, ...]]:
        return list(self.calls.run.start(self.choose(*form), *(form or FORM)))

    def finish(self, *form: Any) -> str:
        """The key of a run that went to its end."""
        key = self.run(*form)[-1][4]
        assert isinstance(key, str)
        return key

    def quiet(self) -> bool:
        """Return whether no work is left: no job, no thread, nobody in the queue, no folder of a run."""
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("job-")]
        runs = [path for path in (self.service.config.folder / "visitors").glob("*/run")]
        return not threads and not runs and self.service.queue.idle and self.service.jobs.running == 0


@pytest.fixture
def bench(room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    torch.manual_seed(0)
    register_tiny(monkeypatch, tmp_path / "weights", state_dict_cpu(fit(TinyNetwork(), room, steps=15)))
    recipe = RECIPES[Preset.FAST]
    monkeypatch.setitem(RECIPES, Preset.FAST, recipe.__class__(recipe.align, recipe.weight, _quick(recipe.refine)))
    clip = write_video(room, tmp_path / "my room.mp4", fps=4.0)
    return Bench(tmp_path / "page", clip, FakeSfm(room).install(monkeypatch))


def _quick(config: Any) -> Any:
    return config.__class__(**{**vars(config), "steps": 20, "match_time_budget": False, "num_validations": 4})


# --------------------------------------------------------------------------------------- a run


def test_a_run_is_watched_and_shown(bench: Bench) -> None:
    updates = bench.run()
    live = [update[0] for update in updates if isinstance(update[0], str)]
    assert any("Fine-tune the network" in each and "step " in each for each in live)
    assert any("left" in each for each in live)
    first, last = updates[0], updates[-1]
    assert first[2].visible  # stop
    assert first[3] is not None
    assert last[2].visible is False
    key = last[4]
    shown = bench.calls.results.show(key)
    assert shown["results"].visible
    assert "more accurate in this place" in shown["verdict"]
    assert f"?run={key}" in shown["verdict"]
    assert all(name in shown for name in RESULTS)
    assert shown["report"].count("<tr") > 10
    assert "Against ground truth" not in shown["report"]
    assert shown["force"].visible is False
    assert bench.service.jobs.running == 0


def test_the_live_picture_changes_as_the_network_learns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.service.config = bench.service.config.__class__(
        **{**vars(bench.service.config), "live_every_s": 0.0, "poll_s": 0.0}
    )
    pictures = {
        match
        for update in bench.run()
        if isinstance(update[0], str)
        for match in re.findall(r'alt="depth now" src="([^"]+)"', update[0])
    }
    assert len(pictures) > 1


def test_every_picture_can_be_shown(bench: Bench) -> None:
    session = bench.service.finished(bench.finish())
    view = view_of(session)
    assert set(view.layers) == set(titles())
    for layer in view.layers:
        for frame in (0, len(view.frames) - 1):
            assert webp(session, layer, frame, 64)[:4] == b"RIFF"
            assert view.picture(layer, frame).shape == (*view.frames.hw, 3)
    for layer, frame in (("photo", 99), ("photo", -1), ("nothing", 0)):
        with pytest.raises(KeyError):
            webp(session, layer, frame, 64)


def titles() -> list[str]:
    from demo.run_view import TITLES

    return [str(title) for title in TITLES]


def test_depth_is_coloured_in_one_range(bench: Bench) -> None:
    view = view_of(bench.service.finished(bench.finish()))
    with Image.open(view.folder / "coloured" / "refined" / "000003.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), view.picture("after", 3))


IN_METRES = NetworkDescription(
    schema=1,
    version="0.1",
    network="tiny",
    network_source="",
    network_licence="",
    kind="metric",
    unit="metres",
    scale=7.5,
    refined=True,
    preset="default",
    weights_sha256="",
    clip_sha256="",
    clip_frames=8,
    frame_hw=(150, 200),
    working_hw=(128, 160),
    held_out_abs_rel_before=None,
    held_out_abs_rel_after=None,
    held_out_points=0,
)
"""An exported network that gives metres."""


def test_depth_in_metres_has_the_clip_s_colours_in_metres(bench: Bench) -> None:
    view = view_of(bench.service.finished(bench.finish()))
    (view.folder / "export").mkdir()
    write_json(view.folder / "export" / "export_report.json", {"schema": 1, "model": IN_METRES})
    assert view.exported_colors.near == pytest.approx(7.5 * view.colors.near)
    assert view.exported_colors.far == pytest.approx(7.5 * view.colors.far)
    photo, depth = view.picture("photo", 3), 7.5 * view.depth("after", 3)
    assert picture_uri(view.picture("after", 3), 1280, 88) in prediction(photo, depth, view, []).replace("&quot;", '"')


def test_points_add_up(bench: Bench) -> None:
    view = view_of(bench.service.finished(bench.finish()))
    assert view.points is not None
    assert sum(view.points.counts().values()) == view.report.alignment.observations
    errors = view.points.error_after[np.isfinite(view.points.error_after)]
    assert errors.mean() == pytest.approx(view.held_out("after"), rel=0.02)
    before = view.points.error_before[np.isfinite(view.points.error_before)]
    assert before.mean() == pytest.approx(view.held_out("aligned"), rel=0.02)


def test_a_link_finds_the_run_again_and_only_that(bench: Bench) -> None:
    class Request:
        def __init__(self, **query: str) -> None:
            self.query_params = query

    key = bench.finish()
    calls = Handlers(cpu_service(bench.service.config.folder))  # as after a restart
    assert calls.results.open_link(Request(run=key)) == (key, "")  # type: ignore[arg-type]
    assert calls.results.open_link(Request()) == (None, "")  # type: ignore[arg-type]
    nothing, words = calls.results.open_link(Request(run="x" * 22))  # type: ignore[arg-type]
    assert nothing is None
    assert "not found" in words
    assert calls.results.show(key)["compare"] == bench.calls.results.show(key)["compare"]


# ------------------------------------------------------------------------------- not refined


def test_a_closed_gate_is_a_result_with_a_way_on(bench: Bench) -> None:
    bench.sfm.settings = CLOSED
    shown = bench.calls.results.show(bench.finish())
    assert shown["results"].visible
    assert "looks unreliable" in shown["verdict"]
    assert "--" not in re.sub(r"<[^>]+>", "", shown["verdict"])
    assert shown["force"].visible
    assert shown["try_box"].visible is False
    assert shown["export_box"].visible is False
    assert shown["no_3d"].visible
    assert "not self-consistent" in shown["report"]
    forced = bench.calls.results.show(bench.finish(*FORM[:-1], True))
    assert "Refined although" in forced["verdict"] or "No improvement" in forced["verdict"]


def test_no_model_is_a_result(bench: Bench) -> None:
    bench.sfm.found = False
    shown = bench.calls.results.show(bench.finish())
    assert "Walk sideways while filming." in shown["verdict"]
    assert shown["force"].visible is False
    assert "No 3D points" in shown["points"]
    assert "Walk sideways" in shown["report"]


def test_a_run_that_gains_nothing_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[Preset.FAST]
    wild = recipe.refine.__class__(**{**vars(recipe.refine), "learning_rate": 1e30})
    monkeypatch.setitem(RECIPES, Preset.FAST, recipe.__class__(recipe.align, recipe.weight, wild))
    assert "No improvement" in bench.calls.results.show(bench.finish())["verdict"]


# ------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("stage", ["frames", "before", "refine", "after", "before_fused", "outputs"])
def test_stop_ends_a_run_in_every_stage(bench: Bench, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    original, reached = pipeline.run, threading.Event()

    def run(*args: Any, **more: Any) -> Any:
        clip, out, config, on_progress, *rest = args

        def heard(progress: Progress) -> None:
            if progress.stage == stage:
                reached.set()
                bench.service.jobs.stop_visitor("")
            on_progress(progress)

        return original(clip, out, config, heard, *rest, **more)

    monkeypatch.setattr(pipeline, "run", run)
    last = bench.run()[-1]
    assert reached.is_set()
    assert "Stopped" in last[0]
    assert last[4] is None
    assert bench.quiet()


def test_closing_the_generator_ends_the_job(bench: Bench) -> None:
    updates = bench.calls.run.start(bench.choose(), *FORM)
    next(updates)
    next(updates)
    updates.close()  # type: ignore[attr-defined]
    assert bench.quiet()


def test_a_visitor_who_leaves_takes_their_run_along(bench: Bench) -> None:
    class Request:
        session_hash = "me"

    updates = bench.calls.run.start(bench.choose(), *FORM, request=Request())  # type: ignore[arg-type]
    next(updates)
    bench.calls.run.leave(Request())  # type: ignore[arg-type]
    assert "Stopped" in list(updates)[-1][0]
    assert bench.quiet()


def test_the_next_run_works_after_a_stop(bench: Bench) -> None:
    updates = bench.calls.run.start(bench.choose(), *FORM)
    bench.calls.run.stop(next(updates)[3])
    assert "Stopped" in list(updates)[-1][0]
    assert bench.calls.results.show(bench.finish())["results"].visible


def test_two_runs_wait_for_each_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Event()  # that one of the two waits; the other is held at work until then
    reconstruct = bench.sfm.reconstruct

    def when_shown(*arguments: Any) -> Any:
        assert shown.wait(60)
        return reconstruct(*arguments)

    monkeypatch.setattr(reconstruction, "reconstruct", when_shown)
    first, second = bench.calls.run.start(bench.choose(), *FORM), bench.calls.run.start(bench.choose(), *FORM)
    next(first)
    next(second)
    waited: set[str] = set()
    ends: dict[str, Any] = {}

    def follow(name: str, updates: Iterator[tuple[Any, ...]]) -> None:
        for update in updates:
            if isinstance(update[0], str) and "1 run is ahead of you" in update[0]:
                waited.add(name)
                shown.set()
            ends[name] = update

    threads = [threading.Thread(target=follow, args=pair) for pair in (("first", first), ("second", second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert ends["first"][4] != ends["second"][4]
    assert all(bench.calls.results.show(ends[name][4])["results"].visible for name in ends)
    assert len(waited) == 1


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (0, "no-such-network", "No network is called"),
        (2, 100000, "frames"),
        (3, -1.0, "0 or more"),
        (4, 0.0001, "no frames|usable frames|hold|end"),
        (5, "1,2,3", "instead of fx,fy,cx,cy"),
        (5, "1,1,1,1", "implausible"),
        (5, "/etc/passwd", "Enter intrinsics as numbers"),
        (5, "nan,inf,1,1", "finite"),
        (6, -3, "seed"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_the_next_run_works(
    bench: Bench, place: int, value: object, sentence: str
) -> None:
    chosen = bench.choose()
    form = [*FORM]
    form[place] = value
    last = list(bench.calls.run.start(chosen, *form))[-1]
    assert re.search(sentence, last[0])
    assert "Traceback" not in last[0]
    assert INTERNAL_ERROR not in last[0]
    assert 'role="alert"' in last[0]
    assert bench.quiet()
    assert bench.calls.results.show(bench.finish())["results"].visible


def test_a_defect_of_ours_is_a_sentence_and_a_line_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: 1 / 0)
    assert INTERNAL_ERROR in bench.run()[-1][0]
    assert "ZeroDivisionError" in caplog.text
    assert bench.quiet()


def test_nothing_chosen_is_said(bench: Bench) -> None:
    assert "Choose a clip" in next(iter(bench.calls.run.start(None, *FORM)))[0]


def test_words_from_outside_are_escaped(bench: Bench) -> None:
    assert "<script>" not in common.notice("<script>alert(1)</script>")
    bad = bench.clip.with_name("<b>.mp4")
    bad.write_bytes(b"no video")
    _, words, _ = bench.calls.inputs.upload([str(bad)], *FORM)
    assert "<b>" not in words


def test_settings_change_the_estimate(bench: Bench) -> None:
    chosen = bench.choose()
    words, button = bench.calls.inputs.settings(chosen, TINY, "fast", 5, None, None, "", 0, False)
    assert button.interactive
    assert "5 of 12" in words
    words, button = bench.calls.inputs.settings(chosen, TINY, "fast", 5, 9.0, 2.0, "", 0, False)
    assert button.interactive is False
    assert "before start" in words


def test_known_depths() -> None:
    assert parse_known_depth("", None) is None
    assert parse_known_depth("3, 20, 40", 2.5) == (3, 20, 40, 2.5)
    for place, metres in (("", 2.0), ("3, 20", 2.0), ("a, b, c", 2.0), ("3, 20, 40", None), ("3, 20, 40", -1.0)):
        with pytest.raises(ConfigError):
            parse_known_depth(place, metres)


def test_metres_are_asked_for_one_way() -> None:
    assert parse_export_request("", 0, 0) == ExportRequest()
    assert parse_export_request("", 0, 1.6) == ExportRequest(camera_height_m=1.6)
    for asked in (("3, 20, 40", 2.5, 1.6), ("", 0, -1.0), ("", 0, float("nan"))):
        with pytest.raises(ConfigError):
            parse_export_request(*asked)


def test_no_file_of_the_server_is_named_as_intrinsics() -> None:
    wishes = RunRequest.parse((TINY, "fast", 12, None, None, "secret.json", 0, False))
    with pytest.raises(IntrinsicsError):
        wishes.run_config(cpu_service(Path("nowhere"), least_frames=3).config, TINY)


# -------------------------------------------------------------------------------------- examples


def test_an_example_that_is_not_ready_can_be_run_live(bench: Bench) -> None:
    example = Example("mine", "Mine", bench.clip, "words")
    service = cpu_service(bench.service.config.folder, examples=(example,), least_frames=3)
    calls = Handlers(service)
    chosen, _, button, _, key, words = calls.inputs.example("mine", *FORM)
    assert (chosen.example, key) == ("mine", None)
    assert button.interactive
    assert "still being computed" in words
    assert not service.examples.ready(example)
    assert [each.name for each in service.examples.missing()] == ["mine"]


def test_a_made_example_is_shown_at_once_and_again_after_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Example("mine", "Mine", bench.clip, "words")
    wanted = {"examples": (example,), "example_network": TINY, "example_preset": Preset.FAST, "least_frames": 3}
    service = cpu_service(bench.service.config.folder, **wanted)
    monkeypatch.setattr("demo.runner.export", lambda run, wish, tell: (run / "kit.zip").write_bytes(b"kit"))
    service.examples.compute(example, lambda _: None, service.runner)
    service = cpu_service(bench.service.config.folder, **wanted)
    assert list(service.examples.missing()) == []
    calls = Handlers(service)
    *_, key, words = calls.inputs.example("mine", *FORM)
    assert (key, words) == ("example-mine", "")
    shown = calls.results.show(key)
    assert shown["results"].visible
    assert shown["export_box"].visible is False  # visitors share it: nobody exports it anew
    assert "?run=" not in shown["verdict"]
    refused = next(iter(calls.export.start(key, "", 0, 0, False)))
    assert (
        "run the example live" in refused[0]
        or "run the example live" in list(calls.export.start(key, "", 0, 0, False))[-1][0]
    )
    service.store.sweep()
    assert service.examples.ready(example)


# -------------------------------------------------------------------------------------- tracker


def test_the_queue_is_shown_before_anything_else() -> None:
    tracker = ProgressTracker(lambda: dict.fromkeys(ORDER, 1.0))
    tracker.update(QueueEvent(2))
    assert "2 runs are ahead of you" in progress.run_progress(tracker.state)
    tracker.update(QueueEvent(0))
    tracker.update(Progress("sfm", 2, 10, phase=SfmPhase.MAPPING, attempt=SfmSettings().name))
    html = progress.run_progress(tracker.state)
    assert "estimating camera poses, 2 of 10" in html
    assert "trying again" not in html
    tracker.update(Progress("sfm", 3, 10, phase=SfmPhase.MAPPING, attempt="forward"))
    html = progress.run_progress(tracker.state)
    assert "estimating camera poses, 3 of 10 (trying again: forward)" in html
    assert 'aria-current="step"' in html


def test_endpoints_are_named_after_what_they_do() -> None:
    assert {"refine", "export", "predict"} <= set(dir(Endpoints))
