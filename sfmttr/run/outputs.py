"""What a run leaves behind beside its report: depth, pictures, video, clouds, weights.

depth/{before,after,before_fused,after_fused}.npz   float32 maps of the clip, at the resolution they are computed at
depth/{disparity,aligned}.npz                       likewise, of a network that gives disparity
depth/{refined,fused}/000000.png (.exr)             frame size, 16 bit, scale in the file's text
coloured/{before,refined}/000000.png                one colour range for the clip
comparison.mp4  cloud_{before,after}.{ply,glb}  pictures/*.png  refined.safetensors  refinement.json
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.errors import Cancelled
from sfmttr.evaluation.comparison import Column, Maps
from sfmttr.geometry import pixels_from_grid, resize_numpy
from sfmttr.io import clouds, meshes
from sfmttr.io.atomic import atomic_file
from sfmttr.io.clouds import PosedDepth
from sfmttr.io.depth_files import PngScale, choose_png_scale, write_depth_exr, write_depth_png
from sfmttr.io.video_writer import write_comparison_video
from sfmttr.refinement.observations import Split
from sfmttr.run.results import Aligned, RunResult
from sfmttr.types import Depth, DepthKind, FrameSet, OnProgress, Progress, SparseModel
from sfmttr.utils.threads import map_in_order
from sfmttr.viz import colormap, overlays, panels, plots
from sfmttr.viz.colormap import ColorRange
from sfmttr.viz.overlays import PointClass

FOLDERS = ("depth/refined", "depth/fused", "coloured", "pictures")
FILES = (
    "comparison.mp4",
    *(f"cloud_{column}.{suffix}" for column in ("before", "after") for suffix in ("ply", "glb")),
)
PANEL_WIDTH = 1120
"""Of the video and the picture, with captions and colour bar."""
CLOUD_FRAMES = 20
"""Frames that a PLY is made of; neighbouring frames see the same."""
MESH_FRAMES = 5
"""Surfaces in a GLB: enough to walk around in, small enough to load on a phone."""


@dataclass  # not frozen: it keeps what it computes
class _Clip:
    """What all writers need."""

    result: RunResult
    maps: Maps
    unit: str
    tell: Callable[[], None]
    """Called for every frame that is written; it raises when the run was stopped."""

    @property
    def before(self) -> np.ndarray:
        """(N, h, w): what pictures show as unrefined depth; of a network that gives disparity, what alignment makes of
        it, or all that pictures showed would be the missing shift."""
        aligned = self.result.aligned
        is_disparity = aligned is not None and aligned.alignment.inverse is not None
        return self.maps.get(Column.ALIGNED if is_disparity else Column.BEFORE, self.maps[Column.BEFORE])

    @property
    def best(self) -> np.ndarray:
        """(N, h, w): what the run gives: refined depth, or unrefined where it did not refine."""
        return self.maps.get(Column.AFTER, self.before)

    @property
    def best_fused(self) -> np.ndarray | None:
        return self.maps.get(Column.AFTER_FUSED)

    @cached_property
    def range(self) -> ColorRange:
        """One for all pictures of the clip."""
        shown = [self.before, self.maps[Column.AFTER]] if Column.AFTER in self.maps else [self.before]
        return colormap.color_range(frame for values in shown for frame in values)

    def depth(self, maps: np.ndarray, frame: int) -> Depth:
        """One frame at frame size."""
        return Depth(resize_numpy(maps[frame], self.result.frames.hw), self.result.kind)

    def stem(self, frame: int) -> str:
        return Path(self.result.frames.files[frame]).stem


def _clear(folder: Path) -> None:
    """Delete everything that `write_all` wrote: it may be of other frames, or of a refinement that there is no more."""
    for path in written_files(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def written_files(folder: Path) -> list[Path]:
    """Everything that `write_all` may write, as far as it is there."""
    return [path for path in (folder / name for name in (*FOLDERS, *FILES)) if path.exists()]


def write_all(result: RunResult, maps: Maps, on_progress: OnProgress) -> None:
    """Write depth, pictures, video and clouds, in place of all that an earlier run wrote."""
    _clear(result.folder)
    unit = "m" if result.kind is DepthKind.METRIC else "network units"
    now = Progress("outputs", 0, 1)
    stopped = threading.Event()

    def tell() -> None:
        if stopped.is_set():
            raise Cancelled("stopped")
        on_progress(now)

    clip = _Clip(result, maps, unit, tell)
    config = result.config.output
    jobs: list[tuple[str, Callable[[_Clip], None]]] = [("depth", _write_depth)]
    if config.pictures:
        jobs += [("colours", _write_coloured), ("video", _write_video), ("pictures", _write_pictures)]
    with ThreadPoolExecutor(max_workers=1) as beside:  # clouds take one thread, and are made beside all the rest
        if config.clouds and isinstance(result.sparse, SparseModel) and result.refined is not None:
            clouds_made = beside.submit(_write_clouds, clip)
            jobs.append(("clouds", lambda _: clouds_made.result()))
        try:
            for i, (name, job) in enumerate(jobs):
                now = Progress("outputs", i, len(jobs), name)
                on_progress(now)
                job(clip)
        except BaseException:
            stopped.set()  # or the clouds would be finished first
            raise
    on_progress(Progress("outputs", len(jobs), len(jobs)))


def _each_frame(clip: _Clip, write: Callable[[int], None]) -> None:
    """`write` for every frame."""
    with map_in_order(write, len(clip.result.frames)) as written:
        for _ in written:
            clip.tell()


def png_scale(clip_maps: list[np.ndarray], kind: DepthKind) -> PngScale:
    """One scale for every PNG of the clip."""
    return choose_png_scale(kind, max(float(maps.max()) for maps in clip_maps))


def _write_depth(clip: _Clip) -> None:
    wanted = {"refined": clip.best} | ({"fused": clip.best_fused} if clip.best_fused is not None else {})
    scale = png_scale(list(wanted.values()), clip.result.kind)

    def write(frame: int) -> None:
        for name, maps in wanted.items():
            depth = clip.depth(maps, frame)
            stem = clip.result.folder / "depth" / name / clip.stem(frame)
            write_depth_png(stem.with_suffix(".png"), depth, scale)
            if clip.result.config.output.exr:
                write_depth_exr(stem.with_suffix(".exr"), depth, clip.result.frames.names[frame])

    _each_frame(clip, write)


def _write_coloured(clip: _Clip) -> None:
    wanted = {"before": clip.before, "refined": clip.best}

    def write(frame: int) -> None:
        for name, maps in wanted.items():
            # With a palette: a third of the bytes, and of the time to compress them.
            picture = Image.fromarray(colormap.color_index(clip.depth(maps, frame).values, clip.range))
            picture.putpalette(colormap.palette().tobytes())
            _save_png(clip.result.folder / "coloured" / name / f"{clip.stem(frame)}.png", picture)

    _each_frame(clip, write)


def _write_picture(path: Path, rgb: np.ndarray) -> None:
    _save_png(path, Image.fromarray(rgb))


def _save_png(path: Path, image: Image.Image) -> None:
    with atomic_file(path) as part:
        image.save(part, format="PNG", compress_level=1)


def _panels(clip: _Clip, frame: int) -> np.ndarray:
    """Picture, before and after, with captions and one colour bar."""
    refined, frames = clip.result.refined, clip.result.frames
    shown = {"before": clip.before}
    if refined is not None:
        shown["after (rolled back)" if refined.rolled_back else "after"] = clip.best
    hw = panels.panel_hw(frames.hw, 1 + len(shown), PANEL_WIDTH, bar=True)
    with Image.open(frames.path(frame)) as image:
        picture = np.asarray(image.convert("RGB").resize((hw[1], hw[0]), Image.Resampling.LANCZOS))
    depths = [colormap.colorize(resize_numpy(maps[frame], hw), clip.range) for maps in shown.values()]
    return panels.side_by_side([picture, *depths], ["frame", *shown], (clip.range, clip.unit), width=PANEL_WIDTH)


def _write_video(clip: _Clip) -> None:
    def told(panels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for picture in panels:
            clip.tell()
            yield picture

    with map_in_order(lambda frame: _panels(clip, frame), len(clip.result.frames)) as panels:
        write_comparison_video(clip.result.folder / "comparison.mp4", told(panels), clip.result.config.output.video_fps)


def _write_pictures(clip: _Clip) -> None:
    folder = clip.result.folder / "pictures"
    frame = len(clip.result.frames) // 2
    _write_picture(folder / "compare.png", _panels(clip, frame))
    refined, aligned = clip.result.refined, clip.result.aligned
    if refined is not None and refined.losses:
        curves = plots.plot_curves(np.array(refined.losses), refined.validation, "relative error")
        _write_picture(folder / "curves.png", curves)
    if aligned is not None:
        observed = np.unique(aligned.observations.frame)
        nearest = int(observed[np.argmin(np.abs(observed - frame))])
        _write_picture(folder / "points.png", points_picture(clip.result.frames, aligned, nearest))


def point_classes(aligned: Aligned) -> np.ndarray:
    """What became of every observation: (M,) of the values of `PointClass`."""
    observations = aligned.observations
    strict = np.zeros(len(observations), bool)
    strict[np.flatnonzero(observations.trainable)[aligned.alignment.strict]] = True
    used = np.where(strict, PointClass.STRICT, PointClass.RELAXED)
    taught = np.where(aligned.selection.mask, used, PointClass.REJECTED)
    return np.where(observations.split != Split.TRAIN, PointClass.HELD_OUT, taught)


def points_picture(frames: FrameSet, aligned: Aligned, frame: int) -> np.ndarray:
    """The frame with its points by class: strict, relaxed, rejected, held out."""
    rows = aligned.observations.frame == frame
    xy_px = pixels_from_grid(aligned.observations.grid[rows], frames.hw)
    classes = [PointClass(str(name)) for name in point_classes(aligned)[rows]]
    return overlays.overlay_points(frames.read(frame).rgb, xy_px, classes)


def _write_clouds(clip: _Clip) -> None:
    sparse, aligned = clip.result.sparse, clip.result.aligned
    if not isinstance(sparse, SparseModel) or aligned is None:
        return
    views = list(sparse.views)
    metres = aligned.alignment.scale if clip.result.kind is DepthKind.METRIC else None
    for name, maps in (("before", clip.maps[Column.ALIGNED]), ("after", clip.best)):
        sfm_units = 1.0 / aligned.alignment.scale

        def posed(chosen: list[int], maps: np.ndarray = maps) -> Iterator[PosedDepth]:
            for i in chosen:
                clip.tell()
                frame = views[i].frame
                yield PosedDepth(clip.result.frames.read(frame).rgb, clip.depth(maps, frame), views[i])

        spread = _spread(len(views), CLOUD_FRAMES)
        cloud = clouds.cloud_from_depth(posed(spread), len(spread), sfm_units)
        clouds.write_ply(clip.result.folder / f"cloud_{name}.ply", cloud, metres)
        few = _spread(len(views), MESH_FRAMES)
        surfaces = meshes.mesh_from_depth(posed(few), len(few), sfm_units)
        meshes.write_glb(clip.result.folder / f"cloud_{name}.glb", surfaces, views, metres)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread, both ends included."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
