"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..run_view import RunView
from .verdict import before_words


def compare(view: RunView, key: str) -> str:
    """The slider over every frame, with the video and how to read it."""
    left, right = (str(view.before), "after") if view.refined else ("photo", str(view.before))
    element = depth_compare(view, [each for each in view.layers if each != "points"], left, right)
    said = f'<p class="caption">{before_words(view)}</p>' if view.gave_disparity else ""
    film = ""
    if (view.folder / "comparison.mp4").is_file():
        film = (
            '<h3>Whole clip</h3><video class="film" controls muted loop playsinline preload="metadata" '
            f'poster="view/{escape(key)}/file/compare.png" src="view/{escape(key)}/file/comparison.mp4"></video>'
        )
    return f"{element}{said}{film}"


def depth_compare(view: RunView, layers: Sequence[str], left: str, right: str) -> str:
    """The element of `page.js`: two layers over each other with a divider, and every frame."""
    from sfmttr.viz import colormap, overlays

    hw = view.frames.hw
    config = {
        "base": f"view/{view.session.id}/",
        "frames": [str(name) for name in view.frames.names],
        "hw": list(hw),
        "layers": [{"key": key, "title": view.titles[key]} for key in layers],
        "left": left,
        "right": right,
        "bar": {
            "stops": ["rgb({},{},{})".format(*colour) for colour in colormap.palette()[:-1:17]],
            "ticks": [
                {"at": float(colormap.color_position(np.array(value), view.colours)), "text": f"{value:g}"}
                for value in colormap.round_depths(view.colours, 7)
            ],
            "unit": view.unit,
        },
        "errorBar": {"most": f"{overlays.MAX_ERROR:.0%}+"},
        "fps": 10,
    }
    return f"<depth-compare data-config='{escape(json.dumps(config), quote=True)}'></depth-compare>"
