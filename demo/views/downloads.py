"""The files of the Download tab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .common import megabytes


@dataclass(frozen=True)
class DownloadItem:
    """One file that can be downloaded."""

    name: str
    title: str
    description: str
    size: int
    """Bytes; of a folder, before it is zipped."""


def downloads(key: str, items: Sequence[DownloadItem]) -> str:
    """Return links in the given order, for the run with this key."""
    cards = "".join(
        f'<a class="offer" href="view/{escape(key)}/file/{escape(each.name)}" download="{escape(each.name)}">'
        f"<b>{escape(each.title)}</b><span>{escape(each.description)}</span><small>{megabytes(each.size)}</small></a>"
        for each in items
    )
    return f'<div class="offers">{cards}</div>'
