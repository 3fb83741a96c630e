"""Textures with a picture on them, stretched over a face once: posters, books, doors, windows, screens, signs."""

from __future__ import annotations

import string
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.scenes.noise import NoisePool, blend

Colour = tuple[int, int, int]


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(6, size))


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    colour = rng.integers(low, high, 3)
    # Print is seldom as garish as independent channels would be.
    r, g, b = (int(c) for c in colour.mean() + (colour - colour.mean()) * rng.uniform(0.1, 0.9))
    return r, g, b


def _word(rng: np.random.Generator, longest: int = 9) -> str:
    letters = list(string.ascii_letters if rng.random() < 0.6 else string.ascii_uppercase + string.digits)
    return "".join(rng.choice(letters, rng.integers(3, longest + 1)))


def _lines(rng: np.random.Generator, draw: ImageDraw.ImageDraw, box: tuple[float, ...], size: int, ink: Colour) -> None:
    """Lines of words within `box` (left, top, right, bottom)."""
    y = box[1]
    while y + size < box[3]:
        x = box[0]
        while x < box[2] - 2 * size:
            word = _word(rng)
            draw.text((x, y), word, ink, _font(size))
            x += size * (0.55 * len(word) + 0.5)
        y += size * 1.35


def _shapes(rng: np.random.Generator, draw: ImageDraw.ImageDraw, box: tuple[float, ...], count: int) -> None:
    left, top, right, bottom = box
    for _ in range(count):
        x, y = rng.uniform(left, right), rng.uniform(top, bottom)
        w, h = rng.uniform(0.05, 0.5) * (right - left), rng.uniform(0.05, 0.5) * (bottom - top)
        area = (max(left, x - w / 2), max(top, y - h / 2), min(right, x + w / 2), min(bottom, y + h / 2))
        kind, colour = rng.integers(4), _colour(rng)
        if kind == 0:
            draw.rectangle(area, fill=colour)
        elif kind == 1:
            draw.ellipse(area, fill=colour, outline=_colour(rng))
        elif kind == 2:
            draw.polygon([(rng.uniform(area[0], area[2]), rng.uniform(area[1], area[3])) for _ in range(4)], colour)
        else:
            draw.line((area[0], area[1], area[2], area[3]), colour, int(rng.integers(2, 9)))


def _finish(image: Image.Image, pool: NoisePool, rng: np.random.Generator, wear: float = 0.12) -> np.ndarray:
    pixels = np.asarray(image, np.float32) / 255
    return (
        pixels
        * (1 - wear / 2 + wear * (pool.draw(rng, 1.6) - 0.5) + wear * 0.5 * (pool.draw(rng, 0.3) - 0.5))[..., None]
    )


def poster(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s), _colour(rng, 90))
    draw = ImageDraw.Draw(image)
    margin = s * rng.uniform(0.03, 0.12)
    area = (margin, margin * rng.uniform(1, 3), s - margin, s * rng.uniform(0.5, 0.95))
    _shapes(rng, draw, area, int(rng.integers(5, 40)))
    if rng.random() < 0.4:  # a picture like a photograph
        a, b, c = (np.array(_colour(rng)) / 255 for _ in range(3))
        photo = blend(blend(a, b, pool.draw(rng, 2.2) * 2 - 0.5), c, pool.draw(rng, 1.6) * 2 - 0.9)
        half = Image.fromarray((255 * np.clip(photo, 0, 1)).astype(np.uint8))
        image.paste(half.crop((0, 0, int(area[2] - area[0]), int(0.5 * s))), (int(area[0]), int(area[1])))
    draw.text(
        (margin, s * rng.uniform(0.02, 0.8)),
        _word(rng, 7),
        _colour(rng, 0, 120),
        _font(int(s * rng.uniform(0.1, 0.22))),
    )
    _lines(
        rng, draw, (margin, area[3], s - margin, s - margin), int(s * rng.uniform(0.025, 0.05)), _colour(rng, 0, 100)
    )
    return _finish(image, pool, rng)


