"""State of a run while it goes on, gathered from the events of its job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sfmttr.types import Progress, ResultOrigin

from .eta import ORDER, remaining_s
from .runner import QueueEvent, RefineStepEvent

if TYPE_CHECKING:
    from .jobs import Job

_LIVE_WIDTH_PX = 480


@dataclass
class RunProgress:
    """State of a run that goes on, as the page shows it."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    phase: str = ""
    attempt: str = ""
    """Settings that structure-from-motion is trying; empty in other stages."""
    origin: ResultOrigin = ResultOrigin.COMPUTED
    position: int | None = None
    """Runs ahead in the queue; None or 0 once the run has started."""
    remaining_s: float | None = None
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, error at validation points) pairs."""
    steps: int = 0
    first: str = ""
    """Data URI of the first frame's depth before refinement."""
    now: str = ""
    """Data URI of the first frame's current depth."""
    stopping: bool = False

    @property
    def share(self) -> float:
        """Finished share of the stage, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class ProgressTracker:
    """Follows one job and keeps its `RunProgress`."""

    def __init__(self, stages_s: Callable[[], dict[str, float] | None]) -> None:
        """`stages_s` estimates the seconds of each stage.

        It is called at the start of every stage: more is known of a network once it was looked up.
        """
        self.state = RunProgress(stage="start")
        self._estimate = stages_s
        self._stages_s: dict[str, float] | None = None
        self._since: float | None = None
        self._range: Any = None

    def poll(self, job: Job[Any], timeout_s: float) -> bool:
        """Process the events of `job`, waiting at most `timeout_s`; return whether the state changed."""
        changed = False
        for event in job.events(timeout_s):
            if event is not None:
                self.update(event)
                changed = True
        if job.stopping and not self.state.stopping:
            self.state.stopping = changed = True
        return changed

    def update(self, event: object) -> None:
        """Process one event."""
        if isinstance(event, QueueEvent):
            self.state.position = event.position
        elif isinstance(event, Progress):
            self._update_stage(event)
        elif isinstance(event, RefineStepEvent):
            self._update_step(event)

    def _update_stage(self, event: Progress) -> None:
        state = self.state
        if event.stage != state.stage:
            self._since = time.monotonic()
            self._stages_s = self._estimate()
        state.stage, state.done, state.total, state.note = event.stage, event.done, event.total, event.note
        state.phase, state.attempt, state.origin = event.phase, event.attempt, event.origin
        if event.stage in ORDER and self._stages_s is not None:
            spent_s = time.monotonic() - (self._since or time.monotonic())
            state.remaining_s = remaining_s(self._stages_s, event.stage, state.share, spent_s)

    def _update_step(self, event: RefineStepEvent) -> None:
        from sfmttr.viz import colormap

        from .views.common import picture_uri

        step = event.step
        self.state.steps = step.total
        if step.validation is not None:
            self.state.validation.append((step.index, step.validation))
        if event.depth is not None:
            self._range = self._range or colormap.color_range([event.depth])
            self.state.now = picture_uri(colormap.colorize(event.depth, self._range), _LIVE_WIDTH_PX)
            self.state.first = self.state.first or self.state.now
