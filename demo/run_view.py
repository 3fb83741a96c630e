"""View of a finished run, read from its folder, so that a reload or a link shows the same.

The page keeps one file of its own beside the run: `points.npz` with the class and error of every sparse point.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.evaluation.comparison import Column
from sfmttr.io.atomic import atomic_file
from sfmttr.run.manifest import REPORT
from sfmttr.run.report import ComparisonReport, RunReport, read_report
from sfmttr.run.results import RunResult
from sfmttr.run.weights_file import REFINEMENT, RefinementCurves, read_curves
from sfmttr.types import DepthKind, FrameSet
from sfmttr.viz.colormap import ColorRange
from sfmttr.viz.overlays import PointClass

from .export_package import import_export
from .sessions import Session

POINTS = "points.npz"
_CLASSES = tuple(PointClass)
_MAPS_KEPT = 6
_PICTURES_KEPT = 400


PHOTO, POINTS_LAYER, ERROR_BEFORE, ERROR_AFTER = "photo", "points", "error_before", "error_after"
TITLES: Mapping[str, str] = {
    PHOTO: "photo",
    Column.BEFORE: "before",
    Column.ALIGNED: "before, scaled to fit",
    Column.BEFORE_FUSED: "before + points (fused)",
    Column.AFTER: "after",
    Column.AFTER_FUSED: "after + points (fused)",
    ERROR_BEFORE: "error at held-out points, before",
    ERROR_AFTER: "error at held-out points, after",
    POINTS_LAYER: "points by class",
}
ALIGNED_DISPARITY = "the original network with the best scale and shift"
"""Description of "before" for a network that predicts inverse depth up to scale and shift: what alignment alone gains
does not count as improvement."""
_DISPARITY_TITLES: Mapping[str, str] = {
    Column.BEFORE: "before, without its shift",
    Column.ALIGNED: "before, best scale and shift",
}


def save_points(result: RunResult, session: Session) -> None:
    """Write `points.npz` of a run that has just ended, from values that are only in memory."""
    from sfmttr.geometry import pixels_from_grid
    from sfmttr.io import depth_maps
    from sfmttr.refinement.observations import sample_at
    from sfmttr.run import outputs

    aligned = result.aligned
    if aligned is None:
        return
    observations = aligned.observations
    names = outputs.point_classes(aligned)
    classes = np.array([_CLASSES.index(PointClass(str(name))) for name in names], np.uint8)
    measured = (observations.test | observations.test_on_held_out_frames) & observations.reliable
    errors = {}
    depth, network_scale = result.folder / "depth", aligned.alignment.network_scale
    for name, column in (("before", Column.BEFORE), ("after", Column.AFTER)):
        path = depth / f"{column}.npz"
        error = np.full(len(observations), np.nan, np.float32)
        if path.is_file():
            rows = observations.where(measured)
            maps = (
                depth_maps.read_maps(path) if column is Column.AFTER else depth_maps.read_aligned(depth, network_scale)
            )
            predicted = sample_at(maps, rows)
            error[measured] = np.abs(predicted / (aligned.alignment.scale * rows.z) - 1)
        errors[f"error_{name}"] = error
    with atomic_file(session.folder / POINTS) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            frame=observations.frame.astype(np.int32),
            xy_px=pixels_from_grid(observations.grid, result.frames.hw).astype(np.float32),
            classes=classes,
            **errors,
        )


@dataclass(frozen=True)
class Points:
    """Content of `points.npz`; M rows, sorted by frame."""

    frame: np.ndarray
    xy_px: np.ndarray
    classes: np.ndarray
    error_before: np.ndarray
    error_after: np.ndarray

    def counts(self) -> dict[PointClass, int]:
        """Return the number of points of each class."""
        return {kind: int((self.classes == i).sum()) for i, kind in enumerate(_CLASSES)}


class RunView:
    """One finished run."""

    def __init__(self, session: Session) -> None:
        """Raises `RunFolderError` when it is not finished, or damaged."""
        from sfmttr.frames.loader import frame_set_from_folder

        self.session, self.folder = session, session.run
        self.report: RunReport = read_report(self.folder)
        self.frames: FrameSet = frame_set_from_folder(self.folder / "frames")

    @property
    def refined(self) -> bool:
        """True if the network was trained, which the trust gate or a missing model prevents."""
        return self.report.refinement is not None

    @property
    def rolled_back(self) -> bool:
        """True if no step was better than the original network, which was then kept."""
        return self.report.refinement is not None and self.report.refinement.rolled_back

    @property
    def trusted(self) -> bool:
        """True if the trust gate accepted the reconstruction."""
        return self.report.alignment is not None and self.report.alignment.trusted

    @property
    def gate_closed(self) -> bool:
        """True if there is a reconstruction that the trust gate rejected."""
        return not self.refined and self.report.alignment is not None and not self.trusted

    @property
    def kind(self) -> DepthKind:
        """Kind of the depth maps."""
        return self.report.kind

    @property
    def predicts_disparity(self) -> bool:
        """True if the network predicts inverse depth, which was converted to depth with the 3D points of the clip."""
        return self.report.alignment is not None and self.report.alignment.shift is not None

    @property
    def titles(self) -> Mapping[str, str]:
        """Titles of layers and depth variants."""
        return {**TITLES, **_DISPARITY_TITLES} if self.predicts_disparity else TITLES

    @property
    def before_description(self) -> str:
        """Description of "before" where it is not the plain prediction; else empty."""
        return ALIGNED_DISPARITY if self.before is Column.ALIGNED else ""

    @property
    def unit(self) -> str:
        """Unit of the depth maps."""
        return "m" if self.kind is DepthKind.METRIC else "network units"

    @cached_property
    def points(self) -> Points | None:
        """Class and error of the sparse points; None without a reconstruction."""
        path = self.session.folder / POINTS
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as content:
            return Points(**{name: content[name] for name in Points.__dataclass_fields__})

    @cached_property
    def refinement(self) -> RefinementCurves | None:
        """Curves of the refinement, or None."""
        path = self.folder / REFINEMENT
        return read_curves(path) if path.is_file() else None

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layers that can be shown, in the order of `TITLES`."""
        shown = {PHOTO, Column.BEFORE}
        if self.refined:
            shown |= {Column.ALIGNED, Column.BEFORE_FUSED, Column.AFTER, Column.AFTER_FUSED}
        if self.points is not None:
            shown.add(POINTS_LAYER)
            if np.isfinite(self.points.error_before).any():
                shown.add(ERROR_BEFORE)
            if np.isfinite(self.points.error_after).any():
                shown.add(ERROR_AFTER)
        return tuple(str(layer) for layer in TITLES if layer in shown)

    @cached_property
    def colors(self) -> ColorRange:
        """One color range for the clip, that of the run's own pictures and video."""
        from sfmttr.viz import colormap

        shown = [self._maps(column) for column in (self.before, Column.AFTER) if column in self.layers]
        return colormap.color_range(frame for maps in shown for frame in maps)

    @property
    def exported_colors(self) -> ColorRange:
        """`colors` in the unit of the exported network, which may be meters where the run's is not."""
        from sfmttr.viz.colormap import ColorRange

        scale = float(import_export("description").read_network_description(self.folder / "export").scale)
        return ColorRange(scale * self.colors.near, scale * self.colors.far)

    @property
    def before(self) -> Column:
        """Depth variant that is shown as unrefined; for a network that predicts disparity, the aligned one."""
        return Column.ALIGNED if self.refined and self.predicts_disparity else Column.BEFORE

    def _maps(self, column: str) -> np.ndarray:
        """Return the maps (N, h, w) of one depth variant."""
        alignment = self.report.alignment
        if (
            column == Column.ALIGNED and self.before is Column.BEFORE and alignment is not None
        ):  # else its maps are stored
            return self._maps(Column.BEFORE) * np.float32(alignment.network_scale)
        path = self.folder / "depth" / f"{column}.npz"
        return _read_maps(path, path.stat().st_mtime_ns)

    def depth(self, column: str, frame: int) -> np.ndarray:
        """Return the depth (H, W) float32 of a frame, at frame size."""
        from sfmttr.geometry import resize_numpy

        return resize_numpy(self._maps(column)[frame], self.frames.hw)

    def picture(self, layer: str, frame: int) -> np.ndarray:
        """Return one layer of a frame as (H, W, 3) uint8. Raises KeyError when there is no such layer or frame."""
        from sfmttr.viz import colormap, overlays

        if layer not in self.layers or not 0 <= frame < len(self.frames):
            raise KeyError(layer)
        if layer == PHOTO:
            return self.frames.read(frame).rgb
        if layer not in (POINTS_LAYER, ERROR_BEFORE, ERROR_AFTER):
            return colormap.colorize(self.depth(layer, frame), self.colors)
        points, rgb = self.points, self.frames.read(frame).rgb
        assert points is not None, "a layer of points needs points"
        rows = points.frame == frame
        if layer == POINTS_LAYER:
            kinds = [_CLASSES[i] for i in points.classes[rows]]
            drawn = overlays.overlay_points(rgb, points.xy_px[rows], kinds)
        else:
            error = points.error_before if layer == ERROR_BEFORE else points.error_after
            drawn = overlays.error_overlay(rgb, points.xy_px[rows], error[rows])
        return drawn[: rgb.shape[0]]  # without the legends that are drawn below: the page has its own

    def has_kit(self) -> bool:
        """Return whether the run was exported."""
        return (self.folder / "kit.zip").is_file()

    def held_out(self, column: str) -> float | None:
        """Return AbsRel of a depth variant at held-out points; None when it is not known."""
        return _abs_rel(self.report.comparison.held_out, column)


