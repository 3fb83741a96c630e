"""The endpoints for programs: /refine, /export, /predict (`gradio_client`). The same callbacks as the page's buttons.

Their inputs are the page's own components, so that what is checked there is checked here.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from sfmttr.errors import Cancelled, ClipError, SfmttrError
from sfmttr.io.json_files import read_json
from sfmttr.run.manifest import REPORT
from sfmttr.types import Progress

from .clip_preview import preview_clip
from .handlers import Handlers, parse_export_request, visitor
from .jobs import Job
from .runner import QueueEvent, RefineStepEvent
from .uploads import keep_upload

FORM_FIELDS = ("network", "preset", "max_frames", "start", "end", "intrinsics", "seed", "force_box")
"""Components of the form, in the order of the fields of `RunRequest`."""
_FETCHED_WITHIN_S = 600.0
"""An answer of /predict is kept for so long."""


def form_components(c: dict[str, Any]) -> list[Any]:
    return [c[name] for name in FORM_FIELDS]


def add(calls: Handlers, c: dict[str, Any]) -> None:
    """Add the endpoints to the page that is being built."""
    endpoints = Endpoints(calls)
    with gr.Row(visible=False):
        status = gr.JSON(label="status")
        run_id, file = gr.Textbox(label="run"), gr.File(label="file")
        picture = gr.Image(label="picture", type="filepath")
        depth_file, coloured = gr.File(label="depth (16-bit PNG)"), gr.Image(label="coloured depth", type="filepath")
        network = gr.Textbox(calls.config.network, label="network")  # the page's list takes no other than its own
        variant = gr.Radio(["fp32", "fp16", "int8"], value="fp32", label="variant")
        place, metres, height = (
            gr.Textbox("", label="place"),
            gr.Number(0, label="metres"),
            gr.Number(0, label="camera height"),
        )
        refine, export, predict = gr.Button(), gr.Button(), gr.Button()
    wishes = form_components({**c, "network": network})
    refine.click(endpoints.refine, [c["upload"], *wishes], [status], api_name="refine", concurrency_limit=None)
    export.click(
        endpoints.export, [run_id, place, metres, height], [status, file], api_name="export", concurrency_limit=None
    )
    predict.click(
        endpoints.predict,
        [run_id, picture, variant],
        [depth_file, coloured, status],
        api_name="predict",
        concurrency_limit=2,
        concurrency_id="predict",
    )


class Endpoints:
    """Each ends with a sentence as `gr.Error`, or a result."""

    def __init__(self, calls: Handlers) -> None:
        self._calls, self._service = calls, calls.service

    def refine(
        self,
        files: list[str] | None,
        network: str,
        preset: str,
        max_frames: int,
        start: float,
        end: float,
        intrinsics: str,
        seed: int,
        force: bool,
        request: gr.Request,
    ) -> Iterator[dict[str, Any]]:
        """Refine a network on a clip: one video, one zip, or several images. `end` 0 means all of it. `network` is one
        of the page's list, or hf:ORG/NAME: any depth model of the Hugging Face Hub.

        Yields `{"stage", "done", "total", ...}` while it runs; at last `{"stage": "done", "run", "refined", "advice",
        "report"}`. `run` is what /export and /predict want, and `?run=` opens it in a browser.
        """
        try:
            config = self._calls.resolve((network, preset, max_frames, start, end, intrinsics, seed, force), request)
            upload = self._service.store.new()
        except SfmttrError as error:
            raise _said(error) from None
        try:
            clip = keep_upload(
                files or [], upload.folder, self._calls.config.max_upload_bytes, self._calls.config.max_files
            )
            preview_clip(clip, config.video)
            job = self._service.start_run(clip, config, visitor(request))
            session = yield from self._watched(job)
            report = read_json(session.run / REPORT)
            refined = report["refinement"] is not None
            yield {
                "stage": "done",
                "run": session.id,
                "refined": refined,
                "advice": str(report["advice"]),
                "report": report,
            }
        except SfmttrError as error:
            raise _said(error) from None
        finally:
            self._service.store.delete(upload)

    def export(
        self, run: str, place: str, metres: float, camera_height: float, request: gr.Request
    ) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Freeze a refined run to checked ONNX files: `{"stage": "done", "report"}` and the kit (a zip).

        For output in metres: `place` ("frame, row, column") and `metres`, a depth that was measured, or the
        `camera_height` above the ground in metres. 0 and "" mean that neither is known.
        """
        try:
            session = self._service.finished(run)
            if not (self._service.examples.owns(session) and (session.run / "kit.zip").is_file()):
                job = self._service.start_export(
                    session, parse_export_request(place, metres, camera_height), visitor(request)
                )
                for status in self._watched_steps(job):
                    yield status, None
            report = read_json(session.run / "export" / "export_report.json")
            yield {"stage": "done", "report": report}, str(session.run / "kit.zip")
        except SfmttrError as error:
            raise _said(error) from None

    def predict(self, run: str, picture: str | None, variant: str) -> tuple[str, str, dict[str, Any]]:
        """Depth of a photo by the exported network of a run: a 16-bit PNG, a coloured PNG, and what is in them."""
        from PIL import Image

        from sfmttr.io.depth_files import choose_png_scale, write_depth_png
        from sfmttr.types import Depth, DepthKind
        from sfmttr.viz import colormap

        try:
            session = self._service.finished(run)
            if not picture:
                raise ClipError("Give a photo.")
            _, depth, facts, view = self._calls.predict(session, picture, 0, variant)
            folder = make_answer_folder(session.folder / "predicted")
            kind = DepthKind(_kind(session.run))
            scale = choose_png_scale(kind, float(depth.max()))
            write_depth_png(folder / "depth.png", Depth(depth, kind), scale)
            Image.fromarray(colormap.colorize(depth, view.exported_colours)).save(folder / "coloured.png")
        except SfmttrError as error:
            raise _said(error) from None
        status = {"depth": scale.sentence, "unit": scale.unit, "facts": facts}
        return str(folder / "depth.png"), str(folder / "coloured.png"), status

    def _watched(self, job: Job[Any]) -> Any:
        """Yield the job's progress; return its value. Raises `SfmttrError`."""
        yield from self._watched_steps(job)
        assert job.result is not None
        return job.result.value

    def _watched_steps(self, job: Job[Any]) -> Iterator[dict[str, Any]]:
        try:
            while job.result is None:
                latest = None
                for event in job.events(self._calls.config.poll_s):
                    latest = _status(event) or latest
                if latest:
                    yield latest
            if job.result.problem:
                raise ClipError(job.result.problem)
            if job.result.stopped:
                raise Cancelled("The run was stopped.")
        finally:
            self._calls.release(job)


def _status(event: object) -> dict[str, Any] | None:
    if isinstance(event, QueueEvent):
        return {"stage": "waiting", "place": event.position} if event.position else None
    if isinstance(event, Progress):
        return {"stage": event.stage, "done": event.done, "total": event.total, "note": event.note}
    if isinstance(event, RefineStepEvent) and event.step.validation is not None:
        return {
            "stage": "refine",
            "done": event.step.index,
            "total": event.step.total,
            "validation": event.step.validation,
        }
    return None


def make_answer_folder(predicted: Path) -> Path:
    """An empty folder for one answer: several may be asked for at once. Old ones, long fetched, are deleted."""
    predicted.mkdir(exist_ok=True)
    for old in predicted.iterdir():
        with suppress(OSError):  # another request may do the same
            if time.time() - old.stat().st_mtime > _FETCHED_WITHIN_S:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=predicted))


def _kind(run: Any) -> str:
    """Of what the exported network gives."""
    return str(read_json(run / "export" / "export_report.json")["model"]["kind"])


def _said(error: SfmttrError) -> gr.Error:
    return gr.Error(str(error), print_exception=False)
