"""Export a finished run: trace the network, convert it, verify each file against torch, and time it.

The files get their final names only when all of them have passed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import sfmttr
from sfmttr.errors import DeviceError, NetworkError, RunFolderError
from sfmttr.evaluation.comparison import errors_at_points
from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.io.atomic import atomic_folder
from sfmttr.io.json_files import cache_key, write_json
from sfmttr.networks.base import DepthPredictor, TorchPredictor, source_frames
from sfmttr.networks.weights import sha256_of
from sfmttr.run.finished import FinishedRun
from sfmttr.run.folder import RunFolder
from sfmttr.run.stages import StageName
from sfmttr.types import DepthKind, OnProgress, Progress, ignore_progress

from . import bisect, parity, spec, to_onnx
from .errors import ParityError
from .fp16 import to_fp16
from .kit.builder import build_kit
from .latency import Latency, measure_sizes
from .metadata import model_metadata
from .metric_scale import KnownDepth, ScaledPredictor, metric_scale
from .passes.cpu import optimize_for_cpu
from .quantization.quantizer import Int8Quantizer, LayerError
from .report import Attempt, ExportReport, FileReport, HeldOutReport
from .runtime import OnnxDepth, Provider
from .spec import Graph, Variant

FOLDER = "export"
"""Export folder within the run folder."""
CALIBRATION_FRAMES = 16
FLOAT_LAYERS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
"""Number of the most sensitive layers that stay in float, for successive attempts at int8."""
_CPU = "CPUExecutionProvider"
PROVIDERS: Mapping[str, tuple[Provider, ...]] = {
    "cpu": (_CPU,),
    # TF32 would round to 10 bits of mantissa, and fail the parity check of a correct graph.
    "cuda": (("CUDAExecutionProvider", {"use_tf32": "0"}), _CPU),
}


@dataclass(frozen=True)
class ExportConfig:
    """Settings of an export."""

    variants: tuple[Variant, ...] = tuple(Variant)
    core: bool = False
    """Also export the network alone, for converters to other runtimes."""
    opset: int = spec.DEFAULT_OPSET
    device: str = "cpu"
    """Device on which files are verified and timed: a key of `PROVIDERS`."""
    known_depth: KnownDepth | None = None
    """Converts the output to meters."""
    camera_height_m: float | None = None
    """Height of the camera above the ground; also converts the output to meters."""

    @property
    def in_meters(self) -> bool:
        return self.known_depth is not None or self.camera_height_m is not None


def export_run(
    run: Path, out: Path | None = None, config: ExportConfig | None = None, on_progress: OnProgress = ignore_progress
) -> ExportReport:
    """Export the refined network of the run folder `run` into the folder `out` (None: `export/` in the run folder).

    Every file is verified before it gets its final name. Raises subclasses of `SfmttrError`, e.g. `ParityError`; the
    previous content of `out` then stays.
    """
    config = config or ExportConfig()
    finished = FinishedRun.read(run)
    started = time.perf_counter()
    # Opening the run folder locks it. Its manifest lists the export, so that a new refinement invalidates it.
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
    """Raise `RunFolderError` when `folder`, which will be replaced, is a file or holds files of another origin."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise RunFolderError(f"{existing} is a file; choose a folder")
    ours = {spec.REPORT, spec.KIT, spec.CORE_FILE, *map(spec.file_name, Variant)}
    if folder.is_dir() and not ours.issuperset(path.name for path in folder.iterdir()):
        raise RunFolderError(f"{folder} holds other files, which an export would replace; choose another folder")


