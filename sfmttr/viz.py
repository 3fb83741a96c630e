"""Pictures of depth: arrays in, (H, W, 3) uint8 out. No files, no page.

One `ColourRange` serves a whole clip, so that a colour means one depth in every picture of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from sfmttr.types import HW

PAPER = (255, 255, 255)
INK = (34, 38, 46)
FAINT_INK = (110, 116, 128)
NO_DEPTH = (38, 40, 46)
"""Colour of pixels without depth; the colour map does not contain it."""
_NO_DEPTH_INDEX = 255
"""Its row in `palette`, after those of the colour map."""
MARGIN = 12
FONT_SIZE = 16

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ColourRange:
    """Depths that the colour map's two ends stand for."""

    near: float
    far: float

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far < math.inf:
            raise ValueError(f"{self.near=} {self.far=}, expected 0 < near < far")


class PointClass(StrEnum):
    """What became of a sparse point."""

    STRICT = "strict"
    RELAXED = "relaxed"
    REJECTED = "rejected"
    HELD_OUT = "held_out"


CLASS_COLOURS: Mapping[PointClass, Colour] = {
    # Told apart by people with any colour vision; crosses and rings help too.
    PointClass.STRICT: (0, 190, 120),
    PointClass.RELAXED: (255, 196, 0),
    PointClass.REJECTED: (235, 40, 90),
    PointClass.HELD_OUT: (70, 165, 255),
}
CLASS_LABELS: Mapping[PointClass, str] = {
    PointClass.STRICT: "strict inlier",
    PointClass.RELAXED: "relaxed inlier",
    PointClass.REJECTED: "rejected",
    PointClass.HELD_OUT: "held out",
}


# ------------------------------------------------------------------------------------------- depth


