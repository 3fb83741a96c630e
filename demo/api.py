"""Endpoints for programs: /refine, /export and /predict (`gradio_client`), with the same checks as the page.

Their inputs are the page's own components: whatever those refuse is refused here, too.
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
from .events import Components
from .export_package import import_export
from .form import parse_export_request
from .handlers import Handlers
from .handlers.common import release, visitor_of
from .jobs import Job
from .runner import QueueEvent, RefineStepEvent
from .uploads import keep_upload

FORM_FIELDS = ("network", "preset", "max_frames", "start", "end", "intrinsics", "seed", "force_box")
"""Components of the form, in the order of the fields of `RunRequest`."""
# How long an answer of /predict is kept.
_ANSWER_KEPT_S = 600.0


def form_components(c: Components) -> list[Any]:
    """Return the components of the form that the API shares with the page."""
    return [c[name] for name in FORM_FIELDS]


def add_endpoints(handlers: Handlers, c: Components) -> None:
    """Add the endpoints to the page that is being built. Parameter names of the API are those of the methods."""
    endpoints = Endpoints(handlers)
    with gr.Row(visible=False):
        status = gr.JSON(label="status")
        run_id, file = gr.Textbox(label="run"), gr.File(label="file")
        picture = gr.Image(label="picture", type="filepath")
        depth_file, colored = gr.File(label="depth (16-bit PNG)"), gr.Image(label="colored depth", type="filepath")
        # The page's list accepts no names but its own.
        network = gr.Textbox(handlers.service.config.network, label="network")
        variant = gr.Radio(["fp32", "fp16", "int8"], value="fp32", label="variant")
        place = gr.Textbox("", label="place")
        metres, height = gr.Number(0, label="metres"), gr.Number(0, label="camera height")
        refine, export, predict = gr.Button(), gr.Button(), gr.Button()
    form = form_components({**c, "network": network})
    refine.click(endpoints.refine, [c["upload"], *form], [status], api_name="refine", concurrency_limit=None)
    export.click(
        endpoints.export, [run_id, place, metres, height], [status, file], api_name="export", concurrency_limit=None
    )
    predict.click(
        endpoints.predict,
        [run_id, picture, variant],
        [depth_file, colored, status],
        api_name="predict",
        concurrency_limit=2,
        concurrency_id="predict",
    )


class Endpoints:
    """The endpoints. Each gives a result, or raises `gr.Error` with one sentence."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers, self._service = handlers, handlers.service

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
        """Refine a network on a clip: one video, one zip, or several images.

        `network`: a name of the page's list, or hf:ORG/NAME for any depth model of the Hugging Face Hub. `end` 0: to
        the end of the clip. Yields `{"stage", "done", "total", ...}` while it runs and finally `{"stage": "done",
        "run", "refined", "advice", "report"}`. /export and /predict take `run`; `?run=` opens it in a browser.
        """
        try:
            config = self._handlers.inputs.resolve(
                (network, preset, max_frames, start, end, intrinsics, seed, force), request
            )
            upload = self._service.store.new()
        except SfmttrError as error:
            raise _as_gradio(error) from None
        page = self._service.config
        try:
            clip = keep_upload(files or [], upload.folder, page.max_upload_bytes, page.max_files)
            preview_clip(clip, config.video)
            job = self._service.start_run(clip, config, visitor_of(request))
            session = yield from self._result_of(job)
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
            raise _as_gradio(error) from None
        finally:
            self._service.store.delete(upload)

    def export(
        self, run: str, place: str, metres: float, camera_height: float, request: gr.Request
    ) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Export a refined run to verified ONNX files: `{"stage": "done", "report"}` and the kit (a zip).

        For depth in meters, give `place` ("frame, row, column") and its measured depth `metres`, or the
        `camera_height` above the ground in meters. "" and 0 mean that neither is known.
        """
        try:
            session = self._service.finished(run)
            if not (self._service.examples.owns(session) and (session.run / "kit.zip").is_file()):
                job = self._service.start_export(
                    session, parse_export_request(place, metres, camera_height), visitor_of(request)
                )
                for status in self._follow(job):
                    yield status, None
            report = read_json(session.run / "export" / "export_report.json")
            yield {"stage": "done", "report": report}, str(session.run / "kit.zip")
        except SfmttrError as error:
            raise _as_gradio(error) from None

    def predict(self, run: str, picture: str | None, variant: str) -> tuple[str, str, dict[str, Any]]:
        """Predict depth of a photo with the exported network of a run: a 16-bit PNG, a colored PNG, and their facts."""
        from PIL import Image

        from sfmttr.io.depth_files import choose_png_scale, write_depth_png
        from sfmttr.types import Depth, DepthKind
        from sfmttr.viz import colormap

        try:
            session = self._service.finished(run)
            if not picture:
                raise ClipError("Upload a photo.")
            _, depth, facts, view = self._handlers.try_it.predict(session, picture, 0, variant)
            folder = make_answer_folder(session.folder / "predicted")
            kind = DepthKind(_kind(session.run))
            scale = choose_png_scale(kind, float(depth.max()))
            write_depth_png(folder / "depth.png", Depth(depth, kind), scale)
            Image.fromarray(colormap.colorize(depth, view.exported_colors)).save(folder / "coloured.png")
        except SfmttrError as error:
            raise _as_gradio(error) from None
        status = {"depth": scale.sentence, "unit": scale.unit, "facts": facts}
        return str(folder / "depth.png"), str(folder / "coloured.png"), status

    def _result_of(self, job: Job[Any]) -> Any:
        """Yield the progress of a job and return its value. Raises `SfmttrError`."""
        yield from self._follow(job)
        assert job.result is not None
        return job.result.value

    def _follow(self, job: Job[Any]) -> Iterator[dict[str, Any]]:
        try:
            while job.result is None:
                latest = None
                for event in job.events(self._service.config.poll_s):
                    latest = _status(event) or latest
                if latest:
                    yield latest
            if job.result.problem:
                raise ClipError(job.result.problem)
            if job.result.stopped:
                raise Cancelled("The run was stopped.")
        finally:
            release(self._service, job)


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
    """Create an empty folder for one answer, since several may be made at once, and delete old answers."""
    predicted.mkdir(exist_ok=True)
    for old in predicted.iterdir():
        with suppress(OSError):  # another request may do the same
            if time.time() - old.stat().st_mtime > _ANSWER_KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=predicted))


def _kind(run: Any) -> str:
    """Return the kind of depth that the exported network gives."""
    return str(import_export("description").read_network_description(run / "export").kind)


def _as_gradio(error: SfmttrError) -> gr.Error:
    return gr.Error(str(error), print_exception=False)
