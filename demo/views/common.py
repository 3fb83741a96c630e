"""HTML that several tabs share: notices, pictures and numbers."""

from __future__ import annotations

import base64
import math
from html import escape
from typing import Any, TypeGuard

import numpy as np


def picture_uri(rgb: np.ndarray, width: int = 640, quality: int = 82) -> str:
    """Return a picture (h, w, 3) uint8, at most `width` wide, as a data URI."""
    from ..run_view import encode_webp

    return "data:image/webp;base64," + base64.b64encode(encode_webp(rgb, width, quality)).decode()


def _capitalized(text: str) -> str:
    """Begin with a capital letter, unless the first word is a name."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


def notice(text: str, kind: str = "error") -> str:
    """Return one sentence in a box; `kind` is error, warning or note."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {kind}" role="{role}">{escape(_capitalized(text))}</div>'


def percent(value: float | None) -> str:
    """Format a share; a dash for what is not known."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def is_finite(value: Any) -> TypeGuard[float]:
    """Return whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size, 1) / 1e3:.0f} kB"
