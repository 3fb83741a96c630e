"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from sfmttr.sfm.protocol import FIRST_RUNG, SfmPhase
from sfmttr.types import ResultOrigin

from ..eta import format_duration
from .charts import Mark, Series, line_chart

if TYPE_CHECKING:
    pass
from .common import is_finite, percent

STEPS = (
    ("frames", "Choose sharp frames"),
    ("sfm", "Find the camera's path and 3D points"),
    ("before", "Depth before"),
    ("refine", "Teach the network this place"),
    ("outputs", "Depth after, pictures and 3D"),
)
_STEP_OF = {
    "weights": "frames",
    "disparity": "before",
    "aligned": "before",
    **dict.fromkeys(("after", "before_fused", "after_fused", "compare"), "outputs"),
}
EXPORT_STEPS = {
    "starting": "Starting",
    "torch": "Reading the refined network",
    "fp32": "Freezing it to ONNX (fp32), and checking every pixel",
    "fp16": "Half precision, checked",
    "int8": "Eight bits, calibrated on your clip, checked",
    "timing": "Timing all of them on this machine",
    "kit": "Packing the kit",
}


@dataclass
class Live:
    """What is known of a run that is going on."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    phase: str = ""
    attempt: str = ""
    origin: ResultOrigin = ResultOrigin.COMPUTED
    place: int | None = None
    left_s: float | None = None
    validation: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    first: str = ""
    """Data URI: the first frame's depth before."""
    now: str = ""
    """Data URI: and as the network sees it now."""
    stopping: bool = False

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0


def live(state: Live) -> str:
    """Stages, bar, time left, the validation curve and the first frame's depth."""
    if state.stopping:
        return '<div class="live" aria-live="polite"><p class="headline">Stopping…</p></div>'
    if state.place:
        people = "One run is" if state.place == 1 else f"{state.place} runs are"
        return (
            f'<div class="live" aria-live="polite"><p class="headline">You are number {state.place} in line</p>'
            f"<p>{people} before you; yours starts by itself. The page may stay in the background.</p></div>"
        )
    current = _STEP_OF.get(state.stage, state.stage)
    names = [name for name, _ in STEPS]
    at = names.index(current) if current in names else -1
    items = "".join(_step_item(i, at, title, state) for i, (_, title) in enumerate(STEPS))
    left = f"{format_duration(state.left_s)} left" if state.left_s is not None and state.left_s > 0 else ""
    return (
        f'<div class="live"><ol class="steps">{items}</ol>'
        f'<p class="left" aria-live="polite">{escape(left)}</p>{_live_pictures(state)}</div>'
    )


def _step_item(i: int, at: int, title: str, state: Live) -> str:
    kind = "done" if i < at else "now" if i == at else "later"
    bar = note = ""
    if kind == "now":
        known = state.total > 0
        style = f"width:{100 * state.share:.1f}%" if known else ""
        bar = f'<span class="bar{"" if known else " unknown"}"><span style="{style}"></span></span>'
        note = f'<span class="note">{escape(_note(state))}</span>'
    current = ' aria-current="step"' if kind == "now" else ""
    return f'<li class="{kind}"{current}><span class="title">{escape(title)}</span>{note}{bar}</li>'


_SFM_WORDS: dict[str, str] = {
    SfmPhase.START: "starting",
    SfmPhase.FEATURES: "looking for corners",
    SfmPhase.MATCHING: "matching frames",
    SfmPhase.MAPPING: "placing cameras",
}


def _note(state: Live) -> str:
    if state.origin is ResultOrigin.RUN_FOLDER:
        return ""
    if state.stage == "sfm" and state.phase:
        again = f" (another try: {state.attempt})" if state.attempt not in ("", FIRST_RUNG) else ""
        count = f", {state.done} of {state.total}" if state.total else ""
        return _SFM_WORDS.get(state.phase, state.phase) + count + again
    if state.stage == "refine":
        return f"step {state.done} of {state.total}"
    if state.stage == "weights":
        return f"fetching {state.note}, {100 * state.share:.0f} %" if state.total else state.note
    return state.note


def _live_pictures(state: Live) -> str:
    curve = validation_chart(state.validation, state.steps)
    parts = []
    if state.now:
        parts.append(
            '<div class="pair">'
            f'<figure><img alt="depth before" src="{state.first}"><figcaption>before</figcaption></figure>'
            f'<figure><img alt="depth now" src="{state.now}"><figcaption>now</figcaption></figure></div>'
        )
    if curve:
        parts.append(f'<div class="curve"><h4>Error at points it does not learn from</h4>{curve}</div>')
    return f'<div class="live-pictures">{"".join(parts)}</div>' if parts else ""


def export_progress(step: str, done: int, total: int, place: int | None = None) -> str:
    """One line and a bar."""
    if place:
        return f'<div class="live"><p class="headline">You are number {place} in line</p></div>'
    share = 100 * done / total if total else 0
    title = EXPORT_STEPS.get(step, step)
    bar = f'<span class="bar{"" if total else " unknown"}"><span style="width:{share:.0f}%"></span></span>'
    item = f'<li class="now"><span class="title">{escape(title)}</span>{bar}</li>'
    return f'<div class="live"><ol class="steps">{item}</ol></div>'


def validation_chart(validation: Sequence[tuple[float, float | None]], steps: int) -> str:
    """Error at validation points by step; the unrefined network's as a level, the best step marked."""
    known = [(float(step), float(error)) for step, error in validation if is_finite(error)]
    if not known:
        return ""
    best = min(known, key=lambda pair: pair[1])
    level = (known[0][1], f"unrefined {percent(known[0][1])}") if known[0][0] == 0 else None
    mark = Mark(best[0], best[1], f"{percent(best[1])} at step {best[0]:.0f}") if len(known) > 1 else None
    return line_chart(
        [Series("validation", known, dots=True)],
        "step",
        "error at validation points",
        x_range=(0.0, float(max(steps, 1))),
        level=level,
        mark=mark,
        percent=True,
    )
