"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..run_view import RunView
from .common import notice, percent


def verdict(view: RunView, link: str) -> str:
    """What came of it, in one glance."""
    report, run = view.report, f' data-run="{escape(view.session.id)}"'
    if not view.refined:
        title = "Not refined: this reconstruction is not to be trusted" if view.gate_closed else "Not refined"
        body = f'<p class="why">{escape(report.advice)}</p><p>{_unrefined_words(view)}</p>'
        return f'<div class="verdict closed"{run}><h2>{title}</h2>{body}{_link(link)}</div>'
    if view.rolled_back:
        body = (
            "No step was better than the network as it was, at points that it did not learn from: it is kept as it was."
        )
        return f'<div class="verdict closed"{run}><h2>Nothing to gain here</h2><p>{body}</p>{_link(link)}</div>'
    before, aligned, after = (view.held_out(column) for column in (view.before, "aligned", "after"))
    if before is None or after is None or aligned is None:
        return f'<div class="verdict"{run}><h2>Refined</h2>{_link(link)}</div>'
    arrow = "<span class='arrow' aria-hidden='true'>→</span>"
    times = aligned / after if after > 0 else float("inf")
    caution = (
        ""
        if view.trusted
        else notice("Refined although the reconstruction is not trusted: mind what you see.", "warning")
    )
    return (
        f'<div class="verdict"{run}>'
        f"<h2>Depth is {_factor(times)} more accurate in this place</h2>"
        f'<div class="figures">{_figure("before", before)}{arrow}{_figure("after", after, "good")}</div>'
        f"<p>Mean relative error at {_held_out_count(view)} points of the reconstruction that the network never saw. "
        f"{_alignment_words(view)}</p>{caution}{_link(link)}</div>"
    )


def _alignment_words(view: RunView) -> str:
    """What alignment alone does, which is no gain."""
    if view.before_words:
        return f"Before is the network {view.before_words}: what only they would have gained is no gain."
    return f"Scale alone would have given {percent(view.held_out('aligned'))}."


def _unrefined_words(view: RunView) -> str:
    forced = " You can refine all the same, below." if view.gate_closed else ""
    return f"Below is the depth that the network gives as it is, and what structure-from-motion found.{forced}"


def _factor(times: float) -> str:
    return f"{times:.1f} times" if times < 10 else f"{times:.0f} times"


def _figure(name: str, value: float, kind: str = "") -> str:
    return (
        f'<div class="figure {kind}"><span class="value">{percent(value)}</span><span class="name">{name}</span></div>'
    )


def _held_out_count(view: RunView) -> str:
    comparison = view.report.comparison.held_out
    return f"{comparison.after.count:,}" if comparison is not None and comparison.after is not None else "the"


def _link(link: str) -> str:
    return (
        f'<p class="link">This result stays a day: <a href="{escape(link)}">link to come back to it</a></p>'
        if link
        else ""
    )


def before_words(view: RunView) -> str:
    """What "before" is, where the network gives inverse depth."""
    if view.before_words:
        return f"“Before”, here and in video, pictures and 3D, is the network {view.before_words} for this clip."
    return "The network gives inverse depth up to scale and shift; what is shown leaves the shift out."
