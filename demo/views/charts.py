"""Line charts as SVG, in the page's own colours: they follow light and dark and need no library in the browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40


@dataclass(frozen=True)
class Series:
    """One line: (x, y) pairs in order of x; what is not finite is left out."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "main"
    """CSS class: main, faint or second."""
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A dot with a word."""

    x: float
    y: float
    text: str


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    from_zero: bool = True,
    level: tuple[float, str] | None = None,
    mark: Mark | None = None,
    percent: bool = False,
) -> str:
    """An `<svg>` of lines over common axes, or an empty string when there is nothing to draw.

    `level`: a dashed line across with a word. `percent`: y values are shares.
    """
    kept = [[(x, y) for x, y in each.points if math.isfinite(x) and math.isfinite(y)] for each in series]
    xs, ys = [x for points in kept for x, _ in points], [y for points in kept for _, y in points]
    if not xs:
        return ""
    if level is not None and math.isfinite(level[0]):
        ys.append(level[0])
    x0, x1 = x_range or (min(xs), max(xs))
    y0, y1 = (0.0 if from_zero else min(ys)), max(ys)
    y_ticks = _ticks(y0, y1, 4)
    y0, y1 = min(y0, y_ticks[0]), max(y1 * 1.04, y_ticks[-1])
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (x - x0) / (x1 - x0),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y0) / (y1 - y0),
        )

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)}">']
    for value in y_ticks:
        _, y = place(x0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value, percent)}</text>')
    for value in _ticks(x0, x1, 6):
        if x0 <= value <= x1:
            x, _ = place(value, y0)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_number(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    if level is not None and math.isfinite(level[0]):
        _, y = place(x0, level[0])
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{y - 6:.1f}" text-anchor="end">{escape(level[1])}</text>')
    for each, points in zip(series, kept, strict=True):
        if points:
            path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
            parts.append(f'<polyline class="{each.style}" points="{path}"/>')
            if each.dots:
                for x, y in points:
                    px, py = place(x, y)
                    parts.append(f'<circle class="{each.style}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>')
    if mark is not None and math.isfinite(mark.y):
        x, y = place(mark.x, mark.y)
        anchor = "end" if x > WIDTH * 0.6 else "start"
        offset = -10 if anchor == "end" else 10
        parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
        place_of_text = f'x="{x + offset:.1f}" y="{y - 9:.1f}" text-anchor="{anchor}"'
        parts.append(f'<text class="label" {place_of_text}>{escape(mark.text)}</text>')
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round values from `low` to about `high`."""
    span = max(high - low, 1e-9)
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 0.15)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _number(value: float, percent: bool = False) -> str:
    if percent:
        return f"{100 * value:.3g} %"
    return f"{value:.3g}" if abs(value) < 10000 else f"{value:.0f}"
