"""Errors of a network that is not refined, by the pipeline's own metrics: on held-out scenes, and on clips."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sfmttr.config import GroundTruthConfig, VideoConfig
from sfmttr.evaluation.comparison import Column, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import match_ground_truth
from sfmttr.evaluation.metrics import apply_protocol, depth_metrics, protocol
from sfmttr.frames.loader import load_frames
from sfmttr.networks.base import DepthNetwork, TorchPredictor
from sfmttr.networks.inference import predict_maps, prepare_images
from sfmttr.utils.device import Compute
from tools.training.shards import Scene

_FAR_M = 80.0


@dataclass(frozen=True)
class SceneErrors:
    """AbsRel over some views of some scenes, mean over views; depth up to 80 m."""

    per_view: float
    """Each view scaled by its median."""
    per_scene: float
    """One scale for all views of a scene, as a refinement has it."""
    views: int


@torch.inference_mode()
def scene_errors(network: DepthNetwork, scenes: Sequence[Scene], views: int) -> dict[str, SceneErrors]:
    """By kind of scene, which is the first word of its name; of at most so many views, evenly over the scenes."""
    kinds: dict[str, list[Scene]] = {}
    for scene in scenes:
        kinds.setdefault(kind_of(scene), []).append(scene)
    return {kind: _errors(network, kinds[kind], views) for kind in sorted(kinds)}


def kind_of(scene: Scene) -> str:
    """street, room, ..."""
    return scene.name.split("_")[0].split("-")[0].rstrip("0123456789")


def _errors(network: DepthNetwork, scenes: Sequence[Scene], views: int) -> SceneErrors:
    predictor = TorchPredictor(network.eval())
    rules = protocol("plain")
    per_view, per_scene = [], []
    each = max(2, -(-views // len(scenes)))
    for scene in scenes[: -(-views // each)]:
        ratios, pairs = [], []
        for view in np.unique(np.linspace(0, len(scene) - 1, each).astype(int)):
            true = scene.depth[view].astype(np.float32)
            true = np.where(true < _FAR_M, true, 0.0)
            if not (true > 0).any():
                continue
            depth = predictor.predict(scene.rgb[view])
            pair = apply_protocol(depth, predictor.kind, true, rules)
            per_view.append(depth_metrics(pair.predicted, pair.true).abs_rel)
            known = true > 0
            # Views of a scene differ in focal length, which is taken out of what is learned (see `batches`).
            metric = depth[known] * scene.fx_px[view]
            pairs.append((metric, true[known]))
            ratios.append(np.median(true[known]) / np.median(metric))
        scale = float(np.median(ratios)) if ratios else 1.0
        per_scene += [depth_metrics(scale * predicted, true).abs_rel for predicted, true in pairs]
    return SceneErrors(float(np.mean(per_view)), float(np.mean(per_scene)), len(per_view))


@dataclass(frozen=True)
class ClipErrors:
    """A clip against its ground truth."""

    abs_rel: float
    rmse: float
    a1: float
    protocol: str


def clip_errors(network: DepthNetwork, clip: Path, truth: GroundTruthConfig) -> ClipErrors:
    """Return the errors of the pipeline's "before" column: every frame it would select, against ground truth."""
    with tempfile.TemporaryDirectory() as folder:
        frames = load_frames(clip, VideoConfig(), Path(folder) / "frames")
        known = match_ground_truth(frames, truth.folder, truth.scale)
        images = prepare_images(network, frames)
    compute = Compute(torch.device("cpu"), None)
    maps = {Column.BEFORE: predict_maps(network, images, compute, "predict")}
    comparison = compare_with_ground_truth(maps, network.info.kind, known, protocol(truth.protocol))
    if comparison is None:
        raise ValueError(f"no frame of {clip.name} has ground truth")
    errors = comparison.columns[Column.BEFORE].overall
    return ClipErrors(errors.abs_rel, errors.rmse, errors.a1, comparison.protocol)


def existing_clips(
    clips: Iterable[tuple[str, Path, GroundTruthConfig | None]],
) -> Mapping[str, tuple[Path, GroundTruthConfig]]:
    """Those that are here and have a truth that is here."""
    return {
        name: (path, truth)
        for name, path, truth in clips
        if truth is not None and path.exists() and truth.folder.is_dir()
    }
