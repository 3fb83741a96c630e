"""The verdict above the tabs: what the refinement achieved, at one glance."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .common import notice, percent

if TYPE_CHECKING:
    from ..run_view import RunView


def verdict(view: RunView, link: str) -> str:
    """Return the headline of a run; `link`: the query that opens it, empty for an example."""
    run = f' data-run="{escape(view.session.id)}"'
    if not view.refined:
        return f'<div class="verdict closed"{run}>{_not_refined(view)}{_link(link)}</div>'
    if view.rolled_back:
        text = (
            "At validation points held out from training, no step was better than the original network, so it was kept "
            "unchanged."
        )
        return f'<div class="verdict closed"{run}><h2>No improvement found</h2><p>{text}</p>{_link(link)}</div>'
    return f'<div class="verdict"{run}>{_refined(view)}{_link(link)}</div>'


def _not_refined(view: RunView) -> str:
    title = "Not refined: the reconstruction looks unreliable" if view.gate_closed else "Not refined"
    shown = "Below: the depth of the original network, and the result of structure-from-motion."
    anyway = " You can refine anyway with the button below." if view.gate_closed else ""
    advice = escape(view.report.advice)
    return f'<h2>{title}</h2><p class="why">{advice}</p><p>{shown}{anyway}</p>'


def _refined(view: RunView) -> str:
    before, aligned, after = (view.held_out(column) for column in (view.before, "aligned", "after"))
    if before is None or after is None or aligned is None:
        return "<h2>Refined</h2>"
    arrow = "<span class='arrow' aria-hidden='true'>→</span>"
    times = aligned / after if after > 0 else float("inf")
    caution = "Refined although the reconstruction looks unreliable: treat the results with caution."
    return (
        f"<h2>Depth is {_factor(times)} more accurate in this place</h2>"
        f'<div class="figures">{_figure("before", before)}{arrow}{_figure("after", after, "good")}</div>'
        f"<p>Mean relative error at {_held_out_count(view)} reconstructed 3D points held out from training. "
        f"{_alignment_share(view)}</p>{'' if view.trusted else notice(caution, 'warning')}"
    )


def _alignment_share(view: RunView) -> str:
    """Return what alignment alone achieves, which does not count as improvement."""
    if view.before_description:
        return f"“Before” is {view.before_description}: what alignment alone gains is not counted."
    return f"Rescaling the original depth alone would give {percent(view.held_out('aligned'))}."


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
    if not link:
        return ""
    return (
        f'<p class="link">Kept for 24 hours after the last visit: <a href="{escape(link)}">link to this result</a></p>'
    )


def before_caption(view: RunView) -> str:
    """Return what "before" shows, for a network that predicts inverse depth."""
    if view.before_description:
        return f"“Before”, here and in video, pictures and 3D, is {view.before_description} for this clip."
    return "The network predicts inverse depth up to scale and shift; the depth shown leaves the shift out."
