"""The Points tab: 3D points by class on every frame, and the scale of every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .charts import Axis, Level, Series, line_chart
from .compare import depth_compare

if TYPE_CHECKING:
    from ..run_view import RunView

_LEGEND = {
    "strict": "Agree with the network (set the scale)",
    "relaxed": "Disagree (teach the network)",
    "rejected": "Too far off (ignored)",
    "held_out": "Held out (used only to measure)",
}
_STRICT_DISPARITY = "Agree with the network (set the scale and shift of the clip)"


def points(view: RunView) -> str:
    """Return a legend with counts, the points on every frame, and a chart of the scale of every frame."""
    known = view.points
    if known is None:
        return '<p class="empty">No 3D points: structure-from-motion found no model.</p>'
    texts = _LEGEND | ({"strict": _STRICT_DISPARITY} if view.predicts_disparity else {})
    legend = "".join(
        f'<li><span class="mark {kind}" aria-hidden="true"></span><b>{count:,}</b> {texts[str(kind)]}</li>'
        for kind, count in known.counts().items()
    )
    player = depth_compare(view, ["points"], "points", "points")
    alignment = view.report.alignment
    scale = {} if alignment is None else alignment.frame_scale
    series = Series("scale", sorted((float(frame), value) for frame, value in scale.items()), dots=True)
    chart = line_chart([series], Axis("frame"), Axis("frame scale / clip scale"), level=Level(1.0, "whole clip"))
    return (
        f'<ul class="legend">{legend}</ul>{player}<h3>Scale, frame by frame</h3>'
        f"<p>Scale of each frame relative to the whole clip. Flat means network and reconstruction agree.</p>{chart}"
    )
