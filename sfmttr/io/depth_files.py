"""Depth of one frame as a file: 16-bit PNG that states its own scale and unit, compressed npz, and EXR."""

from __future__ import annotations

import errno
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import sfmttr
from sfmttr.errors import DepthKindError, GroundTruthError, RunFolderError
from sfmttr.io.atomic import atomic_file
from sfmttr.types import Depth, DepthKind

PNG_MAX = 65535
"""Largest value of a 16-bit PNG."""
MILLIMETRES = 1000.0
"""Steps per metre of a PNG in millimetres."""
KITTI = 256.0
"""Steps per metre of KITTI's depth PNGs."""

_UNITS = {
    DepthKind.METRIC: "metres",
    DepthKind.SCALE_INVARIANT: "network units",
    DepthKind.AFFINE_DISPARITY: "inverse depth, up to scale and shift",
}


@dataclass(frozen=True)
class PngScale:
    """Scale of a depth PNG: `depth = value / steps_per_unit`; 0 is no depth."""

    steps_per_unit: float
    kind: DepthKind
    """`METRIC` or `SCALE_INVARIANT`."""

    def __post_init__(self) -> None:
        if self.kind is DepthKind.AFFINE_DISPARITY:
            raise DepthKindError("a depth PNG cannot hold affine disparity; convert it to depth, or write npz or EXR")
        if not (math.isfinite(self.steps_per_unit) and self.steps_per_unit > 0):
            raise ValueError(f"{self.steps_per_unit=}, expected a positive number")

    @property
    def unit(self) -> str:
        return _UNITS[self.kind]

    @property
    def max_depth(self) -> float:
        """Largest depth that the PNG can hold."""
        return PNG_MAX / self.steps_per_unit

    @property
    def sentence(self) -> str:
        """The rule in words, e.g. "depth = value / 1000 metres"."""
        return f"depth = value / {self.steps_per_unit:.10g} {self.unit}"


@dataclass(frozen=True)
class DepthPng:
    """Content of a depth PNG."""

    values: np.ndarray
    """(H, W) float32, 0 where there is no depth."""
    kind: DepthKind | None
    """None when the file does not state it."""
    steps_per_unit: float


def choose_png_scale(kind: DepthKind, max_depth: float) -> PngScale:
    """Return the finest round scale that holds `max_depth`, the largest depth of the *whole clip*.

    Metres: millimetres up to 65.5 m, KITTI's 1/256 m up to 256 m, then powers of ten. Network units: 1, 2 or 5 times
    a power of ten. Raises ValueError for a depth that is not positive, DepthKindError for affine disparity.
    """
    if not (math.isfinite(max_depth) and max_depth > 0):
        raise ValueError(f"{max_depth=}, expected a positive depth")
    most = PNG_MAX / max_depth
    if kind is DepthKind.METRIC:
        for steps in (MILLIMETRES, KITTI):
            if steps <= most:
                return PngScale(steps, kind)
    decade = 10.0 ** math.floor(math.log10(most))
    factors = (1,) if kind is DepthKind.METRIC else (5, 2, 1)
    return PngScale(next(factor * decade for factor in factors if factor * decade <= most), kind)


def write_depth_png(path: Path, depth: Depth, scale: PngScale) -> None:
    """Write depth as 16-bit PNG, atomically; NaN and 0 become 0 (no depth). The file states scale, unit and kind.

    Raises DepthKindError when `scale` is for another kind, ValueError for depth that is negative or does not fit.
    """
    if depth.kind is not scale.kind:
        raise DepthKindError(
            f"the PNG scale is for {scale.kind} depth, but this is {depth.kind}; choose a scale of that kind"
        )
    image = Image.fromarray(_steps(depth.values, scale))
    with atomic_file(path) as part:
        image.save(part, format="PNG", pnginfo=_png_info(scale), compress_level=1)


def _steps(values: np.ndarray, scale: PngScale) -> np.ndarray:
    """Return depth (H, W) as uint16 steps. Raises ValueError instead of saturating."""
    depth = np.where(np.isnan(values), 0.0, values).astype(np.float64)
    if depth.size and depth.min() < 0:
        raise ValueError(f"depth {depth.min():.6g} is negative")
    steps = np.rint(depth * scale.steps_per_unit)
    if depth.size and steps.max() > PNG_MAX:
        raise ValueError(f"depth {depth.max():.6g} is beyond {scale.max_depth:.6g}, which {scale.sentence!r} can hold")
    # Depth below half a step must not round to 0, which means no depth.
    steps[(steps == 0) & (depth > 0)] = 1
    return steps.astype(np.uint16)


def _png_info(scale: PngScale) -> PngInfo:
    info = PngInfo()
    info.add_text("Description", f"{scale.sentence}; 0 = no depth; camera z")
    info.add_text("Software", f"sfmttr {sfmttr.__version__}")
    info.add_text("sfmttr:depth_scale", f"{scale.steps_per_unit:.17g}")
    info.add_text("sfmttr:depth_unit", scale.unit)
    info.add_text("sfmttr:depth_kind", scale.kind.value)
    return info


