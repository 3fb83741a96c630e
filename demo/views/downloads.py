"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..run_view import RunView
from .common import megabytes, picture_uri


@dataclass(frozen=True)
class DownloadItem:
    """Something to take home."""

    name: str
    title: str
    words: str
    size: int


def downloads(key: str, offers: Sequence[DownloadItem]) -> str:
    """Links, the kit first."""
    cards = "".join(
        f'<a class="offer" href="view/{escape(key)}/file/{escape(each.name)}" download="{escape(each.name)}">'
        f"<b>{escape(each.title)}</b><span>{escape(each.words)}</span><small>{megabytes(each.size)}</small></a>"
        for each in offers
    )
    return f'<div class="offers">{cards}</div>'


def prediction(photo: np.ndarray, depth: np.ndarray, view: RunView, facts: Sequence[str]) -> str:
    """A photo and its depth, in the clip's colours."""
    from sfmttr.viz import colormap

    from ..run_view import TITLES

    config = {
        "frames": ["photo"],
        "hw": list(photo.shape[:2]),
        "layers": [
            {"key": "photo", "title": TITLES["photo"], "src": picture_uri(photo, 1280, 88)},
            {
                "key": "depth",
                "title": "depth",
                "src": picture_uri(colormap.colorize(depth, view.exported_colours), 1280, 88),
            },
        ],
        "left": "photo",
        "right": "depth",
        "bar": None,
    }
    text = " · ".join(escape(each) for each in facts)
    return (
        f"<depth-compare data-config='{escape(json.dumps(config), quote=True)}'></depth-compare>"
        f'<p class="caption" id="predicted">{text}</p>'
    )