def colour_range(depths: Iterable[np.ndarray], low: float = 1.0, high: float = 98.0) -> ColourRange:
    """One range for all `depths` (H, W each; 0 or NaN for none) of a clip, between two percentiles of all pixels.

    Without any depth the range is 1 to 2.
    """
    # A few thousand pixels a frame place a percentile as well as all of them.
    samples = [depth.ravel()[:: max(1, depth.size // 4096)] for depth in depths]
    values = np.concatenate([np.zeros(0), *samples])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return ColourRange(1.0, 2.0)
    near, far = (float(value) for value in np.percentile(values, (low, high)))
    return ColourRange(near, max(far, near * 1.05))


def colour_position(depth: np.ndarray, range_: ColourRange) -> np.ndarray:
    """Where depth lies between near (0) and far (1), clipped.

    In log depth: equal steps of colour are equal relative errors, which is what depth is judged by. (Inverse depth
    spends half of the colours on what is nearer than twice the nearest; depth itself spends them on the far end.)
    """
    safe = np.clip(np.nan_to_num(depth, nan=range_.near), range_.near, range_.far)
    return np.log(safe / range_.near) / math.log(range_.far / range_.near)


def colourise(depth: np.ndarray, range_: ColourRange) -> np.ndarray:
    """Depth (H, W) in colours: near is warm, far is cold; `NO_DEPTH` where it is 0, NaN or infinite."""
    return palette()[colour_index(depth, range_)]


def colour_index(depth: np.ndarray, range_: ColourRange) -> np.ndarray:
    """(H, W) uint8: the row of `palette` for each depth; the last one where it is 0, NaN or infinite."""
    index = np.rint(colour_position(depth, range_) * (_NO_DEPTH_INDEX - 1)).astype(np.uint8)
    index[~(np.isfinite(depth) & (depth > 0))] = _NO_DEPTH_INDEX
    return index


@lru_cache
def palette() -> np.ndarray:
    """(256, 3) uint8: near to far, then `NO_DEPTH`."""
    return np.concatenate([_colour_table("Spectral", _NO_DEPTH_INDEX), np.array([NO_DEPTH], np.uint8)])


@lru_cache
def _colour_table(name: str, count: int = 256) -> np.ndarray:
    """(`count`, 3) uint8, from one end of the colour map to the other."""
    return matplotlib.colormaps[name](np.linspace(0, 1, count), bytes=True)[:, :3]


@lru_cache(maxsize=4)
def colour_bar(range_: ColourRange, unit: str, height: int) -> np.ndarray:
    """A vertical bar (`height`, W, 3) with round depths beside it, far at the top as in most pictures."""
    label_height = _text_hw(unit)[0] + MARGIN
    top, bottom = MARGIN + label_height, height - MARGIN
    ticks = {_number(value): value for value in _round_depths(range_, max(2, (bottom - top) // 34))}
    width = max([_text_hw(text)[1] for text in ticks] + [_text_hw(unit)[1] - 26]) + 28 + 2 * MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    depths = np.geomspace(range_.far, range_.near, max(bottom - top, 1))
    strip = np.repeat(colourise(depths[:, None], range_), 18, axis=1)
    image.paste(Image.fromarray(strip), (MARGIN, top))
    draw.text((MARGIN, MARGIN), unit, FAINT_INK, _font())
    for text, value in ticks.items():
        y = bottom - (bottom - top) * float(colour_position(np.array(value), range_))
        draw.line((MARGIN + 18, y, MARGIN + 23, y), FAINT_INK)
        draw.text((MARGIN + 28, y), text, INK, _font(), anchor="lm")
    return np.asarray(image)


def _round_depths(range_: ColourRange, most: int) -> list[float]:
    """At most `most` round depths within the range: 1, 2, 5 times powers of ten, or evenly spaced in a narrow range."""
    decades = range(math.floor(math.log10(range_.near)), math.ceil(math.log10(range_.far)) + 1)
    for factors in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5), (1, 2, 3, 5), (1, 2, 5), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if range_.near <= tick <= range_.far]
        if 2 <= len(ticks) <= most:
            return ticks
    return [range_.near, range_.far]


def _number(value: float) -> str:
    """Three significant digits, no exponent, no trailing zeros."""
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


# ------------------------------------------------------------------------------------------ layout


@lru_cache
def _font(size: int = FONT_SIZE) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_hw(text: str) -> tuple[int, int]:
    """Height and width of one line."""
    left, _, right, _ = _font().getbbox(text)
    return FONT_SIZE + 2, math.ceil(right - left)


def _resized(rgb: np.ndarray, width: int) -> np.ndarray:
    """`rgb` at most `width` wide, at least 1 px high."""
    if rgb.shape[1] <= width:
        return rgb
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


@lru_cache(maxsize=16)
def _caption(text: str, width: int) -> np.ndarray:
    """A line of text, `width` wide, cut with dots when it is too long."""
    while _text_hw(text)[1] > width and len(text) > 3:
        text = text[:-4] + "..."
    image = Image.new("RGB", (width, FONT_SIZE + MARGIN), PAPER)
    ImageDraw.Draw(image).text((0, MARGIN // 2), text, INK, _font())
    return np.asarray(image)


def _below(parts: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """One under the other, on paper."""
    height = sum(part.shape[0] for part in parts) + gap * (len(parts) - 1)
    result = _paper(height, max(part.shape[1] for part in parts))
    top = 0
    for part in parts:
        result[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0] + gap
    return result


def _beside(parts: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """One right of the other, on paper."""
    width = sum(part.shape[1] for part in parts) + gap * (len(parts) - 1)
    result = _paper(max(part.shape[0] for part in parts), width)
    left = 0
    for part in parts:
        result[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + gap
    return result


def _framed(rgb: np.ndarray) -> np.ndarray:
    """With a margin all around."""
    result = _paper(rgb.shape[0] + 2 * MARGIN, rgb.shape[1] + 2 * MARGIN)
    result[MARGIN:-MARGIN, MARGIN:-MARGIN] = rgb
    return result


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER[0], np.uint8)


def _stacked(hw: HW) -> bool:
    """Whether panels of this size stand under each other."""
    return hw[1] > 1.8 * hw[0]


def panel_hw(hw: HW, count: int, width: int, *, bar: bool) -> HW:
    """The size that `side_by_side` shows `count` panels of size `hw` at: what is made at that size is not resized."""
    columns = 1 if _stacked(hw) else count
    most = (width - 2 * MARGIN - (100 if bar else 0)) // columns - MARGIN
    return hw if hw[1] <= most else (max(1, round(hw[0] * most / hw[1])), most)


def side_by_side(
    panels: Sequence[np.ndarray], captions: Sequence[str], bar: tuple[ColourRange, str] | None = None, width: int = 1920
) -> np.ndarray:
    """`panels` (H, W, 3 each, one size), e.g. picture, before and after, each under its caption.

    Wide panels stand under each other, others beside each other; the whole is about `width` wide at most, and of the
    same size for the same sizes of panels, whatever they show. `bar`: range and unit of a colour bar at the right.
    """
    hw = (panels[0].shape[0], panels[0].shape[1])
    each = panel_hw(hw, len(panels), width, bar=bar is not None)[1]
    cells = []
    for panel, text in zip(panels, captions, strict=True):
        picture = _resized(panel, each)
        cells.append(_below([_caption(text, picture.shape[1]), picture]))
    result = _below(cells, MARGIN // 2) if _stacked(hw) else _beside(cells, MARGIN)
    if bar:
        result = _beside([result, colour_bar(*bar, result.shape[0])])
    return _framed(result)


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, width: int = 1600) -> np.ndarray:
    """`images` (any sizes) in rows of `columns`, each over its caption."""
    each = (width - 2 * MARGIN - (columns - 1) * MARGIN) // columns
    cells = [
        _below([_resized(image, each), _caption(text, each)]) for image, text in zip(images, captions, strict=True)
    ]
    rows = [_beside(cells[i : i + columns], MARGIN) for i in range(0, len(cells), columns)]
    return _framed(_below(rows, MARGIN // 2))


# ------------------------------------------------------------------------------------------ points

_SUPERSAMPLING = 3


class _Layer:
    """Marks drawn over a picture, smooth: Pillow's own drawing has jagged edges."""

    def __init__(self, rgb: np.ndarray) -> None:
        self._picture = Image.fromarray(rgb)
        size = (rgb.shape[1] * _SUPERSAMPLING, rgb.shape[0] * _SUPERSAMPLING)
        self._marks = Image.new("RGBA", size, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._marks)

    def mark(self, xy: tuple[float, float], radius: float, colour: Colour, shape: str = "dot") -> None:
        """One mark with a dark rim, so that it shows on any ground."""
        x, y, r = (value * _SUPERSAMPLING for value in (*xy, radius))
        box, rim = (x - r, y - r, x + r, y + r), (x - r - 2, y - r - 2, x + r + 2, y + r + 2)
        if shape == "dot":
            self._draw.ellipse(rim, (20, 20, 24, 150))
            self._draw.ellipse(box, (*colour, 255))
        elif shape == "ring":
            self._draw.ellipse(rim, outline=(20, 20, 24, 150), width=_SUPERSAMPLING + 5)
            self._draw.ellipse(box, outline=(*colour, 255), width=_SUPERSAMPLING + 1)
        else:
            for width, ink in ((_SUPERSAMPLING + 5, (20, 20, 24, 150)), (_SUPERSAMPLING + 1, (*colour, 255))):
                self._draw.line(box, ink, width)
                self._draw.line((box[0], box[3], box[2], box[1]), ink, width)

    def flattened(self) -> np.ndarray:
        """The picture with its marks."""
        # Averaged with colour times opacity, or the transparent black around a mark would darken its rim.
        marks = self._marks.convert("RGBa").reduce(_SUPERSAMPLING).convert("RGBA")
        return np.asarray(Image.alpha_composite(self._picture.convert("RGBA"), marks).convert("RGB"))


_SHAPES: Mapping[PointClass, str] = {PointClass.REJECTED: "cross", PointClass.HELD_OUT: "ring"}
_SIZES: Mapping[PointClass, float] = {PointClass.REJECTED: 1.2, PointClass.HELD_OUT: 1.4}
"""Crosses and rings cover less than dots of their size."""


def _radius(rgb: np.ndarray) -> float:
    """Of a mark, px: visible, without hiding a crowd."""
    return float(np.clip(max(rgb.shape[:2]) / 420, 1.6, 4.0))


def overlay_points(rgb: np.ndarray, xy_px: np.ndarray, classes: Sequence[PointClass]) -> np.ndarray:
    """Points (M, 2) over the picture (H, W, 3), by class, with a legend that counts them underneath."""
    layer = _Layer(_muted(rgb))
    classes = [PointClass(name) for name in classes]
    order = (PointClass.STRICT, PointClass.RELAXED, PointClass.REJECTED, PointClass.HELD_OUT)
    for kind in order:
        for (x, y), own in zip(xy_px, classes, strict=True):
            if own is kind:
                layer.mark((x, y), _radius(rgb) * _SIZES.get(kind, 1.0), CLASS_COLOURS[kind], _SHAPES.get(kind, "dot"))
    counts = {kind: classes.count(kind) for kind in order}
    return _below([layer.flattened(), _legend(counts, rgb.shape[1])])


def _muted(rgb: np.ndarray) -> np.ndarray:
    """Paler and greyer, so that marks stand out."""
    grey = rgb.mean(axis=2, keepdims=True)
    return np.rint(0.72 * (0.45 * rgb + 0.55 * grey) + 30).astype(np.uint8)


def _legend(counts: Mapping[PointClass, int], width: int) -> np.ndarray:
    """Mark, name and count of each class, in as many lines as `width` needs."""
    entries = [(kind, f"{CLASS_LABELS[kind]}  {count}") for kind, count in counts.items()]
    places, x, line = [], MARGIN, 0
    for kind, text in entries:
        needed = 18 + _text_hw(text)[1]
        if x > MARGIN and x + needed > width:
            x, line = MARGIN, line + 1
        places.append((kind, text, x, line))
        x += needed + 2 * MARGIN
    pitch = FONT_SIZE + MARGIN
    layer = _Layer(np.full((pitch * (line + 1) + MARGIN // 2, width, 3), PAPER, np.uint8))
    for kind, _, x, line in places:
        layer.mark((x + 5, pitch * line + pitch / 2 + 3), 4.5, CLASS_COLOURS[kind], _SHAPES.get(kind, "dot"))
    image = Image.fromarray(layer.flattened())
    for _, text, x, line in places:
        ImageDraw.Draw(image).text((x + 18, pitch * line + pitch / 2 + 3), text, INK, _font(), anchor="lm")
    return np.asarray(image)


MAX_ERROR = 0.25
"""Relative error at the end of `error_overlay`'s colours."""


def error_table() -> np.ndarray:
    """(256, 3) uint8: colours of relative errors from 0 (blue) to `MAX_ERROR` and more (red)."""
    return _colour_table("RdYlBu_r")


def error_overlay(rgb: np.ndarray, xy_px: np.ndarray, relative_error: np.ndarray) -> np.ndarray:
    """Points (M, 2) over the picture, coloured by relative error (M,): blue is small, red is `MAX_ERROR` and more.

    The scale is fixed, so that pictures of before and after can be compared; the line underneath gives the median.
    """
    layer = _Layer(_muted(rgb))
    known = np.isfinite(relative_error)
    xy_px, error = xy_px[known], np.abs(relative_error[known])
    colours = error_table()[np.rint(np.clip(error / MAX_ERROR, 0, 1) * 255).astype(int)]
    for i in np.argsort(error):  # the worst on top
        red, green, blue = (int(value) for value in colours[i])
        layer.mark((float(xy_px[i, 0]), float(xy_px[i, 1])), _radius(rgb) * 1.15, (red, green, blue))
    return _below([layer.flattened(), _error_legend(error, rgb.shape[1])])


def _error_legend(error: np.ndarray, width: int) -> np.ndarray:
    """The colours of `error_overlay` with their ends named, and the median; in two lines when `width` is small."""
    text = f"relative error, median {np.median(error):.1%} of {len(error)} points" if len(error) else "no points"
    line, ramp_x, text_x = FONT_SIZE + MARGIN, MARGIN + 32, MARGIN + 230
    two_lines = text_x + _text_hw(text)[1] > width
    image = Image.new("RGB", (width, line * (1 + two_lines) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(image)
    middle = line // 2 + 3
    ramp = np.repeat(error_table()[None, ::2], 12, axis=0)
    image.paste(Image.fromarray(ramp), (ramp_x, middle - 6))
    draw.text((MARGIN, middle), "0%", INK, _font(), anchor="lm")
    draw.text((ramp_x + ramp.shape[1] + 8, middle), f"{MAX_ERROR:.0%}+", INK, _font(), anchor="lm")
    place = (MARGIN, middle + line) if two_lines else (text_x, middle)
    draw.text(place, text, INK, _font(), anchor="lm")
    return np.asarray(image)


# ------------------------------------------------------------------------------------------- plots


def plot_curves(losses: np.ndarray, validation: Sequence[tuple[int, float]], label: str = "AbsRel") -> np.ndarray:
    """Training loss by step (S,) above validation error (step, value), the best step marked. 960 x 640."""
    figure = Figure(figsize=(9.6, 6.4), dpi=100, facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _plot_losses(upper, np.asarray(losses, np.float64))
    _plot_validation(lower, validation, label)
    for axes in (upper, lower):
        axes.grid(color="#e4e6eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11, colors="#3a3f4a")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=11)
    lower.set_xlabel("step", fontsize=12)
    return _drawn(figure)


def _plot_losses(axes: Axes, losses: np.ndarray) -> None:
    """The loss of every step, faint, and its running median over a twentieth of them."""
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#9db8e8", linewidth=0.9)
    if len(losses) >= 20:
        half = max(2, len(losses) // 40)
        # One frame a step: losses jump with the frame, and the trend hides behind that.
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(losses, half, mode="edge"), 2 * half + 1)
        axes.plot(steps, np.nanmedian(windows, axis=1), color="#1f4fb5", linewidth=2, label="running median")
    axes.set_ylabel("training loss", fontsize=12)
    positive = losses[np.isfinite(losses) & (losses > 0)]
    if len(positive) and positive.max() > 30 * positive.min():
        axes.set_yscale("log")


def _plot_validation(axes: Axes, validation: Sequence[tuple[int, float]], label: str) -> None:
    """Error at the validation points, the unrefined network's as a line, the best step as a dot."""
    axes.set_ylabel(f"{label}, validation points", fontsize=12)
    known = [(step, value) for step, value in validation if math.isfinite(value)]
    if not known:
        return
    steps, values = zip(*known, strict=True)
    axes.plot(steps, values, color="#c2541b", linewidth=2, marker=".", markersize=5)
    if steps[0] == 0:
        axes.axhline(values[0], color="#7a808c", linewidth=1, linestyle="--", label=f"unrefined {values[0]:.4f}")
    best = int(np.argmin(values))
    label = f"best {values[best]:.4f} at step {steps[best]}"
    axes.plot(steps[best], values[best], "o", color="#0a8f5b", markersize=9, label=label)
    axes.set_ylim(bottom=0)


def _drawn(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8. Through the canvas itself: pyplot keeps global state, and pages draw in threads."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
