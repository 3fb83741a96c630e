"""The Compare tab, and the comparison element that other tabs use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from .verdict import before_caption

if TYPE_CHECKING:
    from ..run_view import RunView

_PLAYBACK_FPS = 10
_BAR_TICKS = 7


def compare(view: RunView, key: str) -> str:
    """Return the comparison of every frame, what "before" is, and the video of the clip."""
    left, right = (str(view.before), "after") if view.refined else ("photo", str(view.before))
    element = depth_compare(view, [each for each in view.layers if each != "points"], left, right)
    caption = f'<p class="caption">{before_caption(view)}</p>' if view.predicts_disparity else ""
    video = ""
    if (view.folder / "comparison.mp4").is_file():
        video = (
            '<h3>Whole clip</h3><video class="film" controls muted loop playsinline preload="metadata" '
            f'poster="view/{escape(key)}/file/compare.png" src="view/{escape(key)}/file/comparison.mp4"></video>'
        )
    return f"{element}{caption}{video}"


def depth_compare(view: RunView, layers: Sequence[str], left: str, right: str) -> str:
    """Return the element of `page.js` for a run: two layers over each other with a divider, for every frame."""
    from sfmttr.viz import overlays

    config = {
        "base": f"view/{view.session.id}/",
        "frames": [str(name) for name in view.frames.names],
        "hw": list(view.frames.hw),
        "layers": [{"key": key, "title": view.titles[key]} for key in layers],
        "left": left,
        "right": right,
        "bar": _depth_bar(view),
        "errorBar": {"most": f"{100 * overlays.MAX_ERROR:.0f} %"},
        "fps": _PLAYBACK_FPS,
    }
    return depth_compare_element(config)


def depth_compare_element(config: dict[str, Any]) -> str:
    """Return the element of `page.js` with this configuration."""
    return f"<depth-compare data-config='{escape(json.dumps(config), quote=True)}'></depth-compare>"


def _depth_bar(view: RunView) -> dict[str, Any]:
    from sfmttr.viz import colormap

    return {
        "stops": ["rgb({},{},{})".format(*color) for color in colormap.palette()[:-1:17]],
        "ticks": [
            {"at": float(colormap.color_position(np.array(value), view.colors)), "text": f"{value:g}"}
            for value in colormap.round_ticks(view.colors, _BAR_TICKS)
        ],
        "unit": view.unit,
    }
