"""Output files of a run: depth maps, pictures, video, point clouds and meshes.

depth/{before,after,before_fused,after_fused}.npz   float32 maps of the clip, at the resolution they are computed at
depth/{disparity,aligned}.npz                       likewise, of a network that gives disparity
depth/{refined,fused}/000000.png (.exr)             frame size, 16 bit, scale in the file's text
coloured/{before,refined}/000000.png                one color range for the clip
comparison.mp4  cloud_{before,after}.{ply,glb}  pictures/*.png
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
"""Width in pixels of the video and of `compare.png`, with captions and color bar."""
CLOUD_FRAMES = 20
"""Most frames that contribute to a PLY; neighboring frames see the same surfaces."""
MESH_FRAMES = 5
"""Surfaces in a GLB: enough to walk around in, small enough to load on a phone."""


@dataclass  # not frozen: cached properties are stored in it
class _Clip:
    """Input of all writers: the result and its depth maps."""

    result: RunResult
    maps: Maps
    unit: str
    check_cancelled: Callable[[], None]
    """Called for every frame that is written; raises `Cancelled` when the run was stopped."""

    @property
    def before(self) -> np.ndarray:
        """(N, h, w): unrefined depth as pictures show it.

        For a network that predicts disparity this is the aligned depth: without its shift, a picture would show little
        else than the missing shift.
        """
        aligned = self.result.aligned
        is_disparity = aligned is not None and aligned.alignment.inverse is not None
        return self.maps.get(Column.ALIGNED if is_disparity else Column.BEFORE, self.maps[Column.BEFORE])

    @property
    def best(self) -> np.ndarray:
        """(N, h, w): depth that the run results in: refined, or unrefined when the clip was not refined."""
        return self.maps.get(Column.AFTER, self.before)

    @property
    def best_fused(self) -> np.ndarray | None:
        """(N, h, w): fused refined depth, or None when the clip was not refined."""
        return self.maps.get(Column.AFTER_FUSED)

    @cached_property
    def range(self) -> ColorRange:
        """Color range of all pictures of the clip."""
        shown = [self.before, self.maps[Column.AFTER]] if Column.AFTER in self.maps else [self.before]
        return colormap.color_range(frame for values in shown for frame in values)

    def depth(self, maps: np.ndarray, frame: int) -> Depth:
        """Return the depth of one frame, resized to the size of the stored frames."""
        return Depth(resize_numpy(maps[frame], self.result.frames.hw), self.result.kind)

    def stem(self, frame: int) -> str:
        return Path(self.result.frames.files[frame]).stem


def _clear(folder: Path) -> None:
    """Delete everything that `write_all` wrote: it may belong to other frames or to an earlier refinement."""
    for path in written_files(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def written_files(folder: Path) -> list[Path]:
    """Return those files and folders of `write_all` that exist."""
    return [path for path in (folder / name for name in (*FOLDERS, *FILES)) if path.exists()]


def write_all(result: RunResult, maps: Maps, on_progress: OnProgress) -> None:
    """Write depth, pictures, video and clouds, replacing everything that an earlier run wrote."""
    _clear(result.folder)
    unit = "m" if result.kind is DepthKind.METRIC else "network units"
    now = Progress("outputs", 0, 1)
    stopped = threading.Event()

    def check_cancelled() -> None:
        if stopped.is_set():
            raise Cancelled("stopped")
        on_progress(now)

    clip = _Clip(result, maps, unit, check_cancelled)
    config = result.config.output
    jobs: list[tuple[str, Callable[[_Clip], None]]] = [("depth", _write_depth)]
    if config.pictures:
        jobs += [("colours", _write_coloured), ("video", _write_video), ("pictures", _write_pictures)]
    # Clouds take one thread; everything else is written meanwhile.
    with ThreadPoolExecutor(max_workers=1) as background:
        if config.clouds and isinstance(result.sparse, SparseModel) and result.refined is not None:
            clouds_made = background.submit(_write_clouds, clip)
            jobs.append(("clouds", lambda _: clouds_made.result()))
        try:
            for i, (name, job) in enumerate(jobs):
                now = Progress("outputs", i, len(jobs), name)
                on_progress(now)
                job(clip)
        except BaseException:
            stopped.set()  # else the clouds would be completed first
            raise
    on_progress(Progress("outputs", len(jobs), len(jobs)))


def _each_frame(clip: _Clip, write: Callable[[int], None]) -> None:
    """Call `write` for every frame, on several threads."""
    with map_in_order(write, len(clip.result.frames)) as written:
        for _ in written:
            clip.check_cancelled()


def png_scale(clip_maps: list[np.ndarray], kind: DepthKind) -> PngScale:
    """Return one scale that holds the largest depth of `clip_maps`, for every PNG of the clip."""
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
            # A palette takes a third of the bytes and of the time to compress them.
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
    """Return frame, depth before and depth after side by side, with captions and one color bar."""
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
    def cancellable(panels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for picture in panels:
            clip.check_cancelled()
            yield picture

    with map_in_order(lambda frame: _panels(clip, frame), len(clip.result.frames)) as panels:
        write_comparison_video(
            clip.result.folder / "comparison.mp4", cancellable(panels), clip.result.config.output.video_fps
        )


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
    """Return the class of every observation: (M,) values of `PointClass`."""
    observations = aligned.observations
    strict = np.zeros(len(observations), bool)
    strict[np.flatnonzero(observations.trainable)[aligned.alignment.strict]] = True
    used = np.where(strict, PointClass.STRICT, PointClass.RELAXED)
    trained = np.where(aligned.selection.mask, used, PointClass.REJECTED)
    return np.where(observations.split != Split.TRAIN, PointClass.HELD_OUT, trained)


def points_picture(frames: FrameSet, aligned: Aligned, frame: int) -> np.ndarray:
    """Draw the points of a frame over it, colored by class: strict, relaxed, rejected, held out."""
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
                clip.check_cancelled()
                frame = views[i].frame
                yield PosedDepth(clip.result.frames.read(frame).rgb, clip.depth(maps, frame), views[i])

        of_cloud = _evenly_spaced(len(views), CLOUD_FRAMES)
        cloud = clouds.cloud_from_depth(posed(of_cloud), len(of_cloud), sfm_units)
        clouds.write_ply(clip.result.folder / f"cloud_{name}.ply", cloud, metres)
        of_mesh = _evenly_spaced(len(views), MESH_FRAMES)
        surfaces = meshes.mesh_from_depth(posed(of_mesh), len(of_mesh), sfm_units)
        meshes.write_glb(clip.result.folder / f"cloud_{name}.glb", surfaces, views, metres)


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, evenly spaced, both ends included."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