def pack(run: Path, out: Path | None = None, *, bundle_runtime: bool = False) -> Path:
    """Build the kit from what `export_run(run, out)` exported: `kit.zip` in the run folder, or in `out` if given.

    Raises subclasses of `SfmttrError`; no kit is written then, and the models stay.
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


class _Export:
    """One export into an empty folder."""

    def __init__(self, run: FinishedRun, folder: Path, config: ExportConfig, on_progress: OnProgress) -> None:
        self._run, self._folder, self._config, self._on_progress = run, folder, config, on_progress
        self._network = run.refined_network()
        self._working_hw = self._network.input_hw(run.frames.hw)
        self._torch = TorchPredictor(self._network, self._working_hw)
        in_meters = config.in_meters
        self._scale = metric_scale(config.known_depth, config.camera_height_m, run, self._torch)
        self._reference = ScaledPredictor(self._torch, self._scale, DepthKind.METRIC if in_meters else run.kind)
        self._held_out = run.held_out()
        self._metadata = model_metadata(run, self._network, self._working_hw, self._scale, in_meters=in_meters)
        self._steps = ["torch", *config.variants, *(["core"] if config.core else []), "timing"]

    def execute(self) -> ExportReport:
        self._report_step("torch")
        exact = self._held_out_errors(self._reference)
        graph = to_onnx.image_graph(self._network, self._working_hw, self._scale, self._config.opset)
        # The reference of the other variants, so it is made even when it was not asked for.
        fp32 = self._write_verified(Variant.FP32, optimize_for_cpu(graph), exact)
        files = {Variant.FP32: fp32}
        if Variant.FP16 in self._config.variants:
            self._report_step(Variant.FP16)
            files[Variant.FP16] = self._write_verified(Variant.FP16, to_fp16(graph), fp32.held_out)
        if Variant.INT8 in self._config.variants:
            self._report_step(Variant.INT8)
            files[Variant.INT8] = self._int8(graph, fp32.held_out)
        core = self._core() if self._config.core else None
        self._report_step("timing")
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

    def _report_step(self, step: str) -> None:
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

    def _held_out_errors(self, predictor: DepthPredictor) -> DepthMetrics | None:
        """Return the errors at the held-out points, in the unit of the export; None without such points."""
        if self._held_out is None:
            return None
        points = self._held_out
        return errors_at_points(predictor, self._run.frames, points.observations, self._scale * points.scale)

    def _write(self, variant: Variant, graph: onnx.ModelProto) -> None:
        to_onnx.save(to_onnx.with_metadata(graph, replace(self._metadata, variant=variant)), self._path(variant))

    def _write_verified(self, variant: Variant, graph: onnx.ModelProto, reference: DepthMetrics | None) -> FileReport:
        """Write a file and compare it with torch. Raises `ParityError` when it violates its tolerance."""
        self._write(variant, graph)
        report = self._compare(variant, reference)
        problem = _violation(variant, report)
        if problem:
            raise self._refusal(self._path(variant).name, problem)
        return report

    def _compare(self, variant: Variant, reference: DepthMetrics | None) -> FileReport:
        """Compare a written file with torch, and its held-out errors with `reference`."""
        predictor = self._predictor(variant)
        try:
            cases = parity.check_image_graph(predictor, self._reference, self._run.frames)
            errors = self._held_out_errors(predictor)
        except (ParityError, NetworkError) as error:
            raise self._refusal(self._path(variant).name, str(error)) from error
        change = None if errors is None or reference is None else errors.abs_rel / reference.abs_rel - 1
        return replace(self._file_report(self._path(variant), cases), held_out=errors, abs_rel_change=change)

    def _file_report(self, path: Path, cases: tuple[parity.ParityCase, ...]) -> FileReport:
        size = path.stat().st_size
        return FileReport(path.name, sha256_of(path), size, size / self._path(Variant.FP32).stat().st_size, cases)

    def _int8(self, graph: onnx.ModelProto, reference: DepthMetrics | None) -> FileReport:
        """Quantize, keeping more of the most sensitive layers in float until the file is within its tolerance."""
        quantizer = Int8Quantizer(graph, self._spaced_inputs(CALIBRATION_FRAMES))
        attempts: list[Attempt] = []
        ranking: Sequence[LayerError] = ()
        for count in [count for count in FLOAT_LAYERS if count in (0, *range(len(quantizer.layers)))]:
            if count and not ranking:
                ranking = quantizer.layer_errors()
            kept = tuple(error.layer for error in ranking[:count])
            self._write(Variant.INT8, quantizer.quantized(kept))
            report = self._compare(Variant.INT8, reference)
            attempts.append(Attempt(kept, report.abs_rel_change))
            problem = _violation(Variant.INT8, report)
            if not problem:
                break
        if problem:
            raise self._refusal(self._path(Variant.INT8).name, problem)
        return replace(report, float_layers=(*kept, *quantizer.always_float), attempts=tuple(attempts))

    def _core(self) -> FileReport:
        self._report_step("core")
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
        return self._file_report(path, cases)

    def _refusal(self, name: str, problem: str) -> ParityError:
        """Return the error for a file that violates its tolerance: what is wrong, where, and what to do."""
        if name in (spec.file_name(Variant.FP16), spec.file_name(Variant.INT8)):
            return ParityError(f"{name} is refused: {problem}.", cli_hint="Leave it out with --variants.")
        images = self._inputs(len(self._run.frames) // 2).values()
        image = torch.cat([self._network.prepare(rgb, self._working_hw) for rgb in images], dim=1)
        mismatch = bisect.locate_mismatch(self._network, image, self._config.opset)
        return ParityError(f"{name} is refused: {problem}. {mismatch}".rstrip())

    # ------------------------------------------------------------------------------------ rest

    def _inputs(self, frame: int) -> dict[str, np.ndarray]:
        """Return the graph's inputs for one frame, by name."""
        rgb = [self._run.frames.read(frame).rgb, *source_frames(self._torch, self._run.frames, frame)]
        return dict(zip(spec.input_names(self._network.source_offsets), rgb, strict=True))

    def _spaced_inputs(self, count: int) -> list[dict[str, np.ndarray]]:
        """Return the graph's inputs for at most `count` frames, evenly spaced over the clip."""
        total = len(self._run.frames)
        chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
        return [self._inputs(int(i)) for i in chosen]

    def _held_out_report(self, exact: DepthMetrics | None) -> HeldOutReport | None:
        comparison = self._run.report.comparison.held_out
        if exact is None or comparison is None:
            return None
        return HeldOutReport(comparison.protocol, self._metadata.unit, exact.count, exact)

    def _time(self, variants: Iterable[Variant]) -> dict[str, Latency]:
        """Time torch and `variants`, each on one thread."""
        predictors: dict[str, DepthPredictor] = {"torch": self._torch}
        if self._network.preferred_memory_format is torch.channels_last:
            network = copy.deepcopy(self._network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            predictors["torch_channels_last"] = TorchPredictor(network, self._working_hw)
        predictors |= {str(variant): self._predictor(variant, threads=1) for variant in variants}
        frame = self._run.frames.read(len(self._run.frames) // 2).rgb
        return measure_sizes(predictors, frame, self._working_hw)


def _violation(variant: Variant, report: FileReport) -> str:
    """Return why a file must not be shipped; empty when it may."""
    tolerance = spec.TOLERANCES[variant]
    problem = parity.violation(report.parity, tolerance)
    change = report.abs_rel_change
    # fp32 has to equal torch; in fewer bits the error may also become smaller by chance.
    worse = change is not None and (abs(change) if variant is Variant.FP32 else change) > tolerance.abs_rel_increase
    if not problem and worse:
        problem = (
            f"its AbsRel at held-out points changed by {change:+.2%}, and {tolerance.abs_rel_increase:.1%} are allowed"
        )
    return problem
