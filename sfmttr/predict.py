"""A network's depth of every frame of a clip."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfmttr.device import Compute
from sfmttr.errors import NetworkError
from sfmttr.networks.base import DepthNetwork
from sfmttr.threads import in_order
from sfmttr.types import DepthKind, FrameSet, OnProgress, Progress, ignore_progress


def prepare_images(network: DepthNetwork, frames: FrameSet) -> Tensor:
    """(N, 3, h, w) float32: all frames at the network's working size. Decoded once; training reads from here."""
    with in_order(lambda i: network.prepare(frames.read(i).rgb), len(frames)) as images:
        return torch.cat(list(images))


@torch.no_grad()  # not inference_mode: some networks keep tensors for later, when they are trained
def predict_maps(
    network: DepthNetwork, images: Tensor, compute: Compute, stage: str, on_progress: OnProgress = ignore_progress
) -> np.ndarray:
    """(N, h', w') float32: `network`'s output for `images` (N, 3, h, w), in its own unit and resolution.

    Raises `NetworkError` when an output is not finite, or a depth not positive.
    """
    network = network.eval().to(compute.device).to(memory_format=network.preferred_memory_format)  # type: ignore[call-overload]
    maps = []
    for first in range(0, len(images), network.most_at_once):
        on_progress(Progress(stage, first, len(images)))
        few = range(first, min(first + network.most_at_once, len(images)))
        batch = torch.cat([network.with_neighbours(images, i) for i in few])
        batch = batch.to(compute.device, memory_format=network.preferred_memory_format)
        with compute.autocast():
            maps.append(network.picture_depth(batch)[:, 0].float().cpu().numpy())
    on_progress(Progress(stage, len(images), len(images)))
    result = np.concatenate(maps)
    positive = network.info.kind is DepthKind.AFFINE_DISPARITY or (result > 0).all()
    if not (np.isfinite(result).all() and positive):
        raise NetworkError(f"{network.info.name} gave depth that is not finite and positive; its weights are unusable.")
    return result
