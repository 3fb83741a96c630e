"""From a clip to a refined network: the stages in order, each skipped when its result is already in the run folder.

frames -> sfm -> before -> (align, trust gate) -> refine -> after -> fuse -> compare -> outputs -> report.json
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sfmttr import networks
from sfmttr.config import GroundTruthConfig, RunConfig
from sfmttr.errors import AlignmentError, ConfigError
from sfmttr.evaluation.comparison import Column, Maps
from sfmttr.evaluation.ground_truth import check_folder, find_companion_ground_truth, match_ground_truth
from sfmttr.frames import loader
from sfmttr.io.atomic import explain_mkdir_errors
from sfmttr.io.json_files import cache_key
from sfmttr.refinement.backend import Backend, LocalBackend, OnStep, ignore_step
from sfmttr.refinement.task import RefineResult
from sfmttr.run import outputs, report
from sfmttr.run.align_stage import align_prediction, depth_aligned, depth_before
from sfmttr.run.cleanup import delete_failed_run, missing_folders
from sfmttr.run.compare_stage import compare
from sfmttr.run.context import RunContext
from sfmttr.run.folder import RunFolder
from sfmttr.run.frames_stage import choose_frames
from sfmttr.run.fuse_stage import fused_depth
from sfmttr.run.prediction_stage import UnrefinedPrediction
from sfmttr.run.refine_stage import depth_after, refine, refinement_key
from sfmttr.run.results import Aligned, RunResult
from sfmttr.run.sfm_stage import reconstruct
from sfmttr.run.stage_runner import StageRunner
from sfmttr.run.stages import StageName
from sfmttr.sfm import reconstruction
from sfmttr.sfm.intrinsics import parse_intrinsics
from sfmttr.types import NoModel, OnProgress, SparseModel, ignore_progress


def run(
    clip: Path,
    out: Path,
    config: RunConfig,
    on_progress: OnProgress = ignore_progress,
    on_step: OnStep = ignore_step,
    backend: Backend | None = None,
) -> RunResult:
    """Refine `config.network` on `clip` and write everything into the run folder `out`.

    Networks run on `backend`; without one, in this process on `config.device`.
    A second call with the same `out` resumes at the first stage that is missing or whose settings have changed.
    Raises subclasses of `SfmttrError` for everything that the user can cause or cure, and then leaves no half-written
    run.
    """
    with explain_mkdir_errors(out):
        created = missing_folders(out)
    is_ours = False
    try:
        with RunFolder(out) as folder:
            is_ours = True  # otherwise another process may be at work in it
            return _run(clip, folder, config, on_progress, on_step, backend or LocalBackend(config.device))
    except BaseException as error:
        if is_ours:
            delete_failed_run(out, created, error)
        raise


def _run(
    clip: Path, folder: RunFolder, config: RunConfig, on_progress: OnProgress, on_step: OnStep, backend: Backend
) -> RunResult:
    ground_truth = config.ground_truth or find_companion_ground_truth(clip)
    _ = backend.device  # a missing device is an error before anything is loaded
    network = networks.load(config.network, config.weights_dir, on_progress)
    _check_inputs(clip, config, ground_truth)
    stages = StageRunner(folder, on_progress)
    frames = choose_frames(stages, clip, config.video, on_progress)
    if ground_truth is not None:
        match_ground_truth(frames, ground_truth.folder, ground_truth.scale)
    folder.describe(config, config.seed)  # only now: all inputs can be used
    context = RunContext(config, frames, network, backend, stages, on_progress, on_step)

    prediction = UnrefinedPrediction(context)
    sparse = reconstruct(context, prediction)
    if isinstance(sparse, NoModel):
        prediction.drop_features()
    raw = prediction.run()
    aligned, advice = _align_or_advise(context, sparse, raw)
    maps: dict[Column, np.ndarray] = {Column.BEFORE: depth_before(context, raw, aligned)}
    refined = None
    if isinstance(sparse, SparseModel) and aligned is not None and _may_refine(aligned, config):
        key = refinement_key(context)
        refined = refine(context, sparse, aligned, raw, prediction.take_features(), key)
        maps |= _refined_maps(context, aligned, raw, refined, key)
    else:
        prediction.drop_features()
        stages.delete_refinement()
    result = RunResult(
        folder=folder.path,
        config=config,
        network=network.info.name,
        licence=network.info.licence,
        kind=context.depth_kind,
        frames=frames,
        sparse=sparse,
        aligned=aligned,
        refined=refined,
        comparisons=compare(context, maps, None if refined is None else aligned, ground_truth),
        advice=advice,
    )
    _write_outputs(context, result, maps)
    result = replace(result, timings_s=dict(stages.timings_s))
    report.write_report(result)
    return result


def _check_inputs(clip: Path, config: RunConfig, ground_truth: GroundTruthConfig | None) -> None:
    """Raise `SfmttrError` for every input that can be checked before time is spent on the clip."""
    if ground_truth is not None:
        check_folder(ground_truth.folder, ground_truth.scale)
    if not config.sfm.time_limit_s > 0:
        raise ConfigError(f"a time limit of {config.sfm.time_limit_s:g} s leaves none; give one above 0")
    if config.sfm.model_folder is not None:
        if config.intrinsics is not None:
            raise ConfigError("a given model has cameras of its own; leave out the intrinsics, or the model")
        reconstruction.model_identity(config.sfm.model_folder)
    if config.intrinsics is not None:
        hw = loader.probe(clip, config.video).hw
        parse_intrinsics(config.intrinsics, hw, hw)


def _align_or_advise(context: RunContext, sparse: SparseModel | NoModel, raw: np.ndarray) -> tuple[Aligned | None, str]:
    """Return the alignment, if there is one, and what to do when the clip cannot be refined (else empty)."""
    if isinstance(sparse, NoModel):
        return None, sparse.advice
    try:
        aligned = align_prediction(context, sparse, raw)
    except AlignmentError as error:
        return None, str(error)
    return aligned, "" if _may_refine(aligned, context.config) else aligned.trust.statement


def _may_refine(aligned: Aligned, config: RunConfig) -> bool:
    return aligned.trust.trusted or config.force


def _refined_maps(
    context: RunContext, aligned: Aligned, raw: np.ndarray, refined: RefineResult, key: str
) -> dict[Column, np.ndarray]:
    """Depth maps (N, h, w) that only a refined clip has. `key`: `cache_key` of the refinement."""
    aligned_maps = depth_aligned(context, raw, aligned.alignment)
    after = depth_after(context, aligned, raw, refined, key)
    return {
        Column.ALIGNED: aligned_maps,
        Column.BEFORE_FUSED: fused_depth(context, StageName.BEFORE_FUSED, aligned_maps, aligned, key),
        Column.AFTER: after,
        Column.AFTER_FUSED: fused_depth(context, StageName.AFTER_FUSED, after, aligned, key),
    }


def _write_outputs(context: RunContext, result: RunResult, maps: Maps) -> None:
    config, path = context.config, context.stages.path
    source: list[Any] = [context.network_key, refinement_key(context), result.refined is not None, config.fuse]
    context.stages.run(
        StageName.OUTPUTS,
        cache_key("outputs", [source, config.output]),
        lambda: outputs.written_files(path),
        lambda: outputs.write_all(result, maps, context.on_progress),
        lambda: None,
    )
