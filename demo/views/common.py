"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

import base64
import math
from html import escape
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    pass


def picture_uri(rgb: np.ndarray, width: int = 640, quality: int = 82) -> str:
    """A small picture as a data URI."""
    from ..run_view import encode_webp

    return "data:image/webp;base64," + base64.b64encode(encode_webp(rgb, width, quality)).decode()


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def notice(text: str, kind: str = "error") -> str:
    """One sentence in a box: kind is error, warning or note."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {kind}" role="{role}">{escape(_sentence(text))}</div>'


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size, 1) / 1e3:.0f} kB"
