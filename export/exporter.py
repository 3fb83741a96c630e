"""From a finished run to checked files: trace, convert, check each, measure, and only then give them their names."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image

import sfmttr
from sfmttr.errors import ConfigError, DeviceError, NetworkError, RunFolderError
from sfmttr.evaluation.comparison import Column, errors_at_points
from sfmttr.evaluation.ground_plane import camera_height
from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.geometry import resize_numpy
from sfmttr.io.atomic import atomic_folder
from sfmttr.io.depth_maps import read_maps
from sfmttr.io.json_files import cache_key, write_json
from sfmttr.networks.base import DepthNetwork, DepthPredictor, TorchPredictor, source_frames
from sfmttr.networks.fingerprint import weights_hash
from sfmttr.networks.weights import sha256_of
from sfmttr.run.finished import FinishedRun
from sfmttr.run.folder import RunFolder
from sfmttr.run.stages import StageName
from sfmttr.sfm import reconstruction
from sfmttr.types import HW, DepthKind, OnProgress, Progress, ignore_progress

from . import bisect, parity, spec, to_onnx
from .errors import ParityError
from .fp16 import to_fp16
from .kit.builder import build_kit
from .latency import Latency, measure
from .passes.cpu import optimize_for_cpu
from .quantization.quantizer import Int8Quantizer, LayerError
from .report import Attempt, ExportReport, FileReport, HeldOutReport
from .runtime import OnnxDepth, Provider
from .spec import Graph, ModelMetadata, Variant

FOLDER = "export"
"""Within the run folder."""
CALIBRATION_FRAMES = 16
FLOAT_LAYERS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
"""How many of the layers that hurt most are kept in float, from one attempt at int8 to the next."""
HEIGHT_FRAMES = 20
"""Frames that the camera's height is read off."""
_CPU = "CPUExecutionProvider"
PROVIDERS: Mapping[str, tuple[Provider, ...]] = {
    "cpu": (_CPU,),
    # Tensor cores round to 10 bits otherwise, which is no fault of the graph that is checked.
    "cuda": (("CUDAExecutionProvider", {"use_tf32": "0"}), _CPU),
}


@dataclass(frozen=True)
class KnownDepth:
    """Somebody measured how far away a place is: the depth (camera z) at one pixel of one frame."""

    frame: int
    row: int
    column: int
    metres: float


@dataclass(frozen=True)
class ExportConfig:
    """What to export."""

    variants: tuple[Variant, ...] = tuple(Variant)
    core: bool = False
    """The network alone, too, for converters to other runtimes."""
    opset: int = spec.DEFAULT_OPSET
    device: str = "cpu"
    """What onnxruntime is checked and timed on: one of `PROVIDERS`."""
    known_depth: KnownDepth | None = None
    """Makes metres of the network's units."""
    camera_height_m: float | None = None
    """Does so too: how high above the ground the camera was."""

    @property
    def in_metres(self) -> bool:
        return self.known_depth is not None or self.camera_height_m is not None


def export_run(
    run: Path, out: Path | None = None, config: ExportConfig | None = None, on_progress: OnProgress = ignore_progress
) -> ExportReport:
    """Export the refined network of the run folder `run` into the folder `out` (None: `export/` in the run folder).

    Every file is checked before it gets its name. Raises subclasses of `SfmttrError`, `ParityError` among
    them; what was in `out` before is then still there.
    """
    config = config or ExportConfig()
    finished = FinishedRun.read(run)
    started = time.perf_counter()
    # A run folder is locked while something is written into it, and its manifest knows what was: a refinement that is
    # made anew voids what was exported of the old one.
    with RunFolder(run) if out is None else nullcontext() as folder:
        target = out or run / FOLDER
        _refuse_foreign(target)
        with atomic_folder(target) as part:
            report = _Export(finished, part, config, on_progress).execute()
            write_json(part / spec.REPORT, report)
        if folder is not None:
            key = cache_key(report.model.weights_sha256, config)
            folder.record(StageName.EXPORT, key, [target], time.perf_counter() - started, invalidates=(StageName.KIT,))
    return report


