"""Runs and exports into a session's folder, for visitors' jobs and for the examples."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfmttr.config import RunConfig
from sfmttr.types import Progress, ResultOrigin

from . import zerogpu
from .eta import TimingHistory
from .export_worker import ExportRequest, export
from .jobs import OnEvent
from .sessions import Session

if TYPE_CHECKING:
    from sfmttr.refinement.backend import Backend, LiveNetwork
    from sfmttr.refinement.task import RefineStep


@dataclass(frozen=True)
class QueueEvent:
    """A position in the queue."""

    position: int
    """Number of jobs ahead."""


@dataclass(frozen=True)
class RefineStepEvent:
    """One step of the refinement, now and then with the current depth of the first frame."""

    step: RefineStep
    depth: np.ndarray | None = field(repr=False)
    """(h, w) float32, or None."""


class Runner:
    """Runs and exports, whose durations go into `timings`."""

    def __init__(self, timings: TimingHistory) -> None:
        self._timings = timings

    def run(
        self,
        session: Session,
        clip: Path,
        config: RunConfig,
        backend: Backend,
        on_event: OnEvent,
        live_every_s: float = float("inf"),
    ) -> None:
        """Run the pipeline into the session's folder, reporting `Progress` and `RefineStepEvent`.

        At most one event in `live_every_s` carries a depth map.
        """
        from sfmttr.run import pipeline  # torch takes seconds to import; the visitor sees something first

        from .run_view import save_points

        cached: set[str] = set()
        shown_at = float("-inf")

        def on_progress(progress: Progress) -> None:
            if progress.origin is ResultOrigin.CACHE:
                cached.add(progress.stage)
            on_event(progress)

        def on_step(step: RefineStep, live: LiveNetwork) -> None:
            nonlocal shown_at
            now, depth = time.monotonic(), None
            if now - shown_at >= live_every_s:
                shown_at, depth = now, live.depth(zerogpu.LIVE_FRAME)
            on_event(RefineStepEvent(step, depth))

        result = pipeline.run(clip, session.run, config, on_progress, on_step, backend)
        on_event(Progress("outputs", 1, 1))
        save_points(result, session)
        measured_s = {stage: seconds for stage, seconds in result.timings_s.items() if stage not in cached}
        self._timings.record_run(measured_s, len(result.frames), config.network, str(config.preset))

    def export(self, session: Session, request: ExportRequest, on_event: OnEvent) -> None:
        """Export the session's run and pack its kit, reporting `Progress`."""
        from sfmttr.run.report import read_report

        started = time.monotonic()
        export(session.run, request, on_event)
        self._timings.record_export(time.monotonic() - started, read_report(session.run).network)
