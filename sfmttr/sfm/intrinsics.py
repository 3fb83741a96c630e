"""Parser of user-supplied camera intrinsics: "fx,fy,cx,cy[,k1,k2]" or a JSON file."""

from __future__ import annotations

import json
import math
from pathlib import Path

from sfmttr.errors import IntrinsicsError
from sfmttr.types import HW, Camera

_REQUIRED = ("fx", "fy", "cx", "cy")
_OPTIONAL = ("k1", "k2", "p1", "p2")
_MIN_VIEW_DEG, _MAX_VIEW_DEG = 5.0, 170.0
_ASPECT_TOLERANCE = 0.01


def parse_intrinsics(text: str, hw: HW, stored_hw: HW) -> Camera:
    """Return the camera of the stored frames, scaled to `stored_hw`.

    `text` holds 4 to 6 numbers, "fx,fy,cx,cy[,k1,k2]", or is the path of a JSON file with these keys and optionally
    p1, p2, width and height. Values are in pixels of the source size `hw` unless the file gives width and height.
    Raises `IntrinsicsError`.
    """
    text = text.strip()
    if not text:
        raise IntrinsicsError('Intrinsics are empty: give "fx,fy,cx,cy" in pixels or the path of a JSON file.')
    values, given_hw = _from_file(Path(text), hw) if _looks_like_file(text) else (_from_list(text), hw)
    camera = Camera(given_hw, **values)
    _check(camera)
    _check_aspect(given_hw, hw)
    return camera.scaled_to(stored_hw)


def _looks_like_file(text: str) -> bool:
    return text.lower().endswith(".json") or ("," not in text and Path(text).is_file())


def _from_list(text: str) -> dict[str, float]:
    parts = [part.strip() for part in text.split(",")]
    if not 4 <= len(parts) <= 6:
        raise IntrinsicsError(f'Intrinsics "{text}" hold {len(parts)} values instead of fx,fy,cx,cy[,k1,k2].')
    names = (*_REQUIRED, "k1", "k2")
    return {name: _number(part, name) for name, part in zip(names, parts, strict=False)}


def _from_file(path: Path, hw: HW) -> tuple[dict[str, float], HW]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IntrinsicsError(f"The intrinsics file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise IntrinsicsError(f"The intrinsics file {path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise IntrinsicsError(f'The intrinsics file {path} must hold one object like {{"fx": ..., "fy": ...}}.')
    missing = [name for name in _REQUIRED if name not in content]
    if missing:
        raise IntrinsicsError(f"The intrinsics file {path} lacks {', '.join(missing)}.")
    unknown = sorted(set(content) - {*_REQUIRED, *_OPTIONAL, "width", "height"})
    if unknown:
        raise IntrinsicsError(f"The intrinsics file {path} has unknown keys: {', '.join(unknown)}.")
    values = {name: _number(content[name], name) for name in (*_REQUIRED, *_OPTIONAL) if name in content}
    if ("width" in content) != ("height" in content):
        raise IntrinsicsError(f"The intrinsics file {path} must give both width and height, or neither.")
    if "width" not in content:
        return values, hw
    size = round(_number(content["height"], "height")), round(_number(content["width"], "width"))
    if min(size) < 1:
        raise IntrinsicsError(f"The intrinsics file {path} gives a size of {size[1]} x {size[0]} pixels.")
    return values, size


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise IntrinsicsError(f"The intrinsics' {name} must be a number, not {value!r}.")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise IntrinsicsError(f"The intrinsics' {name} must be a number, not {value!r}.") from error
    if not math.isfinite(number):
        raise IntrinsicsError(f"The intrinsics' {name} must be finite, not {number}.")
    return number


def _check(camera: Camera) -> None:
    height, width = camera.hw
    for name, focal, side in (("fx", camera.fx, width), ("fy", camera.fy, height)):
        view_deg = math.degrees(2 * math.atan2(side, 2 * focal)) if focal > 0 else math.inf
        if not _MIN_VIEW_DEG <= view_deg <= _MAX_VIEW_DEG:
            raise IntrinsicsError(
                f"The intrinsics' {name} = {focal:g} is implausible for images of {width} x {height} pixels; "
                "are they meant for another size? A JSON file may give width and height."
            )
    if not (0 < camera.cx < width and 0 < camera.cy < height):
        raise IntrinsicsError(
            f"The intrinsics' centre ({camera.cx:g}, {camera.cy:g}) lies outside the image, {width} x {height} pixels."
        )


def _check_aspect(given_hw: HW, hw: HW) -> None:
    given, actual = given_hw[1] / given_hw[0], hw[1] / hw[0]
    if abs(given / actual - 1) > _ASPECT_TOLERANCE:
        raise IntrinsicsError(
            f"The intrinsics are for {given_hw[1]} x {given_hw[0]} pixels, but the frames have another aspect: "
            f"{hw[1]} x {hw[0]}."
        )
