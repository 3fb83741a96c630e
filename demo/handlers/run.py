"""The Refine and Stop buttons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from sfmttr.errors import ClipError, SfmttrError

from ..form import RunRequest, SelectedClip
from ..run_progress import ProgressTracker
from ..views import common, progress
from .common import busy_buttons, idle_buttons, release, visitor_of

if TYPE_CHECKING:
    from ..jobs import JobResult
    from ..service import Service
    from ..sessions import Session
    from .inputs import InputHandlers


class RunHandlers:
    """Events of a run."""

    def __init__(self, service: Service, inputs: InputHandlers) -> None:
        self._service, self._inputs = service, inputs

    def start(
        self, selected: SelectedClip | None, *form: Any, request: gr.Request | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Run the pipeline: (live, run button, stop button, job id, key of the finished run, results)."""
        hidden = gr.Column(visible=False)
        try:
            if selected is None:
                raise ClipError("Choose a clip or an example first.")
            config = self._inputs.resolve(form, request)
            frames = self._inputs.clip_preview(selected.clip, RunRequest.parse(form)).frames
            job = self._service.start_run(selected.clip, config, visitor_of(request))
        except SfmttrError as error:
            yield (common.notice(str(error)), *idle_buttons(), None, None, hidden)
            return
        try:
            tracker = ProgressTracker(lambda: self._service.stages_s(frames, config.network, str(config.preset)))
            yield (progress.run_progress(tracker.state), *busy_buttons(), job.id, None, hidden)
            while job.result is None:
                if tracker.poll(job, self._service.config.poll_s):
                    yield (progress.run_progress(tracker.state), *((gr.skip(),) * 5))
            yield _final_update(job.result, hidden)
        finally:
            release(self._service, job)

    def stop(self, job_id: str | None) -> Any:
        """Stop a job: (stop button)."""
        if job_id:
            self._service.jobs.stop(job_id)
        return gr.Button(value="Stopping…", interactive=False)

    def leave(self, request: gr.Request) -> None:
        """End all jobs of a visitor who closed the page."""
        self._service.jobs.stop_visitor(visitor_of(request))


def _final_update(result: JobResult[Session], hidden: Any) -> tuple[Any, ...]:
    if result.value is not None:
        return ("", *idle_buttons(), None, result.value.id, gr.skip())
    text = result.problem or "Stopped. Nothing of this run was kept."
    return (common.notice(text, "error" if result.problem else "note"), *idle_buttons(), None, None, hidden)
