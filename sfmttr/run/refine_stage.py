"""Refinement of the network, and its depth afterwards."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from sfmttr.config import Objective
from sfmttr.io.json_files import cache_key
from sfmttr.networks.inference import FeatureCache
from sfmttr.refinement.backend import LiveNetwork
from sfmttr.refinement.observations import held_out_frames, merge_observations
from sfmttr.refinement.photometric_loss import photometric_views
from sfmttr.refinement.targets import Targets, add_dense_targets, make_targets
from sfmttr.refinement.task import RefineResult, RefineStep, RefineTask
from sfmttr.run import weights_file
from sfmttr.run.align_stage import depth_network, unrefined_depth
from sfmttr.run.context import RunContext
from sfmttr.run.fuse_stage import fuse_with_points
from sfmttr.run.results import Aligned
from sfmttr.run.stages import StageName
from sfmttr.types import Progress, SparseModel


def refinement_key(context: RunContext) -> str:
    """Return the `cache_key` of the refinement. The reconstruction must have been made."""
    config, network = context.config, context.network
    settings = [
        config.recipe,
        config.split,
        config.seed,
        context.backend.device,
        network.cached_step_cost,
        network.finetune_settings,
        config.train_frames,
    ]
    return cache_key(context.network_key + context.stages.key(StageName.SFM), settings)


def refine(
    context: RunContext, model: SparseModel, aligned: Aligned, raw: np.ndarray, features: FeatureCache, key: str
) -> RefineResult:
    """Refine the network.

    `raw` (N, h, w) is its unrefined prediction; `features` of its stem, if any, are computed already.
    """
    weights = context.stages.path / weights_file.REFINED_WEIGHTS
    curves = context.stages.path / "refinement.json"

    def make() -> RefineResult:
        task = _refine_task(context, model, aligned, raw, features)

        def on_step(step: RefineStep, live: LiveNetwork) -> None:
            context.on_progress(Progress(StageName.REFINE, step.index, step.total))
            context.on_step(step, live)

        result = context.backend.refine(task, on_step)
        weights_file.write_refinement(weights, curves, result, depth_network(context.network, aligned.alignment))
        return result

    return context.stages.run(
        StageName.REFINE,
        key,
        lambda: [weights, curves],
        make,
        lambda: weights_file.read_refinement(weights, curves),
    )


def depth_after(
    context: RunContext, aligned: Aligned, raw: np.ndarray, refined: RefineResult, refinement_key: str
) -> np.ndarray:
    """(N, h, w): depth of the refined network; of the unrefined one when the refinement was rolled back."""

    def predict() -> np.ndarray:
        if refined.rolled_back:
            return unrefined_depth(raw, aligned.alignment)
        network = depth_network(context.network, aligned.alignment)
        network.load_state_dict(refined.weights)
        return context.backend.predict(network, context.images, StageName.AFTER, context.on_progress)

    return context.depth_stage(StageName.AFTER, cache_key(refinement_key, "after"), predict)


def _refine_task(
    context: RunContext, model: SparseModel, aligned: Aligned, raw: np.ndarray, features: FeatureCache
) -> RefineTask:
    recipe = context.config.recipe
    config = recipe.refine
    targets = _targets(context, aligned, raw)
    if aligned.trust.out_of_domain:
        config = replace(config, steps=round(config.domain_gap_steps_factor * config.steps))
    held_out = held_out_frames(len(context.frames), context.config.split.hold_out_frames)
    excluded_frames = np.flatnonzero(held_out).tolist()
    views = None
    if config.objective is not Objective.SFM:
        views = photometric_views(model, aligned.alignment.scale, excluded_frames)
    network = depth_network(context.network, aligned.alignment)
    seed = context.config.seed
    return RefineTask(network, context.images, targets, config, seed, tuple(excluded_frames), views, features)


def _targets(context: RunContext, aligned: Aligned, raw: np.ndarray) -> Targets:
    """Return the targets at points and, where the recipe has them, dense targets, made from training points only.

    A network far from its domain gets no dense targets: its own depth between the points is not worth keeping.
    """
    config = context.config
    dense, objective = config.recipe.dense, config.recipe.refine.objective
    observations = merge_observations(
        aligned.observations.where(aligned.selection.mask), aligned.propagated.where(aligned.propagated.trainable)
    )
    targets = make_targets(observations, aligned.alignment, config.recipe.weight)
    if dense.weight == 0 or objective is Objective.PHOTOMETRIC or aligned.trust.out_of_domain:
        return targets
    train_observations = observations.where(observations.trainable)
    maps = unrefined_depth(raw, aligned.alignment) * np.float32(aligned.alignment.network_scale)

    def on_frame(_: int) -> None:
        context.on_progress(Progress(StageName.REFINE, 0, 1, "dense targets"))

    fused = fuse_with_points(context, maps, train_observations, aligned, dense.fuse, on_frame)
    in_valid_region = partial(context.network.valid_region, hw=context.frames.hw)
    return add_dense_targets(targets, fused, dense, in_valid_region, np.random.default_rng(config.seed))