def _abs_rel(comparison: ComparisonReport | None, column: str) -> float | None:
    errors = None if comparison is None else comparison.columns.get(Column(column))
    return errors.abs_rel if errors is not None and math.isfinite(errors.abs_rel) else None


@lru_cache(maxsize=_MAPS_KEPT)
def _read_maps(path: Path, changed_ns: int) -> np.ndarray:
    from sfmttr.io.depth_maps import read_maps

    return read_maps(path)


@lru_cache(maxsize=16)
def _view(session: Session, changed_ns: int) -> RunView:
    return RunView(session)


def view_of(session: Session) -> RunView:
    """Return the view of a session's run, cached. Raises `RunFolderError` when the run is not finished."""
    report = session.run / REPORT
    return _view(session, report.stat().st_mtime_ns if report.is_file() else 0)


@lru_cache(maxsize=_PICTURES_KEPT)
def _webp(session: Session, changed_ns: int, layer: str, frame: int, width: int) -> bytes:
    return encode_webp(_view(session, changed_ns).picture(layer, frame), width)


def webp(session: Session, layer: str, frame: int, width: int) -> bytes:
    """Return one picture, at most `width` wide. Raises KeyError when there is no such layer or frame."""
    return _webp(session, (session.run / REPORT).stat().st_mtime_ns, layer, frame, width)


def encode_webp(rgb: np.ndarray, width: int, quality: int = 90) -> bytes:
    """Encode a picture (h, w, 3) uint8, reduced to at most `width`."""
    image = Image.fromarray(rgb)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=1)
    return buffer.getvalue()
