"""The export in the Download tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from sfmttr.errors import SfmttrError
from sfmttr.types import Progress

from ..form import parse_export_request
from ..runner import QueueEvent
from ..views import common, progress
from .common import busy_buttons, idle_buttons, release, visitor_of

if TYPE_CHECKING:
    from ..service import Service
    from .results import ResultHandlers


class ExportHandlers:
    """Events of an export."""

    def __init__(self, service: Service, results: ResultHandlers) -> None:
        self._service, self._results = service, results

    def start(
        self,
        key: str | None,
        point: str,
        distance_m: float | None,
        height_m: float | None,
        bundle: bool,
        request: gr.Request | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Export a run and pack its kit: (progress, export button, stop button, job id)."""
        try:
            session = self._service.finished(key)
            wanted = parse_export_request(point, distance_m, height_m, bundle=bool(bundle))
            job = self._service.start_export(session, wanted, visitor_of(request))
        except SfmttrError as error:
            yield (common.notice(str(error)), *idle_buttons(), None)
            return
        try:
            unchanged = (gr.skip(),) * 3
            yield (progress.export_progress("starting", 0, 0), *busy_buttons(), job.id)
            while job.result is None:
                for event in job.events(self._service.config.poll_s):
                    if isinstance(event, QueueEvent):
                        yield (progress.export_progress("", 0, 0, event.position), *unchanged)
                    elif isinstance(event, Progress):
                        yield (progress.export_progress(event.phase, event.done, event.total), *unchanged)
            if job.result.value is not None:
                yield ("", *idle_buttons(), None)
            else:
                problem = job.result.problem
                text = problem or "Stopped. The export was not finished."
                yield (common.notice(text, "error" if problem else "note"), *idle_buttons(), None)
        finally:
            release(self._service, job)

    def finished(self, key: str | None) -> dict[str, Any]:
        """Return updates of Download and Try it once an export ended, well or not; its last message stays."""
        from ..run_view import view_of

        session = self._service.find(key)
        if session is None or not session.finished:
            return {}
        shown = self._results.export_dependent(session, view_of(session))
        del shown["export_live"]
        return shown
