"""Frame source for folders and zip files of images: natural order, EXIF orientation and focal length."""

from __future__ import annotations

import importlib
import io
import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError
from sfmttr.frames.selection import GRAY_LONG_SIDE, Candidate, fitted_hw, subsample_window, windows_in_time
from sfmttr.frames.zip_archive import Archive, UnreadableMemberError
from sfmttr.types import HW, SkippedFrame

# Photographs are large and rarely blurred, so few are compared.
CANDIDATES_PER_WINDOW = 4
"""Maximum number of images read per window: photographs are large and rarely blurred."""
HEIF_SUFFIXES = frozenset({".heic", ".heif"})
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}) | HEIF_SUFFIXES
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]
"""Formats that Pillow may try. It supports many more, which no camera writes."""
DAMAGED = (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError)
"""Exceptions that Pillow's decoders raise on damaged files."""
DIAGONAL_35MM_MM = 43.27
MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


class ImageSource:
    """Images in natural order of their names; the index in that order serves as time."""

    def __init__(self, files: dict[str, Callable[[], io.BytesIO]], title: str, config: VideoConfig) -> None:
        """Take `files`, relative names to readers. Raises `ClipError` when none is an image."""
        self._paths = sorted((name for name in files if _suffix(name) in SUFFIXES), key=natural_key)
        if not self._paths:
            raise ClipError(f"{title} holds no images (jpg, png, webp, bmp or tif); choose another one")
        self._files = files
        self._config = config
        self._reference: tuple[str, HW] | None = None
        self._focals_px: list[float] = []
        self.skipped: list[SkippedFrame] = []
        self.names = _short_names(self._paths)

    @property
    def source_hw(self) -> HW:
        """Size of the images; (0, 0) until the first one is read."""
        return self._reference[1] if self._reference else (0, 0)

    @property
    def focal_px(self) -> float | None:
        """Median EXIF focal length in pixels, at `source_hw`, of the images read so far; None without one."""
        return float(np.median(self._focals_px)) if self._focals_px else None

    def window_candidates(self) -> list[range]:
        windows = windows_in_time(range(len(self._paths)), self._config.max_frames)
        return [subsample_window(window, (), CANDIDATES_PER_WINDOW) for window in windows]

    def candidates(self, numbers: Sequence[int]) -> Iterator[Candidate]:
        """Yield the readable ones of the requested images. The others are recorded in `skipped`.

        Raises `ClipError` for an image that is too large, or differs in size from the first.
        """
        for number in numbers:
            try:
                image, focal_px = read_image(self._files[self._paths[number]](), self._paths[number], self._config)
            except (UnreadableImageError, UnreadableMemberError) as error:
                self.skipped.append(SkippedFrame(self.names[number], str(error)))
                continue
            self._check_size(self._paths[number], image)
            if focal_px:
                self._focals_px.append(focal_px)
            yield Candidate(number, float(number), _gray(image), partial(_identity, image))

    def first_hw(self) -> HW:
        """Return the size of the first readable image. Raises `ClipError` when there is none."""
        for _ in self.candidates(range(len(self._paths))):
            return self.source_hw
        raise ClipError(
            f"none of the {len(self._paths)} images can be read ({self.skipped[0].reason}); save them again"
        )

    def _check_size(self, path: str, image: Image.Image) -> None:
        hw = (image.height, image.width)
        self._reference = self._reference or (path, hw)
        other, other_hw = self._reference
        if hw != other_hw:
            raise ClipError(
                f"{other} is {other_hw[1]} x {other_hw[0]} pixels and {path} is {hw[1]} x {hw[0]}; "
                "resize them to one size or take those out that differ"
            )


class UnreadableImageError(ValueError):
    """Error of one damaged image; the others may be readable."""


def folder_files(folder: Path) -> dict[str, Callable[[], io.BytesIO]]:
    """Return the readers of a folder's visible files by name; subfolders are not searched."""
    try:
        paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise ClipError(f"{folder} cannot be read ({error.strerror or error}); check its permissions") from error
    return {path.name: partial(_read_file, path) for path in paths}


