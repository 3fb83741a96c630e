"""What happens when something is pressed, for the page and for the API. Values in, values and updates out."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from sfmttr.config import Preset, RunConfig, VideoConfig
from sfmttr.errors import ClipError, ConfigError, IntrinsicsError, SfmttrError
from sfmttr.types import Progress

from .clip_preview import ClipPreview, preview_clip, warnings
from .config import PageConfig
from .environment import is_local
from .eta import ORDER, format_duration, remaining_s, total_s
from .export_worker import ExportRequest
from .jobs import INTERNAL_ERROR, Job, JobResult
from .network_choices import OTHER
from .runner import QueueEvent, RefineStepEvent
from .service import Service
from .sessions import Session
from .uploads import keep_upload
from .views import common, compare, downloads, inputs, points, progress, report, verdict
from .views.progress import Live

if TYPE_CHECKING:
    import numpy as np

    from .run_view import RunView

_log = logging.getLogger(__name__)
_LOOKS_AT_ONCE = 8
"""Clips that are looked at side by side, for all visitors: each is decoded in part."""
_LOOKS_KEPT = 32
"""Each holds a few small frames."""
_GLB = {"before": "cloud_before.glb", "after": "cloud_after.glb"}


@dataclass(frozen=True)
class SelectedClip:
    """The clip that a visitor has chosen."""

    clip: Path
    example: str | None = None


@dataclass(frozen=True)
class RunRequest:
    """What the form says."""

    network: str
    preset: str
    max_frames: int
    start_s: float
    end_s: float | None
    """None: the clip's end."""
    intrinsics: str
    seed: int
    force: bool
    other: str = ""
    """What stands in the field beside the list of networks; it counts when `choices.OTHER` is chosen in that."""

    @classmethod
    def parse(cls, values: Sequence[Any]) -> RunRequest:
        """From components in the order of the fields; the last is the page's alone. Raises `ConfigError` for what makes
        no sense."""
        network, preset, max_frames, start_s, end_s, intrinsics, seed, force, *more = values
        for name, value in (("start", start_s), ("end", end_s)):
            if value is not None and not (math.isfinite(float(value)) and float(value) >= 0):
                raise ConfigError(f"The {name} is {value} s; give seconds from the clip's beginning, 0 or more.")
        start_s, end_s = float(start_s or 0.0), float(end_s or 0.0) or None
        if end_s is not None and end_s <= start_s:
            raise ConfigError("The end lies before the start; give them the other way round.")
        if preset not in list(Preset):
            raise ConfigError(f"There is no preset {preset!r}; choose {', '.join(Preset)}.")
        if seed is None or not 0 <= int(seed) < 2**32:
            raise ConfigError("The seed has to be a whole number, 0 or more.")
        return cls(
            str(network or ""),
            str(preset),
            int(max_frames),
            start_s,
            end_s,
            str(intrinsics or "").strip(),
            int(seed),
            bool(force),
            *(str(each or "") for each in more),
        )

    def video(self, config: PageConfig) -> VideoConfig:
        if not config.least_frames <= self.max_frames <= config.most_frames:
            raise ConfigError(f"Choose {config.least_frames} to {config.most_frames} frames.")
        return replace(config.video, max_frames=self.max_frames, start_s=self.start_s, end_s=self.end_s)

    def run_config(self, config: PageConfig, network: str) -> RunConfig:
        """What is run, of a `network` that `NetworkChoices.asked` gave."""
        _refuse_files(self.intrinsics)
        return RunConfig(
            network=network,
            preset=Preset(self.preset),
            video=self.video(config),
            intrinsics=self.intrinsics or None,
            seed=self.seed,
            force=self.force,
        )


