"""Pictures of depth: arrays in, (H, W, 3) uint8 out. No files, no page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfmttr.types import HW
from sfmttr.viz.colormap import ColorRange, color_position, colorize, round_depths

PAPER = (255, 255, 255)
INK = (34, 38, 46)
FAINT_INK = (110, 116, 128)
MARGIN = 12
FONT_SIZE = 16


@lru_cache(maxsize=4)
def color_bar(range_: ColorRange, unit: str, height: int) -> np.ndarray:
    """A vertical bar (`height`, W, 3) with round depths beside it, far at the top as in most pictures."""
    label_height = text_hw(unit)[0] + MARGIN
    top, bottom = MARGIN + label_height, height - MARGIN
    ticks = {_number(value): value for value in round_depths(range_, max(2, (bottom - top) // 34))}
    width = max([text_hw(text)[1] for text in ticks] + [text_hw(unit)[1] - 26]) + 28 + 2 * MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    depths = np.geomspace(range_.far, range_.near, max(bottom - top, 1))
    strip = np.repeat(colorize(depths[:, None], range_), 18, axis=1)
    image.paste(Image.fromarray(strip), (MARGIN, top))
    draw.text((MARGIN, MARGIN), unit, FAINT_INK, caption_font())
    for text, value in ticks.items():
        y = bottom - (bottom - top) * float(color_position(np.array(value), range_))
        draw.line((MARGIN + 18, y, MARGIN + 23, y), FAINT_INK)
        draw.text((MARGIN + 28, y), text, INK, caption_font(), anchor="lm")
    return np.asarray(image)


def _number(value: float) -> str:
    """Three significant digits, no exponent, no trailing zeros."""
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


@lru_cache
def caption_font(size: int = FONT_SIZE) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_hw(text: str) -> tuple[int, int]:
    """Height and width of one line."""
    left, _, right, _ = caption_font().getbbox(text)
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
    while text_hw(text)[1] > width and len(text) > 3:
        text = text[:-4] + "..."
    image = Image.new("RGB", (width, FONT_SIZE + MARGIN), PAPER)
    ImageDraw.Draw(image).text((0, MARGIN // 2), text, INK, caption_font())
    return np.asarray(image)


def below(parts: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
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
    """Return whether panels of this size are stacked vertically."""
    return hw[1] > 1.8 * hw[0]


def panel_hw(hw: HW, count: int, width: int, *, bar: bool) -> HW:
    """The size that `side_by_side` shows `count` panels of size `hw` at: what is made at that size is not resized."""
    columns = 1 if _stacked(hw) else count
    most = (width - 2 * MARGIN - (100 if bar else 0)) // columns - MARGIN
    return hw if hw[1] <= most else (max(1, round(hw[0] * most / hw[1])), most)


def side_by_side(
    panels: Sequence[np.ndarray], captions: Sequence[str], bar: tuple[ColorRange, str] | None = None, width: int = 1920
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
        cells.append(below([_caption(text, picture.shape[1]), picture]))
    result = below(cells, MARGIN // 2) if _stacked(hw) else _beside(cells, MARGIN)
    if bar:
        result = _beside([result, color_bar(*bar, result.shape[0])])
    return _framed(result)


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, width: int = 1600) -> np.ndarray:
    """`images` (any sizes) in rows of `columns`, each over its caption."""
    each = (width - 2 * MARGIN - (columns - 1) * MARGIN) // columns
    cells = [below([_resized(image, each), _caption(text, each)]) for image, text in zip(images, captions, strict=True)]
    rows = [_beside(cells[i : i + columns], MARGIN) for i in range(0, len(cells), columns)]
    return _framed(below(rows, MARGIN // 2))
