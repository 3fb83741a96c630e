"""Line charts as SVG in the page's own colors: they follow light and dark and need no library in the browser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40
_X_TICKS, _Y_TICKS = 6, 4


@dataclass(frozen=True)
class Series:
    """One line: (x, y) pairs in order of x; pairs that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "main"
    """CSS class: main, faint or second."""
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """Label and range of an axis."""

    label: str
    range: tuple[float, float] | None = None
    """None: as far as the data goes. For x alone; y always begins at 0."""
    percent: bool = False
    """Values are shares, shown as percentages."""


@dataclass(frozen=True)
class Level:
    """A dashed horizontal line with a label."""

    y: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A dot with a label."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class _Scale:
    """Mapping of data to pixels."""

    x0: float
    x1: float
    y0: float
    y1: float

    def to_px(self, x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (x - self.x0) / (self.x1 - self.x0),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - self.y0) / (self.y1 - self.y0),
        )


def line_chart(
    series: Sequence[Series], x_axis: Axis, y_axis: Axis, *, level: Level | None = None, mark: Mark | None = None
) -> str:
    """Return an `<svg>` of lines over common axes, or an empty string when there is nothing to draw."""
    kept = [[(x, y) for x, y in each.points if math.isfinite(x) and math.isfinite(y)] for each in series]
    xs, ys = [x for points in kept for x, _ in points], [y for points in kept for _, y in points]
    if not xs:
        return ""
    if level is not None and math.isfinite(level.y):
        ys.append(level.y)
    x0, x1 = x_axis.range or (min(xs), max(xs))
    y_ticks = _ticks(0.0, max(ys), _Y_TICKS)
    y0, y1 = min(0.0, y_ticks[0]), max(max(ys) * 1.04, y_ticks[-1])
    scale = _Scale(x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_axis.label)}">',
        *_axes(scale, y_ticks, x_axis, y_axis),
    ]
    if level is not None and math.isfinite(level.y):
        parts += _level(scale, level)
    for each, points in zip(series, kept, strict=True):
        parts += _line(scale, each, points)
    if mark is not None and math.isfinite(mark.y):
        parts += _mark(scale, mark)
    return "".join([*parts, "</svg>"])


def _axes(scale: _Scale, y_ticks: Sequence[float], x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    for value in y_ticks:
        _, y = scale.to_px(scale.x0, value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value, y_axis.percent)}</text>'
    for value in _ticks(scale.x0, scale.x1, _X_TICKS):
        if scale.x0 <= value <= scale.x1:
            x, _ = scale.to_px(value, scale.y0)
            text = _number(value, x_axis.percent)
            yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_axis.label)}</text>'


def _level(scale: _Scale, level: Level) -> Iterator[str]:
    _, y = scale.to_px(scale.x0, level.y)
    yield f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text x="{WIDTH - RIGHT}" y="{y - 6:.1f}" text-anchor="end">{escape(level.text)}</text>'


def _line(scale: _Scale, series: Series, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    if not points:
        return
    path = " ".join("{:.1f},{:.1f}".format(*scale.to_px(x, y)) for x, y in points)
    yield f'<polyline class="{series.style}" points="{path}"/>'
    for x, y in points if series.dots else ():
        px, py = scale.to_px(x, y)
        yield f'<circle class="{series.style}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>'


def _mark(scale: _Scale, mark: Mark) -> Iterator[str]:
    x, y = scale.to_px(mark.x, mark.y)
    anchor, offset = ("end", -10) if x > WIDTH * 0.6 else ("start", 10)
    yield f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    position = f'x="{x + offset:.1f}" y="{y - 9:.1f}" text-anchor="{anchor}"'
    yield f'<text class="label" {position}>{escape(mark.text)}</text>'


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` + 1 round values from `low` to about `high`."""
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
