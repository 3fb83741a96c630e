"""Sparse points and errors drawn over pictures, (H, W, 3) uint8.

One `ColorRange` serves a whole clip, so that a colour means one depth in every picture of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from PIL import Image, ImageDraw

from sfmttr.viz.colormap import Color, color_table
from sfmttr.viz.panels import BACKGROUND, FONT_SIZE, MARGIN, TEXT, caption_font, stack_vertically, text_hw


class PointClass(StrEnum):
    """Role of a sparse point in a refinement."""

    STRICT = "strict"
    RELAXED = "relaxed"
    REJECTED = "rejected"
    HELD_OUT = "held_out"


CLASS_COLORS: Mapping[PointClass, Color] = {
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


_SUPERSAMPLING = 3


class _Layer:
    """Antialiased marks over a picture (Pillow draws jagged edges)."""

    def __init__(self, rgb: np.ndarray) -> None:
        self._picture = Image.fromarray(rgb)
        size = (rgb.shape[1] * _SUPERSAMPLING, rgb.shape[0] * _SUPERSAMPLING)
        self._marks = Image.new("RGBA", size, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._marks)

    def mark(self, xy: tuple[float, float], radius: float, colour: Color, shape: str = "dot") -> None:
        """Draw one mark with a dark rim, so that it is visible on any background."""
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
        """Return the picture with its marks."""
        # Averaged with colour times opacity, or the transparent black around a mark would darken its rim.
        marks = self._marks.convert("RGBa").reduce(_SUPERSAMPLING).convert("RGBA")
        return np.asarray(Image.alpha_composite(self._picture.convert("RGBA"), marks).convert("RGB"))


_SHAPES: Mapping[PointClass, str] = {PointClass.REJECTED: "cross", PointClass.HELD_OUT: "ring"}
_SIZES: Mapping[PointClass, float] = {PointClass.REJECTED: 1.2, PointClass.HELD_OUT: 1.4}
"""Crosses and rings cover less than dots of their size."""


def _radius(rgb: np.ndarray) -> float:
    """Radius of a mark in pixels: visible, without hiding dense points."""
    return float(np.clip(max(rgb.shape[:2]) / 420, 1.6, 4.0))


def overlay_points(rgb: np.ndarray, xy_px: np.ndarray, classes: Sequence[PointClass]) -> np.ndarray:
    """Draw points (M, 2) by class over the picture (H, W, 3), with a legend that counts them below."""
    layer = _Layer(_desaturated(rgb))
    classes = [PointClass(name) for name in classes]
    order = (PointClass.STRICT, PointClass.RELAXED, PointClass.REJECTED, PointClass.HELD_OUT)
    for kind in order:
        for (x, y), own in zip(xy_px, classes, strict=True):
            if own is kind:
                layer.mark((x, y), _radius(rgb) * _SIZES.get(kind, 1.0), CLASS_COLORS[kind], _SHAPES.get(kind, "dot"))
    counts = {kind: classes.count(kind) for kind in order}
    return stack_vertically([layer.flattened(), _legend(counts, rgb.shape[1])])


def _desaturated(rgb: np.ndarray) -> np.ndarray:
    """Return a paler, less saturated picture, on which marks stand out."""
    grey = rgb.mean(axis=2, keepdims=True)
    return np.rint(0.72 * (0.45 * rgb + 0.55 * grey) + 30).astype(np.uint8)


def _legend(counts: Mapping[PointClass, int], width: int) -> np.ndarray:
    """Draw mark, name and count of each class, in as many lines as `width` needs."""
    entries = [(kind, f"{CLASS_LABELS[kind]}  {count}") for kind, count in counts.items()]
    places, x, line = [], MARGIN, 0
    for kind, text in entries:
        needed = 18 + text_hw(text)[1]
        if x > MARGIN and x + needed > width:
            x, line = MARGIN, line + 1
        places.append((kind, text, x, line))
        x += needed + 2 * MARGIN
    pitch = FONT_SIZE + MARGIN
    layer = _Layer(np.full((pitch * (line + 1) + MARGIN // 2, width, 3), BACKGROUND, np.uint8))
    for kind, _, x, line in places:
        layer.mark((x + 5, pitch * line + pitch / 2 + 3), 4.5, CLASS_COLORS[kind], _SHAPES.get(kind, "dot"))
    image = Image.fromarray(layer.flattened())
    for _, text, x, line in places:
        ImageDraw.Draw(image).text((x + 18, pitch * line + pitch / 2 + 3), text, TEXT, caption_font(), anchor="lm")
    return np.asarray(image)


MAX_ERROR = 0.25
"""Relative error at the red end of `error_overlay`."""


def error_table() -> np.ndarray:
    """Return (256, 3) uint8: colors of relative errors from 0 (blue) to `MAX_ERROR` and more (red)."""
    return color_table("RdYlBu_r")


def error_overlay(rgb: np.ndarray, xy_px: np.ndarray, relative_error: np.ndarray) -> np.ndarray:
    """Draw points (M, 2) over the picture, colored by relative error (M,): blue is small, red is `MAX_ERROR` and more.

    The scale is fixed, so that pictures of before and after can be compared; the line underneath gives the median.
    """
    layer = _Layer(_desaturated(rgb))
    known = np.isfinite(relative_error)
    xy_px, error = xy_px[known], np.abs(relative_error[known])
    colours = error_table()[np.rint(np.clip(error / MAX_ERROR, 0, 1) * 255).astype(int)]
    for i in np.argsort(error):  # the worst on top
        red, green, blue = (int(value) for value in colours[i])
        layer.mark((float(xy_px[i, 0]), float(xy_px[i, 1])), _radius(rgb) * 1.15, (red, green, blue))
    return stack_vertically([layer.flattened(), _error_legend(error, rgb.shape[1])])


def _error_legend(error: np.ndarray, width: int) -> np.ndarray:
    """Draw the colors of `error_overlay` with their ends and the median; in two lines when `width` is small."""
    text = f"relative error, median {np.median(error):.1%} of {len(error)} points" if len(error) else "no points"
    line, ramp_x, text_x = FONT_SIZE + MARGIN, MARGIN + 32, MARGIN + 230
    two_lines = text_x + text_hw(text)[1] > width
    image = Image.new("RGB", (width, line * (1 + two_lines) + MARGIN // 2), BACKGROUND)
    draw = ImageDraw.Draw(image)
    middle = line // 2 + 3
    ramp = np.repeat(error_table()[None, ::2], 12, axis=0)
    image.paste(Image.fromarray(ramp), (ramp_x, middle - 6))
    draw.text((MARGIN, middle), "0%", TEXT, caption_font(), anchor="lm")
    draw.text((ramp_x + ramp.shape[1] + 8, middle), f"{MAX_ERROR:.0%}+", TEXT, caption_font(), anchor="lm")
    place = (MARGIN, middle + line) if two_lines else (text_x, middle)
    draw.text(place, text, TEXT, caption_font(), anchor="lm")
    return np.asarray(image)