def _refuse_files(intrinsics: str) -> None:
    """Numbers alone: a name would be looked for on the server's disk."""
    if intrinsics and not all(_is_number(part) for part in intrinsics.split(",")):
        raise IntrinsicsError('Give intrinsics as numbers, "fx, fy, cx, cy" in pixels of the clip.')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Handlers:
    """All events of the page, over one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.config = service.config
        self._looking = threading.BoundedSemaphore(_LOOKS_AT_ONCE)
        self._seen = lru_cache(maxsize=_LOOKS_KEPT)(preview_clip)

    def resolve(self, values: Sequence[Any], request: gr.Request | None) -> RunConfig:
        """The run that the form asks for. Raises `SfmttrError` for what makes no sense, or is not for this visitor."""
        wishes = RunRequest.parse(values)
        return wishes.run_config(self.config, self._network(wishes.network, wishes.other, request))

    def _network(self, network: str, other: str, request: gr.Request | None) -> str:
        """The name of the network that is asked for. Raises `NetworkError`."""
        return self.service.choices.resolve(network, other, folders=self.config.folders and is_local(request))

    # ------------------------------------------------------------------------------------- choosing

    def about(self, network: str, other: str, request: gr.Request | None = None) -> Iterator[tuple[Any, str]]:
        """A network was chosen or named: (field for its name, what it is and under which licence)."""
        field = gr.Textbox(visible=network == OTHER)
        if network == OTHER and not (other or "").strip():
            yield field, ""
            return
        try:
            name = self._network(network or "", other or "", request)
            if network == OTHER:
                yield field, inputs.looking_up(name)
            yield field, inputs.about(self.service.choices.describe(name))
        except SfmttrError as error:
            yield field, common.notice(str(error))
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a network could not be looked up")
            yield field, common.notice(INTERNAL_ERROR)

    def upload(self, files: list[str] | None, *wishes: Any) -> tuple[Any, ...]:
        """A clip has arrived: (chosen, preview, run button)."""
        if not files:
            return None, "", gr.Button(interactive=False)
        session = self.service.store.new()
        try:
            clip = keep_upload(files, session.folder, self.config.max_upload_bytes, self.config.max_files)
            preview = self._preview(clip, RunRequest.parse(wishes))
        except SfmttrError as error:
            self.service.store.delete(session)
            return None, common.notice(str(error)), gr.Button(interactive=False)
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("an upload could not be looked at")
            self.service.store.delete(session)
            return None, common.notice(INTERNAL_ERROR), gr.Button(interactive=False)
        return SelectedClip(clip), preview, gr.Button(interactive=True)

    def settings(self, chosen: SelectedClip | None, *wishes: Any) -> tuple[Any, ...]:
        """The form or the clip changed: (preview, run button)."""
        if chosen is None:
            return gr.skip(), gr.Button(interactive=False)
        try:
            parsed = RunRequest.parse(wishes)
            _refuse_files(parsed.intrinsics)
            return self._preview(chosen.clip, parsed), gr.Button(interactive=True)
        except SfmttrError as error:
            return common.notice(str(error)), gr.Button(interactive=False)

    def example(self, name: str, *wishes: Any) -> tuple[Any, ...]:
        """A picture of the gallery was pressed: (chosen, preview, run button, upload cleared, key, live)."""
        example = self.service.examples.by_name(name)
        preview = self._preview(example.clip, RunRequest.parse(wishes))
        ready = self.service.examples.ready(example)
        key = self.service.examples.session(example).id if ready else None
        words = (
            ""
            if ready
            else common.notice(
                "The finished result of this example is still being made; press Refine to watch it live.", "note"
            )
        )
        return SelectedClip(example.clip, name), preview, gr.Button(interactive=True), None, key, words

    def _look(self, clip: Path, wishes: RunRequest) -> ClipPreview:
        """What the clip holds; each is looked at once with the same wishes. Raises `SfmttrError`."""
        with self._looking:
            return self._seen(clip, wishes.video(self.config))

    def _preview(self, clip: Path, wishes: RunRequest) -> str:
        """The clip in a few facts. Raises `SfmttrError`."""
        look = self._look(clip, wishes)
        stages = self._stages_s(look, wishes)
        seconds = None if stages is None else total_s(stages)
        waiting = self.service.queue.waiting + (0 if self.service.queue.idle else 1)
        return inputs.preview(look, seconds, waiting, list(warnings(look, self.config)))

    def _stages_s(self, look: ClipPreview, wishes: RunRequest) -> dict[str, float] | None:
        try:
            name = self.service.choices.resolve(wishes.network, wishes.other, folders=False)
        except SfmttrError:  # a folder, perhaps: what was found out of it before is known by its name alone
            name = (wishes.other if wishes.network == OTHER else wishes.network).strip()
        return self.service.stages_s(look.frames, name, wishes.preset)

    # ------------------------------------------------------------------------------------- refining

    def run(
        self, chosen: SelectedClip | None, *wishes: Any, request: gr.Request | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The button: (live, run button, stop button, job id, key of the finished run, results)."""
        idle = (gr.Button(visible=True), gr.Button(visible=False))
        hidden = gr.Column(visible=False)
        try:
            if chosen is None:
                raise ClipError("Choose a clip or an example first.")
            config = self.resolve(wishes, request)
            frames = self._look(chosen.clip, RunRequest.parse(wishes)).frames
            job = self.service.start_run(chosen.clip, config, visitor(request))
        except SfmttrError as error:
            yield (common.notice(str(error)), *idle, None, None, hidden)
            return
        try:
            busy = (gr.Button(visible=False), gr.Button(value="Stop", visible=True, interactive=True))
            watch = ProgressTracker(lambda: self.service.stages_s(frames, config.network, str(config.preset)))
            yield (progress.live(watch.live), *busy, job.id, None, hidden)
            while job.result is None:
                if watch.poll(job, self.config.poll_s):
                    yield (progress.live(watch.live), *((gr.skip(),) * 5))
            yield self._ended(job.result, idle, hidden)
        finally:
            self.release(job)

    def _ended(self, ended: JobResult[Session], idle: tuple[Any, ...], hidden: Any) -> tuple[Any, ...]:
        if ended.value is not None:
            return ("", *idle, None, ended.value.id, gr.skip())
        text = ended.problem or "Stopped. Nothing of this run was kept."
        return (common.notice(text, "error" if ended.problem else "note"), *idle, None, None, hidden)

    def release(self, job: Job[Any]) -> None:
        """The generator ends, by itself or because its visitor left: so does the job."""
        job.stop()
        job.join(self.config.stop_within_s)
        self.service.jobs.forget(job.id)

    def stop(self, job_id: str | None) -> Any:
        """The stop button."""
        if job_id:
            self.service.jobs.stop(job_id)
        return gr.Button(value="Stopping…", interactive=False)

    def leave(self, request: gr.Request) -> None:
        """A visitor closed the page."""
        self.service.jobs.stop_visitor(visitor(request))

    # -------------------------------------------------------------------------------------- results

    def opened(self, request: gr.Request) -> tuple[str | None, str]:
        """The page was opened, perhaps by a link to a run: (key, live)."""
        key = request.query_params.get("run") if request else None
        if not key:
            return None, ""
        try:
            return self.service.finished(key).id, ""
        except SfmttrError as error:
            return None, common.notice(str(error), "note")

    def show(self, key: str | None) -> dict[str, Any]:
        """Everything of a finished run, by the name of the component that shows it."""
        if not key:
            return {"results": gr.Column(visible=False)}
        try:
            session = self.service.finished(key)
            return self._shown(session)
        except SfmttrError as error:
            return {"results": gr.Column(visible=False), "live": common.notice(str(error))}
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a run could not be shown")
            return {"results": gr.Column(visible=False), "live": common.notice(INTERNAL_ERROR)}

    def _shown(self, session: Session) -> dict[str, Any]:
        from .run_view import view_of

        view = view_of(session)
        example = self.service.examples.owns(session)
        has_3d = (view.folder / _GLB["after"]).is_file()
        return {
            "results": gr.Column(visible=True),
            "verdict": verdict.verdict(view, "" if example else f"?run={session.id}"),
            "force": gr.Button(visible=view.gate_closed),
            "compare": compare.compare(view, session.id),
            "no_3d": gr.HTML(visible=not has_3d),
            "tabs": gr.Tabs(selected="compare"),
            "points": points.points(view),
            "report": report.report(view),
            **self._takeaway(session, view, example),
        }

    def show_3d(self, key: str | None) -> tuple[Any, Any]:
        """The tab of 3D was opened: (before, after)."""
        from .run_view import view_of

        session = self.service.find(key)
        paths = [session.run / name for name in _GLB.values()] if session else []
        if session is None or not all(path.is_file() for path in paths):
            return gr.Model3D(value=None, visible=False), gr.Model3D(value=None, visible=False)
        titles = view_of(session).titles
        labels = (titles["aligned"], titles["after"])
        before, after = (
            gr.Model3D(value=str(path), label=label, visible=True) for path, label in zip(paths, labels, strict=True)
        )
        return before, after

    def _takeaway(self, session: Session, view: RunView, example: bool) -> dict[str, Any]:
        """Downloads, and what needs the exported network."""
        from .downloads import available_downloads

        has_kit = view.has_kit()
        seconds = format_duration(self.service.timings.export_s(view.report.network))
        last = len(view.frames) - 1
        address = f"view/{session.id}/kit/index.html"
        kit_link = f'<a class="kit-link" href="{address}" target="_blank">Open the kit’s own page</a>'
        return {
            "downloads": downloads.downloads(session.id, available_downloads(session)),
            "export_box": gr.Column(visible=view.refined and not example),
            "make_kit": gr.Button(
                value=f"Make the kit again ({seconds})"
                if has_kit
                else f"Freeze the network and make its kit ({seconds})",
                variant="secondary" if has_kit else "primary",
                visible=True,
            ),
            "export_live": "",
            "try_box": gr.Column(visible=has_kit),
            "try_missing": gr.Column(visible=not has_kit),
            "try_words": _try_words(view),
            "try_frame": gr.Slider(minimum=0, maximum=max(last, 1), value=last, step=1),
            "try_result": "",
            "kit_link": f"<p>{kit_link}: it runs the network in your browser, on pictures, clips and your camera. "
            "It fetches its runtime from jsdelivr.net unless the kit holds it.</p>"
            if has_kit
            else "",
        }

    # ------------------------------------------------------------------------------------ exporting

    def make_kit(
        self,
        key: str | None,
        place: str,
        metres: float | None,
        height: float | None,
        bundle: bool,
        request: gr.Request | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """The button in Download: (progress, make button, stop button, job id)."""
        idle = (gr.Button(visible=True), gr.Button(visible=False))
        try:
            session = self.service.finished(key)
            wish = parse_export_request(place, metres, height, bundle=bool(bundle))
            job = self.service.start_export(session, wish, visitor(request))
        except SfmttrError as error:
            yield (common.notice(str(error)), *idle, None)
            return
        try:
            busy = (gr.Button(visible=False), gr.Button(value="Stop", visible=True, interactive=True))
            yield (progress.export_progress("starting", 0, 0), *busy, job.id)
            while job.result is None:
                for event in job.events(self.config.poll_s):
                    if isinstance(event, QueueEvent):
                        yield (progress.export_progress("", 0, 0, event.position), *((gr.skip(),) * 3))
                    elif isinstance(event, Progress):
                        yield (progress.export_progress(event.phase, event.done, event.total), *((gr.skip(),) * 3))
            if job.result.value is not None:
                yield ("", *idle, None)
            else:
                text = job.result.problem or "Stopped; there is no kit."
                yield (common.notice(text, "error" if job.result.problem else "note"), *idle, None)
        finally:
            self.release(job)

    def kit_made(self, key: str | None) -> dict[str, Any]:
        """Downloads and Try it once an export has ended, well or not; its last words stay."""
        from .run_view import view_of

        session = self.service.find(key)
        if session is None or not session.finished:
            return {}
        shown = self._takeaway(session, view_of(session), self.service.examples.owns(session))
        del shown["export_live"]
        return shown

    # --------------------------------------------------------------------------------------- trying

    def try_picture(self, key: str | None, picture: str | None, frame: float, variant: str) -> str:
        """Depth of a photo, or of a frame of the clip, by the exported network."""
        try:
            session = self.service.finished(key)
            rgb, depth, facts, view = self.predict(session, picture, int(frame), variant)
        except SfmttrError as error:
            return common.notice(str(error))
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a picture could not be tried")
            return common.notice(INTERNAL_ERROR)
        return downloads.prediction(rgb, depth, view, facts)

    def predict(
        self, session: Session, picture: str | None, frame: int, variant: str
    ) -> tuple[np.ndarray, np.ndarray, list[str], RunView]:
        """(picture, depth, facts, run). Raises `SfmttrError`."""
        from . import onnx_inference
        from .run_view import view_of

        view = view_of(session)
        rgb = (
            onnx_inference.read_photo(Path(picture), self.config.video)
            if picture
            else onnx_inference.read_frame(view, frame)
        )
        depth, facts = onnx_inference.depth_of(session, rgb, variant)
        return rgb, depth, facts, view


class ProgressTracker:
    """What is known of a run from its events."""

    def __init__(self, stages_s: Callable[[], dict[str, float] | None]) -> None:
        self.live = Live(stage="start")
        self._plan = stages_s
        """Asked at every stage: of a network that was just looked up more is known than before."""
        self._stages_s: dict[str, float] | None = None
        self._since: float | None = None
        self._range: Any = None

    def poll(self, job: Job[Any], timeout_s: float) -> bool:
        """Take in what has happened; whether that is worth showing."""
        news = False
        for event in job.events(timeout_s):
            if event is not None:
                self.update(event)
                news = True
        if job.stopping and not self.live.stopping:
            self.live.stopping = news = True
        return news

    def update(self, event: object) -> None:
        import time

        if isinstance(event, QueueEvent):
            self.live.place = event.position
        elif isinstance(event, Progress):
            if event.stage != self.live.stage:
                self._since = time.monotonic()
                self._stages_s = self._plan()
            self.live.stage, self.live.done, self.live.total = event.stage, event.done, event.total
            self.live.note, self.live.phase, self.live.attempt = event.note, event.phase, event.attempt
            self.live.origin = event.origin
            if event.stage in ORDER and self._stages_s is not None:
                spent = time.monotonic() - (self._since or time.monotonic())
                self.live.left_s = remaining_s(self._stages_s, event.stage, self.live.share, spent)
        elif isinstance(event, RefineStepEvent):
            self._learn(event)

    def _learn(self, event: RefineStepEvent) -> None:
        from sfmttr.viz import colormap

        step = event.step
        self.live.steps = step.total
        if step.validation is not None:
            self.live.validation.append((step.index, step.validation))
        if event.depth is not None:
            self._range = self._range or colormap.color_range([event.depth])
            self.live.now = common.picture_uri(colormap.colorize(event.depth, self._range), 480)
            self.live.first = self.live.first or self.live.now


def visitor(request: gr.Request | None) -> str:
    """Whom a job belongs to."""
    return str(getattr(request, "session_hash", None) or "")


def parse_export_request(
    place: str, metres: float | None, height: float | None, *, bundle: bool = False
) -> ExportRequest:
    """What an export is asked for. Raises `ConfigError`."""
    known = parse_known_depth(place, metres)
    if height and not (math.isfinite(height) and height > 0):
        raise ConfigError("Give the camera's height in metres, more than 0, or 0 if you do not know it.")
    if known and height:
        raise ConfigError("Give a known distance or the camera's height, not both: they may contradict each other.")
    return ExportRequest(known, float(height) if height else None, bundle)


def parse_known_depth(place: str, metres: float | None) -> tuple[int, int, int, float] | None:
    """Frame, row, column and metres of a distance that was measured. Raises `ConfigError`."""
    if not (place or "").strip() and not metres:
        return None
    if not metres or not math.isfinite(metres) or metres <= 0:
        raise ConfigError("Give the distance of the place in metres, more than 0, or leave the place empty.")
    try:
        frame, row, column = (int(part) for part in (place or "").split(","))
    except ValueError:
        raise ConfigError('Mark the place in Compare, or give it as "frame, row, column".') from None
    return frame, row, column, float(metres)


def _try_words(view: RunView) -> str:
    count = len(view.frames)
    return f"<p>Take another photo of the same place, or one of the clip’s {count} frames.</p>"
