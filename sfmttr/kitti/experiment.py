"""`evaluate kitti`: the paper's experiment on KITTI's drives, from raw folders to its table.

For each drive: structure-from-motion, then the prediction of each network and a refinement for each objective. Every
refinement is an ordinary run in its own folder, so that an interrupted experiment resumes.

Setting "paper": one reconstruction of the whole drive; preset `paper`; training on the evaluated frames, with the
adjacent frames as source views; no trust gate. Setting "ours": preset `default` on the drive as an ordinary clip, with
the trust gate. A drive without a trusted reconstruction is evaluated with the original network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfmttr import networks
from sfmttr.config import Objective, OutputConfig, Preset, RunConfig, VideoConfig
from sfmttr.evaluation.comparison import Column, ColumnErrors, DistanceErrors, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import GroundTruth
from sfmttr.evaluation.metrics import DepthMetrics, ProtocolName, mean_over_frames, pool, protocol
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.atomic import atomic_file
from sfmttr.io.json_files import cache_key, write_json
from sfmttr.kitti.config import ALIGNED, NONE, KittiConfig, Setting
from sfmttr.kitti.dataset import DEPTH_SCALE, Drive, find_drives, missing_drives
from sfmttr.kitti.table import PaperTable, Row
from sfmttr.networks.fingerprint import weights_hash
from sfmttr.networks.huggingface.model_id import as_file_name
from sfmttr.networks.inference import predict_maps, prepare_images
from sfmttr.networks.inverse_depth import unshifted_depth
from sfmttr.networks.weights import cache_folder
from sfmttr.run import pipeline
from sfmttr.run.report import read_report
from sfmttr.sfm import reconstruction
from sfmttr.types import DepthKind, FrameSet, NoModel, OnProgress, Progress, ignore_progress
from sfmttr.utils.device import choose_compute

TABLE = "table"
"""Stem of the output files: `table.txt`, `table.csv`, `table.json`."""


_PRESETS = {Setting.PAPER: Preset.PAPER, Setting.OURS: Preset.DEFAULT}
# No frame is dropped.
_ALL_FRAMES = VideoConfig(max_frames=1_000_000, duplicate_threshold=0.0)


@dataclass(frozen=True)
class _Scores:
    """Errors of one network with one objective on one drive."""

    drive: str
    frames: tuple[DepthMetrics, ...]
    by_distance: tuple[DistanceErrors, ...]
    refined: bool


def run_experiment(config: KittiConfig, on_progress: OnProgress = ignore_progress) -> PaperTable:
    """Run what is missing, and write the table into `config.out` after every drive.

    Raises subclasses of `SfmttrError`. Calling it again resumes.
    """
    drives = find_drives(config.raw, config.depth, config.split, config.sequences)
    # Loaded first, so that missing weights are reported now and not after hours.
    kinds = {name: networks.load(name, config.weights_dir, on_progress).info.kind for name in config.networks}
    scores: dict[tuple[str, str, str, str], list[_Scores]] = {}
    for done, drive in enumerate(drives, start=1):
        on_progress(Progress("drives", done - 1, len(drives), drive.name))
        for key, found in _DriveExperiment(config, drive, kinds, on_progress).scores():
            scores.setdefault(key, []).append(found)
        table = _table(config, scores, missing_drives(drives))
        write_table(table, config.out)
    on_progress(Progress("drives", len(drives), len(drives)))
    return table


def write_table(table: PaperTable, folder: Path) -> None:
    """Write `table.txt`, `table.csv` and `table.json`, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in (("txt", table.text()), ("csv", table.csv())):
        with atomic_file(folder / f"{TABLE}.{suffix}") as part:
            part.write_text(content, encoding="utf-8")
    write_json(folder / f"{TABLE}.json", table.to_json())