def _refuse_foreign(folder: Path) -> None:
    """Raise `RunFolderError` when `folder`, which is about to be replaced, is or holds what no export wrote."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RunFolderError(f"{existing} is a file; choose a folder")
    ours = {spec.REPORT, spec.KIT, spec.CORE_FILE, *map(spec.file_name, Variant)}
    if folder.is_dir() and not ours.issuperset(path.name for path in folder.iterdir()):
        raise RunFolderError(f"{folder} holds other files, which an export would replace; choose another folder")


def pack(run: Path, out: Path | None = None, *, bundle_runtime: bool = False) -> Path:
    """Make the kit of what `export_run(run, out)` exported: `kit.zip` in the run folder, or in `out` if that is given.

    Raises subclasses of `SfmttrError`; there is no kit then, and the models stay as they are.
    """
    if out is not None:
        return build_kit(run, out, out / spec.KIT, bundle_runtime=bundle_runtime)
    started = time.perf_counter()
    with RunFolder(run) as folder:
        path = build_kit(run, run / FOLDER, run / spec.KIT, bundle_runtime=bundle_runtime)
        exported = folder.manifest.stage(StageName.EXPORT)
        key = cache_key("" if exported is None else exported.key, bundle_runtime)
        folder.record(StageName.KIT, key, [path], time.perf_counter() - started)
    return path


@dataclass(frozen=True)
class _Scaled:
    """The torch network in the unit of the export: what every file has to give."""

    predictor: TorchPredictor
    scale: float
    kind: DepthKind

    @property
    def source_offsets(self) -> tuple[int, ...]:
        return self.predictor.source_offsets

    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        """Depth (H, W) float32 of an image (H, W, 3) uint8."""
        return self.predictor.predict(rgb, *source_frames) * np.float32(self.scale)


class _Export:
    """One execution, into an empty folder."""

    def __init__(self, run: FinishedRun, folder: Path, config: ExportConfig, on_progress: OnProgress) -> None:
        self._run, self._folder, self._config, self._on_progress = run, folder, config, on_progress
        self._network = run.refined_network()
        self._working_hw = self._network.input_hw(run.frames.hw)
        self._torch = TorchPredictor(self._network, self._working_hw)
        in_metres = config.in_metres
        self._scale = _scale(config, run, self._torch)
        self._exact = _Scaled(self._torch, self._scale, DepthKind.METRIC if in_metres else run.kind)
        self._held_out = run.held_out()
        self._metadata = _metadata(run, self._network, self._working_hw, self._scale, in_metres=in_metres)
        self._steps = ["torch", *config.variants, *(["core"] if config.core else []), "timing"]

    def execute(self) -> ExportReport:
        self._tell("torch")
        exact = self._judge(self._exact)
        graph = to_onnx.image_graph(self._network, self._working_hw, self._scale, self._config.opset)
        fp32 = self._checked(
            Variant.FP32, optimize_for_cpu(graph), exact
        )  # what the others are judged by, wanted or not
        files = {Variant.FP32: fp32}
        if Variant.FP16 in self._config.variants:
            self._tell(Variant.FP16)
            files[Variant.FP16] = self._checked(Variant.FP16, to_fp16(graph), fp32.held_out)
        if Variant.INT8 in self._config.variants:
            self._tell(Variant.INT8)
            files[Variant.INT8] = self._int8(graph, fp32.held_out)
        core = self._core() if self._config.core else None
        self._tell("timing")
        times = self._time(files)
        provider = self._predictor(Variant.FP32).provider
        if Variant.FP32 not in self._config.variants:
            self._path(Variant.FP32).unlink()
        self._on_progress(Progress(StageName.EXPORT, len(self._steps), len(self._steps)))
        variants = {variant: file for variant, file in files.items() if variant in self._config.variants}
        return ExportReport(
            sfmttr=sfmttr.__version__,
            opset=self._config.opset,
            versions={"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
            model=self._metadata.description,
            tolerances={variant: spec.TOLERANCES[variant] for variant in variants},
            provider=provider,
            held_out=self._held_out_report(exact),
            variants=variants,
            core=core,
            latency=times,
        )

    def _tell(self, step: str) -> None:
        self._on_progress(Progress(StageName.EXPORT, self._steps.index(step), len(self._steps), step, phase=step))

    # ------------------------------------------------------------------------------- one file

    def _path(self, variant: Variant) -> Path:
        return self._folder / spec.file_name(variant)

    def _predictor(self, variant: Variant, threads: int | None = None) -> OnnxDepth:
        predictor = OnnxDepth(self._path(variant), PROVIDERS[self._config.device], threads=threads)
        if self._config.device == "cuda" and predictor.provider == _CPU:
            raise DeviceError(
                "onnxruntime cannot use CUDA here; install onnxruntime-gpu for its version, or ask for cpu"
            )
        return predictor

    def _judge(self, predictor: DepthPredictor) -> DepthMetrics | None:
        """Errors at the held-out points, in the unit of the export."""
        if self._held_out is None:
            return None
        points = self._held_out
        return errors_at_points(predictor, self._run.frames, points.observations, self._scale * points.scale)

    def _write(self, variant: Variant, graph: onnx.ModelProto) -> None:
        to_onnx.save(to_onnx.with_metadata(graph, replace(self._metadata, variant=variant)), self._path(variant))

    def _checked(self, variant: Variant, graph: onnx.ModelProto, reference: DepthMetrics | None) -> FileReport:
        """Write a file and compare it; raise when it is not as good as it has to be."""
        self._write(variant, graph)
        report = self._compared(variant, reference)
        problem = _violation(variant, report)
        if problem:
            raise self._refusal(self._path(variant).name, problem)
        return report

    def _compared(self, variant: Variant, reference: DepthMetrics | None) -> FileReport:
        """How a file that was written compares with torch, and at held-out points with `reference`."""
        predictor = self._predictor(variant)
        try:
            cases = parity.check_image_graph(predictor, self._exact, self._run.frames)
            errors = self._judge(predictor)
        except (ParityError, NetworkError) as error:
            raise self._refusal(self._path(variant).name, str(error)) from error
        change = None if errors is None or reference is None else errors.abs_rel / reference.abs_rel - 1
        return replace(self._described(self._path(variant), cases), held_out=errors, abs_rel_change=change)

    def _described(self, path: Path, cases: tuple[parity.ParityCase, ...]) -> FileReport:
        size = path.stat().st_size
        return FileReport(path.name, sha256_of(path), size, size / self._path(Variant.FP32).stat().st_size, cases)

    def _int8(self, graph: onnx.ModelProto, reference: DepthMetrics | None) -> FileReport:
        """Keep ever more of the layers that hurt in float, until the file is as good as it has to be."""
        quantizer = Int8Quantizer(graph, self._frames(CALIBRATION_FRAMES))
        attempts: list[Attempt] = []
        ranking: Sequence[LayerError] = ()
        for count in [count for count in FLOAT_LAYERS if count in (0, *range(len(quantizer.layers)))]:
            if count and not ranking:
                ranking = quantizer.layer_errors()
            kept = tuple(error.layer for error in ranking[:count])
            self._write(Variant.INT8, quantizer.quantized(kept))
            report = self._compared(Variant.INT8, reference)
            attempts.append(Attempt(kept, report.abs_rel_change))
            problem = _violation(Variant.INT8, report)
            if not problem:
                break
        if problem:
            raise self._refusal(self._path(Variant.INT8).name, problem)
        return replace(report, float_layers=(*kept, *quantizer.always_float), attempts=tuple(attempts))

    def _core(self) -> FileReport:
        self._tell("core")
        traced, sizes = parity.core_sizes(self._network, self._run.frames.hw)
        graph = to_onnx.core_graph(self._network, traced, self._scale, self._config.opset)
        path = self._folder / spec.CORE_FILE
        to_onnx.save(to_onnx.with_metadata(graph, replace(self._metadata, graph=Graph.CORE)), path)
        providers = PROVIDERS[self._config.device]
        try:
            cases = parity.check_core_graph(path, self._network, sizes, self._scale, self._run.frames, providers)
        except ParityError as error:
            raise self._refusal(path.name, str(error)) from error
        problem = parity.violation(cases, spec.TOLERANCES[Variant.FP32])
        if problem:
            raise self._refusal(path.name, problem)
        return self._described(path, cases)

    def _refusal(self, name: str, problem: str) -> ParityError:
        """The error for a file that is not good enough: what is wrong, where, and what to do."""
        if name in (spec.file_name(Variant.FP16), spec.file_name(Variant.INT8)):
            return ParityError(f"{name} is refused: {problem}.", cli_hint="Leave it out with --variants.")
        pictures = self._pictures(len(self._run.frames) // 2).values()
        image = torch.cat([self._network.prepare(rgb, self._working_hw) for rgb in pictures], dim=1)
        place = bisect.locate_mismatch(self._network, image, self._config.opset)
        return ParityError(f"{name} is refused: {problem}. {place}".rstrip())

    # ------------------------------------------------------------------------------------ rest

    def _pictures(self, frame: int) -> dict[str, np.ndarray]:
        """What goes in for one frame, by the input's name."""
        rgb = [self._run.frames.read(frame).rgb, *source_frames(self._torch, self._run.frames, frame)]
        return dict(zip(spec.input_names(self._network.source_offsets), rgb, strict=True))

    def _frames(self, count: int) -> list[dict[str, np.ndarray]]:
        """What goes in for at most so many frames, evenly over the clip."""
        total = len(self._run.frames)
        chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
        return [self._pictures(int(i)) for i in chosen]

    def _held_out_report(self, exact: DepthMetrics | None) -> HeldOutReport | None:
        comparison = self._run.report.comparison.held_out
        if exact is None or comparison is None:
            return None
        return HeldOutReport(comparison.protocol, self._metadata.unit, exact.count, exact)

    def _time(self, variants: Iterable[Variant]) -> dict[str, Latency]:
        """On a frame as it is, and at the network's own size, where resizing costs next to nothing."""
        predictors: dict[str, DepthPredictor] = {"torch": self._torch}
        if self._network.preferred_memory_format is torch.channels_last:
            other = copy.deepcopy(self._network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            predictors["torch_channels_last"] = TorchPredictor(other, self._working_hw)
        predictors |= {str(variant): self._predictor(variant, threads=1) for variant in variants}
        frame = self._run.frames.read(len(self._run.frames) // 2).rgb
        small = np.asarray(Image.fromarray(frame).resize(self._working_hw[::-1]))
        return {"frame": measure(predictors, frame), "working": measure(predictors, small)}


def _metadata(
    run: FinishedRun, network: DepthNetwork, working_hw: HW, scale: float, *, in_metres: bool
) -> ModelMetadata:
    held_out = run.report.comparison.held_out
    refined = None if held_out is None else held_out.after
    return ModelMetadata(
        schema=spec.SCHEMA,
        version=sfmttr.__version__,
        graph=Graph.IMAGE,
        variant=Variant.FP32,
        network=run.info.name,
        network_source=run.info.source,
        network_licence=run.info.licence,
        kind=DepthKind.METRIC if in_metres else run.kind,
        unit="metres" if in_metres else run.unit,
        scale=scale,
        refined=not run.rolled_back,
        preset=run.report.preset,
        weights_sha256=weights_hash(network),
        clip_sha256=run.frames.content_hash,
        clip_frames=len(run.frames),
        frame_hw=run.frames.hw,
        working_hw=working_hw,
        held_out_abs_rel_before=run.held_out_abs_rel(Column.BEFORE),
        held_out_abs_rel_after=run.held_out_abs_rel(Column.AFTER),
        held_out_points=0 if refined is None else refined.count,
        neighbours=network.source_offsets,
    )


def _scale(config: ExportConfig, run: FinishedRun, predictor: TorchPredictor) -> float:
    """What the network's depth has to be multiplied with. Raises `ConfigError` when two things ask for it."""
    if config.known_depth is not None and config.camera_height_m is not None:
        raise ConfigError("give a known depth or the camera's height, not both: they may contradict each other")
    if config.known_depth is not None:
        return _metres_per_unit(config.known_depth, run, predictor)
    if config.camera_height_m is not None:
        return _metres_by_height(config.camera_height_m, run)
    return 1.0


def _metres_by_height(height_m: float, run: FinishedRun) -> float:
    """By the ground plane in the refined depth. Raises `AlignmentError` when too few frames show it."""
    if not (math.isfinite(height_m) and height_m > 0):
        raise ConfigError(f"the camera's height is {height_m} m; it has to be more than 0")
    maps = read_maps(run.folder / "depth" / f"{Column.AFTER}.npz")
    views = reconstruction.load_model(run.frames, run.folder / "sfm").views
    few = views[:: max(1, len(views) // HEIGHT_FRAMES)]
    return height_m / camera_height((resize_numpy(maps[v.frame], run.frames.hw), v.camera) for v in few)


def _metres_per_unit(known: KnownDepth, run: FinishedRun, predictor: TorchPredictor) -> float:
    """What the network's depth has to be multiplied with. Raises `ConfigError` for a place that is in no frame."""
    h, w = run.frames.hw
    if not 0 <= known.frame < len(run.frames):
        raise ConfigError(
            f"frame {known.frame} of the known depth is not in the run: it has 0 to {len(run.frames) - 1}"
        )
    if not (0 <= known.row < h and 0 <= known.column < w):
        raise ConfigError(f"row {known.row}, column {known.column} of the known depth are outside of {h} x {w}")
    if not (math.isfinite(known.metres) and known.metres > 0):
        raise ConfigError(f"the known depth is {known.metres} m; it has to be more than 0")
    depth = predictor.predict(run.frames.read(known.frame).rgb, *source_frames(predictor, run.frames, known.frame))
    return known.metres / float(depth[known.row, known.column])


def _violation(variant: Variant, report: FileReport) -> str:
    """What keeps a file from being shipped; empty when nothing does."""
    tolerance = spec.TOLERANCES[variant]
    problem = parity.violation(report.parity, tolerance)
    change = report.abs_rel_change
    # fp32 has to be the same as torch; fewer bits are also welcome to be better by chance
    worse = change is not None and (abs(change) if variant is Variant.FP32 else change) > tolerance.abs_rel_increase
    if not problem and worse:
        problem = (
            f"its AbsRel at held-out points changed by {change:+.2%}, and {tolerance.abs_rel_increase:.1%} are allowed"
        )
    return problem