def read_depth_png(path: Path, scale: float | None = None) -> DepthPng:
    """Read a 16-bit depth PNG. `scale`: steps per unit, for files that do not state it; it overrides a stated one.

    Raises RunFolderError when the file is missing, damaged, not 16-bit, or of unknown scale.
    """
    values, text = _read_png(path)
    try:
        stated = stated_scale(text)
        kind = DepthKind(text["sfmttr:depth_kind"]) if "sfmttr:depth_kind" in text else None
    except ValueError as error:
        raise RunFolderError(f"{path} states an invalid depth scale or kind ({error}); write the file again") from error
    steps = stated if scale is None else scale
    if steps is None or not steps > 0:
        raise RunFolderError(f"{path} does not state its depth scale; give one (1000: millimetres, 256: KITTI)")
    return DepthPng((values / steps).astype(np.float32), kind, steps)


def stated_scale(text: Mapping[str, str]) -> float | None:
    """Return the steps per unit that a PNG's text chunks state, or None. Raises ValueError for an invalid scale."""
    if "sfmttr:depth_scale" not in text:
        return None
    scale = float(text["sfmttr:depth_scale"])
    if not 0 < scale < math.inf:
        raise ValueError(f"a scale of {scale}")
    return scale


def _read_png(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Return values (H, W) float64 and text chunks of a 16-bit gray PNG. Raises RunFolderError for other files."""
    try:
        with Image.open(path) as image:
            image.load()
            mode, values, text = image.mode, np.asarray(image), dict(getattr(image, "text", {}))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunFolderError(f"{path} cannot be read as a PNG ({error}); check the file") from error
    # Pillow reads 16-bit gray as mode "I;16", in some versions as "I".
    if values.ndim != 2 or mode not in ("I;16", "I;16B", "I"):
        raise RunFolderError(
            f"{path} is not a 16-bit gray PNG (its mode is {mode}) and holds no depth; choose another file"
        )
    return values.astype(np.float64), text


def read_ground_truth(path: Path, scale: float | None = None) -> np.ndarray:
    """Ground truth depth (H, W) float32, 0 where there is none, from a 16-bit PNG, npy, or npz (array `depth`).

    `scale`: steps a metre (KITTI 256, millimetres 1000); arrays are divided by it too, when it is given. Values that
    are not finite or not positive become 0. Raises GroundTruthError when the file cannot be used.
    """
    try:
        raw = _read_array(path) if path.suffix.lower() in (".npy", ".npz") else read_depth_png(path, scale).values
    except RunFolderError as error:
        raise GroundTruthError(str(error)) from error
    if path.suffix.lower() in (".npy", ".npz") and scale is not None:
        raw = raw / scale
    depth = raw.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _read_array(path: Path) -> np.ndarray:
    """Return the (H, W) array of an npy or npz file. Raises RunFolderError."""
    return _depth_of(_load_numpy(path), path)


def _depth_of(content: Any, path: Path) -> np.ndarray:
    """Return the (H, W) array of what `_load_numpy` returned. Raises RunFolderError."""
    if isinstance(content, dict):
        if "depth" not in content:
            raise RunFolderError(f"{path} holds {sorted(content)} and no array named 'depth'; add one")
        content = content["depth"]
    if content.ndim != 2 or not np.issubdtype(content.dtype, np.number):
        raise RunFolderError(f"{path} holds an array of shape {content.shape}; depth has the shape (H, W)")
    return content


def _load_numpy(path: Path) -> Any:
    """Return the array of an npy file, or all arrays of an npz file by name. Raises RunFolderError."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunFolderError(f"{path} cannot be read as npy or npz ({error}); check the file") from error


def write_depth_npz(path: Path, depth: Depth, name: str) -> None:
    """Write `depth` (H, W) float32, `kind`, `unit` and the frame's `name`, compressed, atomically."""
    with atomic_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, depth=depth.values, kind=depth.kind.value, unit=_UNITS[depth.kind], name=name)


def read_depth_npz(path: Path) -> tuple[Depth, str]:
    """Return depth and frame name as `write_depth_npz` wrote them. Raises RunFolderError."""
    content = _load_numpy(path)
    values = _depth_of(content, path)
    try:
        return Depth(values, DepthKind(str(content["kind"]))), str(content["name"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise RunFolderError(f"{path} is not a depth file of sfmttr ({error}); choose another file") from error


def _import_exr() -> Any:
    """Return the module OpenEXR, which is optional. Raises RunFolderError when it is not installed."""
    try:
        import OpenEXR
    except ImportError as error:
        raise RunFolderError("EXR files need one more package: pip install OpenEXR") from error
    return OpenEXR


def write_depth_exr(path: Path, depth: Depth, name: str) -> None:
    """Write depth as EXR, atomically: channel Z, 32-bit float, header with kind, unit and the frame's name.

    Raises RunFolderError when the package OpenEXR is missing or the disk is full.
    """
    exr = _import_exr()
    header = {
        "compression": exr.ZIP_COMPRESSION,
        "type": exr.scanlineimage,
        "kind": depth.kind.value,
        "unit": _UNITS[depth.kind],
        "name": name,
    }
    with atomic_file(path) as part:
        try:
            exr.File(header, {"Z": np.ascontiguousarray(depth.values)}).write(str(part))
        except RuntimeError as error:
            # OpenEXR reports the reason as text only; `atomic_file` needs the error number.
            full = os.strerror(errno.ENOSPC) in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def read_depth_exr(path: Path) -> Depth:
    """Return depth as `write_depth_exr` wrote it. Raises RunFolderError."""
    exr = _import_exr()
    try:
        with exr.File(str(path)) as file:
            return Depth(np.array(file.channels()["Z"].pixels, np.float32), DepthKind(file.header()["kind"]))
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as a depth EXR ({error}); check the file") from error