def _table(
    config: KittiConfig, scores: Mapping[tuple[str, str, str, str], Sequence[_Scores]], missing: tuple[str, ...]
) -> PaperTable:
    rows = []
    for (network, objective, setting, scaling), drives in scores.items():
        frames = [metrics for drive in drives for metrics in drive.frames]
        ranges = [_joined(parts) for parts in zip(*(drive.by_distance for drive in drives), strict=True)]
        rows.append(
            Row(
                network=network,
                objective=objective,
                setting=setting,
                scaling=scaling,
                metrics=mean_over_frames(frames),
                by_distance=tuple(ranges),
                frames=sum(1 for metrics in frames if metrics.count),
                drives=len(drives),
                unrefined=tuple(drive.drive for drive in drives if not drive.refined),
            )
        )
    rules = protocol(ProtocolName.KITTI)
    description = rules.describe().replace("per-frame median scaling", "scaling by frame as named")
    return PaperTable(tuple(rows), description, str(config.split), missing)


def _joined(parts: Sequence[DistanceErrors]) -> DistanceErrors:
    """Pool one range of distances over several frames or drives."""
    return DistanceErrors(parts[0].near, parts[0].far, pool(part.metrics for part in parts))


class _DriveExperiment:
    """All runs on one drive."""

    def __init__(
        self, config: KittiConfig, drive: Drive, kinds: Mapping[str, DepthKind], on_progress: OnProgress
    ) -> None:
        self._config, self._drive, self._kinds, self._on_progress = config, drive, kinds, on_progress
        self._folder = config.out / drive.name

    def scores(self) -> Iterator[tuple[tuple[str, str, str, str], _Scores]]:
        """Yield (network, objective, setting, scaling) and its scores."""
        for network in self._config.networks:
            for objective in self._config.objectives:
                settings = [""] if objective == NONE else list(map(str, self._config.settings))
                for setting in settings:
                    frames, maps, refined = self._maps(network, objective, setting)
                    for scaling in self._scalings(network):
                        found = self._score(network, frames, maps, scaling, refined=refined)
                        yield (network, objective, setting, scaling), found

    def _scalings(self, network: str) -> tuple[str, ...]:
        return ("none", "median") if self._kinds[network] is DepthKind.METRIC else ("median",)

    # ---------------------------------------------------------------------------------- depth

    def _maps(self, network: str, objective: str, setting: str) -> tuple[FrameSet, np.ndarray, bool]:
        """Return the frames, their depth maps, and False if the original network stands in for a refinement."""
        if objective == NONE:
            frames = self._frames(Setting.PAPER)
            return frames, self._unrefined(network, frames), True
        run = self._run(network, objective, Setting(setting))
        if run is None:
            frames = self._frames(Setting.PAPER)
            return frames, self._unrefined(network, frames), False
        report = read_report(run)
        frames = loader.frame_set_from_folder(run / "frames")
        if objective == ALIGNED and report.alignment is not None:
            return frames, depth_maps.read_aligned(run / "depth", report.alignment.network_scale), True
        if report.refinement is None:
            return frames, depth_maps.read_maps(run / "depth" / f"{Column.BEFORE}.npz"), False
        return frames, depth_maps.read_maps(run / "depth" / f"{Column.AFTER}.npz"), True

    def _unrefined(self, name: str, frames: FrameSet) -> np.ndarray:
        """Return the original network's depth, stored once; disparity is converted without a shift."""
        network = networks.load(name, self._config.weights_dir, self._on_progress)
        key = cache_key(frames.content_hash, [name, weights_hash(network)])
        path = self._folder / "unrefined" / f"{as_file_name(name)}-{key[:16]}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            compute = choose_compute(self._config.device)
            maps = predict_maps(network, prepare_images(network, frames), compute, "before", self._on_progress)
            if network.info.kind is DepthKind.AFFINE_DISPARITY:
                maps = unshifted_depth(maps)
            depth_maps.write_maps(path, maps, network.info.kind.as_depth, frames)
        return depth_maps.read_maps(path)

    def _run(self, network: str, objective: str, setting: Setting) -> Path | None:
        """Return the folder of a finished run; None if the drive has no reconstruction."""
        config = self._config
        clip, whole = self._clip(setting), setting is Setting.OURS and self._is_a_clip
        model = None if whole else self._model()
        if not whole and model is None:
            return None
        # The aligned scale is a by-product of any run: one step suffices.
        minimised, steps = (Objective.SFM, 1) if objective == ALIGNED else (Objective(objective), config.steps)
        out = self._folder / f"{as_file_name(network)}-{setting}-{objective}"
        pipeline.run(
            clip,
            out,
            RunConfig(
                network=network,
                weights_dir=config.weights_dir,
                preset=_PRESETS[setting],
                steps=steps,
                objective=minimised,
                train_frames=self._drive.evaluated if setting is Setting.PAPER else None,
                video=_ALL_FRAMES,
                sfm=replace(config.sfm, model_folder=model),
                output=OutputConfig(pictures=False, clouds=False),
                device=config.device,
                seed=config.seed,
                force=setting is Setting.PAPER,
            ),
            self._on_progress,
        )
        return out

    # ------------------------------------------------------------------------ frames and reconstruction

    @property
    def _is_a_clip(self) -> bool:
        return len(self._drive.files) <= self._config.clip_frames and self._config.models is None

    def _selected_files(self, setting: Setting) -> list[str]:
        """Return the files of the evaluated frames and their neighbors; in "ours" also others, evenly spaced."""
        names, evaluated = self._drive.names, set(self._drive.evaluated)
        near = {
            j for i, name in enumerate(names) if name in evaluated for j in (i - 1, i, i + 1) if 0 <= j < len(names)
        }
        if setting is Setting.OURS:
            room = max(0, self._config.clip_frames - len(near))
            near |= set(np.unique(np.linspace(0, len(names) - 1, min(room, len(names))).round().astype(int)).tolist())
            if self._is_a_clip:
                near = set(range(len(names)))
        return [self._drive.files[i] for i in sorted(near)]

    def _clip(self, setting: Setting) -> Path:
        """Return a folder of the selected frames under their own names, made once."""
        images = self._folder / f"clip-{setting}"
        images.mkdir(parents=True, exist_ok=True)
        for file in self._selected_files(setting):
            if not (images / file).is_file():
                _link(self._drive.folder / file, images / file)
        return images

    def _frames(self, setting: Setting) -> FrameSet:
        """Return the selected frames, stored once."""
        stored = self._folder / f"frames-{setting}"
        if stored.is_dir():
            return loader.frame_set_from_folder(stored)
        return loader.load_frames(self._clip(setting), _ALL_FRAMES, stored, self._on_progress)

    def _model(self) -> Path | None:
        """Return a COLMAP model of the drive, given or reconstructed once; None if there is none."""
        if self._config.models is not None:
            given = self._config.models / self._drive.name
            return next((path for path in (given / "sparse", given) if path.is_dir()), None)
        folder = self._folder / "sfm"
        failed = self._folder / "no-model.json"
        if failed.is_file():
            return None
        if not folder.is_dir():
            frames = self._drive.frames()
            model = reconstruction.reconstruct(
                frames, self._config.sfm, folder, self._on_progress, cache_folder() / "sfm"
            )
            if isinstance(model, NoModel):
                write_json(failed, {"advice": model.advice, "attempts": model.attempts})
                return None
        return folder

    # ---------------------------------------------------------------------------------- scores

    def _score(self, network: str, frames: FrameSet, maps: np.ndarray, scaling: str, *, refined: bool) -> _Scores:
        rules = protocol(ProtocolName.KITTI, median_scaling=scaling == "median")
        truth = self._drive.ground_truth(frames)
        kind = self._kinds[network].as_depth
        per_frame, binned = [], []
        for frame, path in truth.files.items():
            one = GroundTruth({frame: path}, DEPTH_SCALE)
            comparison = compare_with_ground_truth({Column.BEFORE: maps}, kind, one, rules)
            assert comparison is not None, "the frame has ground truth"
            errors: ColumnErrors = comparison.columns[Column.BEFORE]
            per_frame.append(errors.overall)
            binned.append(errors.by_distance)
        by_distance = tuple(_joined(parts) for parts in zip(*binned, strict=True))
        return _Scores(self._drive.name, tuple(per_frame), by_distance, refined)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