def paper(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    white = int(rng.integers(215, 250))
    image = Image.new("RGB", (s, s), (white, white, int(white * rng.uniform(0.9, 1))))
    draw = ImageDraw.Draw(image)
    draw.text((s * 0.1, s * 0.06), _word(rng), (20, 20, 20), _font(s // 12))
    columns = int(rng.integers(1, 3))
    for i in range(columns):
        left = s * (0.08 + 0.86 * i / columns)
        _lines(rng, draw, (left, s * 0.2, left + s * 0.8 / columns, s * 0.94), s // 34, (50, 50, 55))
    if rng.random() < 0.6:
        _shapes(rng, draw, (s * 0.1, s * rng.uniform(0.2, 0.5), s * 0.6, s * 0.75), 6)
    return _finish(image, pool, rng, 0.06)


def books(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Spine of a book, to be stood upright: u is its thickness."""
    s = pool.size
    image = Image.new("RGB", (s, s), _colour(rng, 20))
    draw = ImageDraw.Draw(image)
    for y in np.sort(rng.uniform(0, s, rng.integers(1, 5))):
        draw.rectangle((0, y, s, y + s * rng.uniform(0.01, 0.06)), fill=_colour(rng))
    text = Image.new("L", (s, s // 2), 0)
    ImageDraw.Draw(text).text((s * 0.08, s * 0.05), _word(rng, 8), 255, _font(s // 4))
    image.paste(Image.new("RGB", (s // 2, s), _colour(rng, 160)), (s // 4, 0), text.rotate(-90, expand=True))
    return _finish(image, pool, rng)


def screen(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s), _colour(rng, 20, 200))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y = rng.uniform(0, 0.6, 2) * s
        box = (x, y, x + s * rng.uniform(0.25, 0.4), y + s * rng.uniform(0.25, 0.4))
        draw.rectangle(box, fill=(235, 238, 240))
        draw.rectangle((box[0], box[1], box[2], box[1] + s * 0.03), fill=_colour(rng, 40, 160))
        _lines(rng, draw, (box[0] + 4, box[1] + s * 0.05, box[2], box[3]), s // 40, _colour(rng, 0, 130))
    _shapes(rng, draw, (0, s * 0.7, s, s), 5)
    return _finish(image, pool, rng, 0.02)


def keyboard(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    dark = rng.random() < 0.6
    image = Image.new("RGB", (s, s), (30, 30, 32) if dark else (170, 168, 160))
    draw = ImageDraw.Draw(image)
    for row in range(6):
        for column in range(17):
            x, y = s * (0.03 + column * 0.0555), s * (0.06 + row * 0.15)
            draw.rectangle((x, y, x + s * 0.046, y + s * 0.12), fill=(58, 58, 62) if dark else (225, 223, 216))
            draw.text(
                (x + s * 0.012, y + s * 0.01), _word(rng)[0], (200, 200, 200) if dark else (60, 60, 60), _font(s // 26)
            )
    return _finish(image, pool, rng)


def door(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s), (215, 215, 215))
    draw = ImageDraw.Draw(image)
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    glass = rng.random() < 0.4
    for r in range(rows):
        for c in range(columns):
            x0, y0 = s * (0.1 + 0.82 * c / columns), s * (0.06 + 0.9 * r / rows)
            x1, y1 = x0 + s * 0.7 / columns, y0 + s * 0.78 / rows
            draw.rectangle((x0, y0, x1, y1), fill=(70, 80, 88) if glass and r == 0 else (198, 198, 198))
            draw.line((x0, y1, x0, y0, x1, y0), (120, 120, 120), s // 90)
            draw.line((x0, y1, x1, y1, x1, y0), (245, 245, 245), s // 90)
    draw.rectangle((s * 0.88, s * 0.46, s * 0.94, s * 0.54), fill=(90, 85, 70))
    return _finish(image, pool, rng)


def window(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Draw a window pane seen from outside: a dark room, curtains, a blind, a light reflection."""
    s = pool.size
    image = Image.new("RGB", (s, s), _colour(rng, 18, 50))
    draw = ImageDraw.Draw(image)
    kind = rng.integers(4)
    if kind == 0:
        for side in (0, 1):
            for k in range(6):
                x = s * (k * 0.045 if side == 0 else 1 - 0.27 + k * 0.045)
                v = int(rng.integers(120, 190))
                draw.rectangle((x, 0, x + s * 0.05, s), fill=(v, v, int(v * 0.95)))
    elif kind == 1:
        drop = s * rng.uniform(0.2, 0.9)
        for y in np.arange(0, drop, s / 28):
            v = int(rng.integers(130, 180))
            draw.rectangle((0, y, s, y + s / 40), fill=(v, v, v - 8))
    elif kind == 2:
        v = int(rng.integers(90, 140))
        draw.rectangle((0, s * rng.uniform(0.3, 0.6), s, s), fill=(v, v, v))
    if rng.random() < 0.5:
        _shapes(rng, draw, (s * 0.2, s * 0.75, s * 0.8, s), 5)
    sky = np.linspace(0.28, 0.08, s)[:, None] * (0.6 + 0.8 * pool.draw(rng, 2.2))
    return _finish(image, pool, rng) * 0.8 + sky[..., None] * (0.75, 0.9, 1.0)


def shop(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s), _colour(rng, 25, 80))
    draw = ImageDraw.Draw(image)
    for level in (0.35, 0.62, 0.86):
        draw.rectangle((0, s * level, s, s * level + s * 0.02), fill=_colour(rng, 90, 170))
        for _ in range(9):
            x, w, h = rng.uniform(0, s), s * rng.uniform(0.03, 0.09), s * rng.uniform(0.06, 0.2)
            draw.rectangle((x, s * level - h, x + w, s * level), fill=_colour(rng, 60))
    _shapes(rng, draw, (s * 0.1, s * 0.1, s * 0.5, s * 0.4), 4)
    draw.text((s * 0.2, s * 0.05), _word(rng), (240, 240, 230), _font(s // 7))
    return _finish(image, pool, rng)


def fascia(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """The name over a shop; it is stretched to be eight times as wide as high."""
    s = pool.size
    back = _colour(rng, 10, 200)
    image = Image.new("RGB", (s, s // 8), back)
    ink = (245, 240, 225) if sum(back) < 350 else (25, 25, 40)
    ImageDraw.Draw(image).text((s * 0.06, 0), f"{_word(rng, 8)} {_word(rng, 6)}", ink, _font(s // 10))
    return _finish(image.resize((s, s)), pool, rng)


def sign(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s), (235, 235, 230))
    draw = ImageDraw.Draw(image)
    kind = rng.integers(3)
    if kind == 0:
        draw.rectangle((0, 0, s, s), fill=(25, 80, 165))
        draw.text((s * 0.28, s * 0.05), "P", (250, 250, 250), _font(int(s * 0.75)))
    elif kind == 1:
        draw.ellipse((s * 0.02, s * 0.02, s * 0.98, s * 0.98), fill=(190, 25, 30))
        draw.ellipse((s * 0.15, s * 0.15, s * 0.85, s * 0.85), fill=(240, 240, 238))
        draw.text((s * 0.2, s * 0.25), str(rng.choice(["30", "50", "20"])), (15, 15, 15), _font(int(s * 0.45)))
    else:
        draw.polygon([(s / 2, 0), (s, s * 0.9), (0, s * 0.9)], fill=(190, 25, 30))
        draw.polygon([(s / 2, s * 0.2), (s * 0.82, s * 0.8), (s * 0.18, s * 0.8)], fill=(240, 240, 238))
        draw.rectangle((s * 0.46, s * 0.35, s * 0.54, s * 0.7), fill=(15, 15, 15))
    return _finish(image, pool, rng)


def plate(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    s = pool.size
    image = Image.new("RGB", (s, s // 4), (235, 235, 225))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, s * 0.08, s), fill=(30, 60, 160))
    draw.text((s * 0.12, -s * 0.03), _word(rng, 7).upper(), (15, 15, 15), _font(s // 4))
    return _finish(image.resize((s, s)), pool, rng)


def railing(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Bars of a fence; tileable along u."""
    s = pool.size
    alpha = np.zeros((s, s), np.float32)
    bars = int(rng.choice([8, 12, 16]))
    for k in range(bars):
        x = int((k + 0.5) * s / bars)
        alpha[int(s * rng.choice([0.0, 0.04])) :, x - s // (6 * bars) - 1 : x + s // (6 * bars) + 2] = 1
    for y in (0.08, 0.85):
        alpha[int(y * s) : int((y + 0.06) * s)] = 1
    value = 0.75 + 0.3 * (pool.draw(rng, 1.0) - 0.5)
    return np.concatenate([blend((0, 0, 0), (1, 1, 1), value), alpha[..., None]], axis=2)


def outside(rng: np.random.Generator, pool: NoisePool) -> np.ndarray:
    """Draw the view out of a room's window."""
    s = pool.size
    y = np.linspace(0, 1, s)[:, None]
    ridge = (0.45 + 0.35 * (pool.draw(rng, 1.6)[0] - 0.5))[None]
    sky = blend((0.75, 0.85, 1.0), (1.0, 1.0, 1.0), np.broadcast_to(y * 1.5, (s, s)))
    trees = blend((0.18, 0.24, 0.12), (0.5, 0.55, 0.35), pool.draw(rng, 1.0))
    return np.where((y > ridge)[..., None], trees, sky)


DRAWN = {
    "poster": (12, poster),
    "paper": (4, paper),
    "books": (10, books),
    "screen": (3, screen),
    "keyboard": (2, keyboard),
    "door": (4, door),
    "window": (6, window),
    "shop": (3, shop),
    "fascia": (4, fascia),
    "sign": (4, sign),
    "plate": (2, plate),
    "railing": (2, railing),
    "outside": (2, outside),
}
"""Number of variants of each texture, and the function that makes them."""
