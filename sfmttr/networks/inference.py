"""Prediction for every frame of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfmttr.errors import NetworkError
from sfmttr.networks.base import DepthNetwork
from sfmttr.types import DepthKind, FrameSet, OnProgress, Progress, ignore_progress
from sfmttr.utils.device import Compute
from sfmttr.utils.threads import map_in_order


def prepare_images(network: DepthNetwork, frames: FrameSet) -> Tensor:
    """Return all frames at the network's input size, (N, 3, h, w) float32 in [0, 1].

    They are decoded once; training reads from here.
    """
    with map_in_order(lambda i: network.prepare(frames.read(i).rgb), len(frames)) as images:
        return torch.cat(list(images))


FeatureCache = dict[int, tuple[Tensor, ...]]
"""Stem features by frame (`DepthNetwork.stem_features`), each with batch size 1."""


def features_by_frame(frames: Sequence[int], parts: Sequence[Tensor]) -> FeatureCache:
    """Split a batch of stem features, one row per frame, into a cache."""
    # Copies: a view would keep the memory of the whole batch.
    return {frame: tuple(part[i : i + 1].clone() for part in parts) for i, frame in enumerate(frames)}


@torch.no_grad()  # not inference_mode: some networks keep tensors for later, when they are trained
def predict_maps(
    network: DepthNetwork,
    images: Tensor,
    compute: Compute,
    stage: str,
    on_progress: OnProgress = ignore_progress,
    early: FeatureCache | None = None,
) -> np.ndarray:
    """Return `network`'s output for `images` (N, 3, h, w) as (N, h', w') float32, in its own unit and resolution.

    Stem features are added to `early`, where that is given, and stay on the device. Raises
    `NetworkError` when an output is not finite, or a depth not positive.
    """
    network = network.eval().to(compute.device).to(memory_format=network.preferred_memory_format)  # type: ignore[call-overload]
    maps = []
    for first in range(0, len(images), network.max_batch_size):
        on_progress(Progress(stage, first, len(images)))
        few = range(first, min(first + network.max_batch_size, len(images)))
        batch = torch.cat([network.stack_source_frames(images, i) for i in few])
        batch = batch.to(compute.device, memory_format=network.preferred_memory_format)
        with compute.autocast():
            if early is None:
                depth = network.predict_full(batch)
            else:
                parts = network.stem_features(network.crop(batch))
                early |= features_by_frame(few, parts)
                depth = network.pad_to_full(network.forward_from_stem(*parts), (batch.shape[-2], batch.shape[-1]))
        maps.append(depth[:, 0].float().cpu().numpy())
    on_progress(Progress(stage, len(images), len(images)))
    result = np.concatenate(maps)
    positive = network.info.kind is DepthKind.AFFINE_DISPARITY or (result > 0).all()
    if not (np.isfinite(result).all() and positive):
        raise NetworkError(f"{network.info.name} gave depth that is not finite and positive; its weights are unusable.")
    return result
