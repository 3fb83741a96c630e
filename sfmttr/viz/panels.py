"""Pictures side by side, with captions and a color bar, (H, W, 3) uint8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfmttr.types import HW
from sfmttr.viz.colormap import ColorRange, color_position, colorize, round_ticks

BACKGROUND = (255, 255, 255)
TEXT = (34, 38, 46)
FAINT_TEXT = (110, 116, 128)
MARGIN = 12
FONT_SIZE = 16


@lru_cache(maxsize=4)
def color_bar(range_: ColorRange, unit: str, height: int) -> np.ndarray:
    """Draw a vertical color bar (`height`, W, 3) with round depths, far at the top as in most pictures."""
    label_height = text_hw(unit)[0] + MARGIN
    top, bottom = MARGIN + label_height, height - MARGIN
    ticks = {_number(value): value for value in round_ticks(range_, max(2, (bottom - top) // 34))}
    width = max([text_hw(text)[1] for text in ticks] + [text_hw(unit)[1] - 26]) + 28 + 2 * MARGIN
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    depths = np.geomspace(range_.far, range_.near, max(bottom - top, 1))
    strip = np.repeat(colorize(depths[:, None], range_), 18, axis=1)
    image.paste(Image.fromarray(strip), (MARGIN, top))
    draw.text((MARGIN, MARGIN), unit, FAINT_TEXT, caption_font())
    for text, value in ticks.items():
        y = bottom - (bottom - top) * float(color_position(np.array(value), range_))
        draw.line((MARGIN + 18, y, MARGIN + 23, y), FAINT_TEXT)
        draw.text((MARGIN + 28, y), text, TEXT, caption_font(), anchor="lm")
    return np.asarray(image)


def _number(value: float) -> str:
    """Format with three significant digits, without exponent or trailing zeros."""
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


@lru_cache
def caption_font(size: int = FONT_SIZE) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def text_hw(text: str) -> tuple[int, int]:
    """Return height and width of one line of text in pixels."""
    left, _, right, _ = caption_font().getbbox(text)
    return FONT_SIZE + 2, math.ceil(right - left)


def _resized(rgb: np.ndarray, width: int) -> np.ndarray:
    """Resize `rgb` to at most `width` wide and at least 1 px high."""
    if rgb.shape[1] <= width:
        return rgb
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


@lru_cache(maxsize=16)
def _caption(text: str, width: int) -> np.ndarray:
    """Draw a line of text, `width` wide, shortened with dots when it is too long."""
    while text_hw(text)[1] > width and len(text) > 3:
        text = text[:-4] + "..."
    image = Image.new("RGB", (width, FONT_SIZE + MARGIN), BACKGROUND)
    ImageDraw.Draw(image).text((0, MARGIN // 2), text, TEXT, caption_font())
    return np.asarray(image)


def stack_vertically(parts: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Stack pictures vertically, left-aligned, on the background color."""
    height = sum(part.shape[0] for part in parts) + gap * (len(parts) - 1)
    result = _blank(height, max(part.shape[1] for part in parts))
    top = 0
    for part in parts:
        result[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0] + gap
    return result


def _stack_horizontally(parts: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Stack pictures horizontally, top-aligned, on the background color."""
    width = sum(part.shape[1] for part in parts) + gap * (len(parts) - 1)
    result = _blank(max(part.shape[0] for part in parts), width)
    left = 0
    for part in parts:
        result[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + gap
    return result


def _add_margin(rgb: np.ndarray) -> np.ndarray:
    """Add a margin on all sides."""
    result = _blank(rgb.shape[0] + 2 * MARGIN, rgb.shape[1] + 2 * MARGIN)
    result[MARGIN:-MARGIN, MARGIN:-MARGIN] = rgb
    return result


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND[0], np.uint8)


def _stacked(hw: HW) -> bool:
    """Return whether panels of this size are stacked vertically."""
    return hw[1] > 1.8 * hw[0]


def panel_hw(hw: HW, count: int, width: int, *, bar: bool) -> HW:
    """Return the size at which `side_by_side` shows `count` panels of size `hw`; such panels are not resized."""
    columns = 1 if _stacked(hw) else count
    most = (width - 2 * MARGIN - (100 if bar else 0)) // columns - MARGIN
    return hw if hw[1] <= most else (max(1, round(hw[0] * most / hw[1])), most)


def side_by_side(
    panels: Sequence[np.ndarray], captions: Sequence[str], bar: tuple[ColorRange, str] | None = None, width: int = 1920
) -> np.ndarray:
    """Arrange `panels` (H, W, 3 each, one size), e.g. picture, before and after, each under its caption.

    Wide panels are stacked vertically, others horizontally. The result is at most about `width` wide; its size depends
    only on the sizes of the panels. `bar`: range and unit of a color bar at the right.
    """
    hw = (panels[0].shape[0], panels[0].shape[1])
    each = panel_hw(hw, len(panels), width, bar=bar is not None)[1]
    cells = []
    for panel, text in zip(panels, captions, strict=True):
        picture = _resized(panel, each)
        cells.append(stack_vertically([_caption(text, picture.shape[1]), picture]))
    result = stack_vertically(cells, MARGIN // 2) if _stacked(hw) else _stack_horizontally(cells, MARGIN)
    if bar:
        result = _stack_horizontally([result, color_bar(*bar, result.shape[0])])
    return _add_margin(result)


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], columns: int, width: int = 1600) -> np.ndarray:
    """Arrange `images` (any sizes) in rows of `columns`, each over its caption."""
    each = (width - 2 * MARGIN - (columns - 1) * MARGIN) // columns
    cells = [
        stack_vertically([_resized(image, each), _caption(text, each)])
        for image, text in zip(images, captions, strict=True)
    ]
    rows = [_stack_horizontally(cells[i : i + columns], MARGIN) for i in range(0, len(cells), columns)]
    return _add_margin(stack_vertically(rows, MARGIN // 2))