def archive_files(archive: Archive) -> dict[str, Callable[[], io.BytesIO]]:
    """Return the readers of an archive's members by name."""
    return {name: partial(archive.read, name) for name in archive.names}


def natural_key(name: str) -> tuple[object, ...]:
    """Return a sort key that puts 2.jpg before 10.jpg.

    Numbers are compared as text, by length and then by digits, because a hostile name may hold thousands of digits.
    """
    pieces = re.split(r"([0-9]+)", name.casefold())
    parts = [(len(piece.lstrip("0")), piece.lstrip("0")) if i % 2 else (0, piece) for i, piece in enumerate(pieces)]
    return (*parts, (0, name))


def read_image(data: io.BytesIO, name: str, config: VideoConfig) -> tuple[Image.Image, float | None]:
    """Return an upright RGB picture and its focal length in pixels, or None where EXIF gives none.

    Raises `UnreadableImageError` when it is damaged, `ClipError` when it is too large (before decoding).
    """
    try:
        with warnings.catch_warnings():
            # The size limit of the configuration applies; Pillow's own limit only warns.
            warnings.simplefilter("ignore")
            image = Image.open(data, formats=_formats(name))
            _check_pixels(image, name, config)
            focal_px = _focal_px(image)
            return _to_rgb(ImageOps.exif_transpose(image)), focal_px
    except Image.DecompressionBombError as error:
        raise ClipError(f"{name} is far too large; make it smaller than {config.max_source_pixels:,} pixels") from error
    except (*DAMAGED, struct.error) as error:
        raise UnreadableImageError(f"cannot be read: {str(error) or type(error).__name__}") from error


def _read_file(path: Path) -> io.BytesIO:
    try:
        return io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error


def _check_pixels(image: Image.Image, name: str, config: VideoConfig) -> None:
    if image.width * image.height > config.max_source_pixels:
        raise ClipError(
            f"{name} has {image.width} x {image.height} pixels, more than {config.max_source_pixels:,}; make it smaller"
        )


def _formats(name: str) -> list[str]:
    """Return the formats to try. Raises `UnreadableImageError` for HEIF without the optional package pillow-heif."""
    if _suffix(name) not in HEIF_SUFFIXES:
        return FORMATS
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnreadableImageError("HEIC images need `pip install pillow-heif`; or save them as JPEG") from error
    return ["HEIF"]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit images: Pillow's own conversion would clip all but the darkest 256 levels.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _identity(image: Image.Image) -> Image.Image:
    return image


def _gray(image: Image.Image) -> np.ndarray:
    height, width = fitted_hw((image.height, image.width), GRAY_LONG_SIDE)
    gray = image.convert("L").resize((width, height), Image.Resampling.BOX)
    return np.asarray(gray, dtype=np.float32)


def _focal_px(image: Image.Image) -> float | None:
    """Return the EXIF focal length in pixels: from the 35 mm equivalent (by the diagonal) or the resolution."""
    exif = image.getexif().get_ifd(0x8769)
    equivalent_mm = _number(exif.get(0xA405))
    if equivalent_mm:
        return equivalent_mm * math.hypot(image.width, image.height) / DIAGONAL_35MM_MM
    focal_mm, pixels_per_unit = _number(exif.get(0x920A)), _number(exif.get(0xA20E))
    mm_per_unit = MM_PER_RESOLUTION_UNIT.get(int(_number(exif.get(0xA210)) or 2))
    if not (focal_mm and pixels_per_unit and mm_per_unit):
        return None
    # The sensor resolution refers to the picture as taken, which may have been resized since.
    taken_px = max(_number(exif.get(0xA002)) or 0, _number(exif.get(0xA003)) or 0) or max(image.size)
    return focal_mm * pixels_per_unit / mm_per_unit * max(image.size) / taken_px


def _number(value: object) -> float | None:
    """Return a positive, finite EXIF number; None for a missing, zero or non-numeric value."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _short_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the stems, by which ground truth is matched; the full paths where stems are not unique."""
    stems = tuple(PurePosixPath(path).stem for path in paths)
    return stems if len(set(stems)) == len(stems) else tuple(paths)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
