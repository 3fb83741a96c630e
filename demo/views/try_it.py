"""The Try it tab: depth of a photo by the exported network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .common import picture_uri
from .compare import depth_compare_element

if TYPE_CHECKING:
    from ..run_view import RunView

_WIDTH_PX, _QUALITY = 1280, 88


def instructions(frames: int) -> str:
    """Return what to do, for a clip of so many frames."""
    return f"<p>Upload another photo of the same place, or pick one of the {frames} frames.</p>"


def kit_link(id: str) -> str:
    """Return the link to the kit's page, for the run with this id."""
    address = f"view/{escape(id)}/kit/index.html"
    return (
        f'<p><a class="kit-link" href="{address}" target="_blank">Open the kit’s own page</a>: it runs the network in '
        "your browser on pictures, clips and your camera. It loads its runtime from jsdelivr.net unless the kit "
        "includes it.</p>"
    )


def prediction(photo: np.ndarray, depth: np.ndarray, view: RunView, facts: Sequence[str]) -> str:
    """Return a photo (H, W, 3) and its depth (H, W), in the colors of the clip, with facts about the prediction."""
    from sfmttr.viz import colormap

    from ..run_view import TITLES

    colored = colormap.colorize(depth, view.exported_colors)
    config = {
        "frames": ["photo"],
        "hw": list(photo.shape[:2]),
        "layers": [
            {"key": "photo", "title": TITLES["photo"], "src": picture_uri(photo, _WIDTH_PX, _QUALITY)},
            {"key": "depth", "title": "depth", "src": picture_uri(colored, _WIDTH_PX, _QUALITY)},
        ],
        "left": "photo",
        "right": "depth",
        "bar": None,
    }
    text = " · ".join(escape(each) for each in facts)
    return f'{depth_compare_element(config)}<p class="caption" id="predicted">{text}</p>'
