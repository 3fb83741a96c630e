"""Structure-from-motion as a stage; the unrefined network predicts meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sfmttr.config import SfmConfig
from sfmttr.io.json_files import cache_key
from sfmttr.networks.weights import cache_folder
from sfmttr.run.context import RunContext
from sfmttr.run.prediction_stage import UnrefinedPrediction
from sfmttr.run.stages import StageName
from sfmttr.sfm import reconstruction
from sfmttr.sfm.intrinsics import parse_intrinsics
from sfmttr.sfm.protocol import SfmPhase
from sfmttr.types import NoModel, Progress, SparseModel
from sfmttr.utils.background import BackgroundTask


def reconstruction_cache_folder() -> Path:
    """Return the folder in which reconstructions are kept for later runs on the same frames."""
    return cache_folder() / "sfm"


def reconstruct(context: RunContext, prediction: UnrefinedPrediction) -> SparseModel | NoModel:
    """Find cameras and points of the frames.

    Mapping leaves most cores idle, so the unrefined prediction is computed at the same time where it is missing.
    A `NoModel` is not recorded: with more time, the next run may find a model.
    """
    folder, config = context.stages.path / "sfm", _with_intrinsics(context)
    given = config.model_folder
    settings = config if given is None else [config, reconstruction.model_identity(given)]
    return context.stages.run(
        StageName.SFM,
        cache_key(context.frames.content_hash, settings),
        lambda: [folder],
        lambda: _reconstruct_and_predict(context, prediction, config, folder),
        lambda: reconstruction.load_model(context.frames, folder),
        is_final=lambda model: isinstance(model, SparseModel),
    )


def _with_intrinsics(context: RunContext) -> SfmConfig:
    config, frames = context.config, context.frames
    if config.intrinsics is None:
        return config.sfm
    return replace(config.sfm, intrinsics=parse_intrinsics(config.intrinsics, frames.source_hw, frames.hw))


def _reconstruct_and_predict(
    context: RunContext, prediction: UnrefinedPrediction, config: SfmConfig, folder: Path
) -> SparseModel | NoModel:
    with BackgroundTask(prediction.compute) as task:

        def on_progress(progress: Progress) -> None:
            # Most of mapping runs on one core, which helps only a network that runs on this machine, too.
            if progress.phase == SfmPhase.MAPPING and context.backend.is_local and not prediction.is_stored():
                task.start()
            context.on_progress(progress)

        model = reconstruction.reconstruct(context.frames, config, folder, on_progress, reconstruction_cache_folder())
        prediction.use(task.result(context.on_progress))
    return model
