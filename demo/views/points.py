"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .charts import Series, line_chart

if TYPE_CHECKING:
    from ..run_view import RunView
from .compare import depth_compare


def points(view: RunView) -> str:
    """Points over every frame, and the scale of every frame."""
    known = view.points
    if known is None:
        return '<p class="empty">There are no points: structure-from-motion found no model.</p>'
    words = _CLASS_WORDS | ({"strict": _STRICT_DISPARITY} if view.gave_disparity else {})
    legend = "".join(
        f'<li><span class="mark {kind}" aria-hidden="true"></span><b>{count:,}</b> {words[str(kind)]}</li>'
        for kind, count in known.counts().items()
    )
    player = depth_compare(view, ["points"], "points", "points")
    alignment = view.report.alignment
    scale = {} if alignment is None else alignment.frame_scale
    series = Series("scale", sorted((float(frame), value) for frame, value in scale.items()), dots=True)
    chart = line_chart(
        [series], "frame", "scale of the frame over that of the clip", from_zero=True, level=(1.0, "whole clip")
    )
    return (
        f'<ul class="legend">{legend}</ul>{player}<h3>Scale, frame by frame</h3>'
        "<p>The scale that fits each frame alone, over the one that fits the clip: the flatter, the better network and "
        f"reconstruction agree.</p>{chart}"
    )


_CLASS_WORDS = {
    "strict": "strict: fit the one scale of the clip, and set it",
    "relaxed": "relaxed: the network had them wrong, and learns from them",
    "rejected": "rejected: too far off to be believed",
    "held_out": "held out: never learnt from, used to judge",
}
_STRICT_DISPARITY = "strict: fit the one scale and shift of the clip, and set them"
