"""Progress of a run and of an export."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfmttr.run import stages
from sfmttr.run.stages import StageName
from sfmttr.sfm.protocol import FIRST_ATTEMPT, SfmPhase
from sfmttr.types import ResultOrigin

from ..eta import format_duration
from .charts import Axis, Level, Mark, Series, line_chart
from .common import is_finite, percent

if TYPE_CHECKING:
    from ..run_progress import RunProgress

STEPS = {
    StageName.FRAMES: "Select sharp frames",
    StageName.SFM: "Reconstruct camera path and 3D points",
    StageName.BEFORE: "Predict depth before",
    StageName.REFINE: "Fine-tune the network",
    StageName.OUTPUTS: "Predict depth after, render pictures and 3D",
}
"""Titles of the steps of a run; `stages.step` gives the step of a stage."""
EXPORT_STEPS = {
    "starting": "Starting",
    "torch": "Loading the refined network",
    "fp32": "Exporting to ONNX (fp32) and verifying every pixel",
    "fp16": "Converting to half precision (fp16) and verifying",
    "int8": "Quantizing (int8, calibrated on your clip) and verifying",
    "timing": "Measuring the speed of each file on this machine",
    "kit": "Packing the kit",
}
_SFM_PHASES: dict[str, str] = {
    SfmPhase.START: "starting",
    SfmPhase.FEATURES: "finding features",
    SfmPhase.MATCHING: "matching frames",
    SfmPhase.MAPPING: "estimating camera poses",
}


def run_progress(state: RunProgress) -> str:
    """Return the steps with a bar, the time left, the validation curve and the first frame's depth."""
    if state.stopping:
        return '<div class="live" aria-live="polite"><p class="headline">Stopping…</p></div>'
    if state.position:
        return (
            f'<div class="live" aria-live="polite"><p class="headline">{_queue(state.position)}</p>'
            "<p>Yours starts automatically; keep this tab open.</p></div>"
        )
    current = stages.step(state.stage)
    names = list(STEPS)
    at = names.index(StageName(current)) if current in names else -1
    items = "".join(_step_item(i, at, title, state) for i, title in enumerate(STEPS.values()))
    left = f"{format_duration(state.remaining_s)} left" if state.remaining_s and state.remaining_s > 0 else ""
    return (
        f'<div class="live"><ol class="steps">{items}</ol>'
        f'<p class="left" aria-live="polite">{escape(left)}</p>{_live_pictures(state)}</div>'
    )


def _queue(ahead: int) -> str:
    return "1 run is ahead of you" if ahead == 1 else f"{ahead} runs are ahead of you"


def _step_item(i: int, at: int, title: str, state: RunProgress) -> str:
    kind = "done" if i < at else "now" if i == at else "later"
    bar = note = ""
    if kind == "now":
        known = state.total > 0
        style = f"width:{100 * state.share:.1f}%" if known else ""
        bar = f'<span class="bar{"" if known else " unknown"}"><span style="{style}"></span></span>'
        note = f'<span class="note">{escape(_note(state))}</span>'
    current = ' aria-current="step"' if kind == "now" else ""
    return f'<li class="{kind}"{current}><span class="title">{escape(title)}</span>{note}{bar}</li>'


def _note(state: RunProgress) -> str:
    if state.origin is ResultOrigin.RUN_FOLDER:
        return ""
    if state.stage == "sfm" and state.phase:
        again = f" (trying again: {state.attempt})" if state.attempt not in ("", FIRST_ATTEMPT) else ""
        count = f", {state.done} of {state.total}" if state.total else ""
        return _SFM_PHASES.get(state.phase, state.phase) + count + again
    if state.stage == "refine":
        return f"step {state.done} of {state.total}"
    if state.stage == "weights":
        return f"downloading {state.note}, {100 * state.share:.0f} %" if state.total else state.note
    return state.note


def _live_pictures(state: RunProgress) -> str:
    curve = validation_chart(state.validation, state.steps)
    parts = []
    if state.now:
        parts.append(
            '<div class="pair">'
            f'<figure><img alt="depth before" src="{state.first}"><figcaption>before</figcaption></figure>'
            f'<figure><img alt="depth now" src="{state.now}"><figcaption>now</figcaption></figure></div>'
        )
    if curve:
        parts.append(f'<div class="curve"><h4>Error at points held out from training</h4>{curve}</div>')
    return f'<div class="live-pictures">{"".join(parts)}</div>' if parts else ""


def export_progress(step: str, done: int, total: int, position: int | None = None) -> str:
    """Return one line and a bar, or the position in the queue."""
    if position:
        return f'<div class="live"><p class="headline">{_queue(position)}</p></div>'
    share = 100 * done / total if total else 0
    title = EXPORT_STEPS.get(step, step)
    bar = f'<span class="bar{"" if total else " unknown"}"><span style="width:{share:.0f}%"></span></span>'
    item = f'<li class="now"><span class="title">{escape(title)}</span>{bar}</li>'
    return f'<div class="live"><ol class="steps">{item}</ol></div>'


def validation_chart(validation: Sequence[tuple[float, float | None]], steps: int) -> str:
    """Return the error at validation points by step, with the unrefined network's as a level and the best step marked.

    `validation`: (step, error) pairs, step 0 being the unrefined network; an empty string when no error is known.
    """
    known = [(float(step), float(error)) for step, error in validation if is_finite(error)]
    if not known:
        return ""
    best = min(known, key=lambda pair: pair[1])
    return line_chart(
        [Series("validation", known, dots=True)],
        Axis("step", range=(0.0, float(max(steps, 1)))),
        Axis("error at validation points", percent=True),
        level=Level(known[0][1], f"unrefined {percent(known[0][1])}") if known[0][0] == 0 else None,
        mark=Mark(best[0], best[1], f"{percent(best[1])} at step {best[0]:.0f}") if len(known) > 1 else None,
    )
