"""What the page does for its visitors, whoever asks: buttons and API alike. Nothing here knows gradio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfmttr.config import RunConfig
from sfmttr.types import Progress, ResultOrigin

from . import zerogpu
from .eta import TimingHistory
from .export_worker import ExportRequest, export
from .sessions import Session

if TYPE_CHECKING:
    from sfmttr.refinement.backend import Backend, LiveNetwork
    from sfmttr.refinement.task import RefineStep


OnEvent = Callable[[object], None]


@dataclass(frozen=True)
class QueueEvent:
    """So many are before us."""

    position: int


@dataclass(frozen=True)
class RefineStepEvent:
    """One step of the refinement; now and then with what the network says of the first frame."""

    step: RefineStep
    depth: np.ndarray | None = field(repr=False)


def run_into(
    session: Session,
    clip: Path,
    config: RunConfig,
    backend: Backend,
    tell: OnEvent,
    timings: TimingHistory,
    live_every_s: float = float("inf"),
) -> None:
    """Run the pipeline into the session's folder, telling `Progress` and `RefineStepEvent`."""
    from sfmttr.run import pipeline  # torch takes seconds to import: tell the visitor something first

    from .run_view import save_points

    cached: set[str] = set()
    shown_at = float("-inf")

    def on_progress(progress: Progress) -> None:
        if progress.origin is ResultOrigin.CACHE:
            cached.add(progress.stage)
        tell(progress)

    def on_step(step: RefineStep, live: LiveNetwork) -> None:
        nonlocal shown_at
        now, depth = time.monotonic(), None
        if now - shown_at >= live_every_s:
            shown_at, depth = now, live.depth(zerogpu.LIVE_FRAME)
        tell(RefineStepEvent(step, depth))

    result = pipeline.run(clip, session.run, config, on_progress, on_step, backend)
    tell(Progress("outputs", 1, 1))
    save_points(result, session)
    measured_s = {stage: seconds for stage, seconds in result.timings_s.items() if stage not in cached}
    timings.record_run(measured_s, len(result.frames), config.network, str(config.preset))


def export_into(session: Session, wish: ExportRequest, tell: OnEvent, timings: TimingHistory) -> None:
    """Export the session's run, telling `Progress`."""
    from sfmttr.io.json_files import read_json
    from sfmttr.run.manifest import REPORT

    started = time.monotonic()
    export(session.run, wish, tell)
    timings.record_export(time.monotonic() - started, str(read_json(session.run / REPORT)["network"]))
