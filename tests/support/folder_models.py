"""A tiny model of the Hub's layout in a folder, with random weights: Depth Anything in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sfmttr import networks
from sfmttr.config import VideoConfig
from sfmttr.evaluation.ground_truth import COMPANION_SUFFIX, match_ground_truth
from sfmttr.frames.loader import load_frames
from sfmttr.geometry import resize_numpy
from sfmttr.networks.huggingface.adapter import HubNetwork
from tests.support.hf_models import MODELS

SIDE = 70
"""Input size: pictures of five patches a side."""
CARD = "---\nlicense: cc0-1.0\n---\nA tiny model for tests."


def write_model(folder: Path, *, seed: int = 0, kind: str = "relative", side: int = SIDE) -> Path:
    """Depth Anything with 32 channels and 4 blocks; `kind`: relative (inverse depth) or metric."""
    from transformers import AutoModelForDepthEstimation, DepthAnythingConfig

    told = {key: value for key, value in MODELS["depth-anything"].config.items() if key != "model_type"}
    config = DepthAnythingConfig(**told, depth_estimation_type=kind, max_depth=20 if kind == "metric" else 1)
    torch.manual_seed(seed)
    AutoModelForDepthEstimation.from_config(config).save_pretrained(folder)
    preprocessor = {"size": {"height": side, "width": side}, "ensure_multiple_of": 14, "keep_aspect_ratio": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "README.md").write_text(CARD)
    return folder


def write_fitted_to(folder: Path, clip: Path, frames: Path, **more: Any) -> Path:
    """`write_fitted` to an example, whose true depth lies beside it; `frames`: where its frames may be written."""
    chosen = load_frames(clip, VideoConfig(max_frames=12, long_side=320), frames)
    truth = match_ground_truth(chosen, clip.with_suffix(COMPANION_SUFFIX), None)
    rgb = np.stack([chosen.read(i).rgb for i in truth.files])
    depth = np.stack([resize_numpy(truth.read(i), chosen.hw) for i in truth.files])
    return write_fitted(folder, rgb, np.maximum(depth, 0.3), **more)


def write_other_model(folder: Path) -> Path:
    """A model that is no depth network."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


def write_fitted(folder: Path, rgb: np.ndarray, depth: np.ndarray, steps: int = 100, **more: Any) -> Path:
    """`write_model`, half trained on pictures (N, H, W, 3) and their depth (N, H, W): there is something to align, and
    more to learn."""
    network = networks.load(str(write_model(folder, **more)))
    assert isinstance(network, HubNetwork)
    images = torch.cat([network.prepare(picture) for picture in rgb])
    wanted = functional.interpolate(torch.from_numpy(1 / depth)[:, None], images.shape[-2:], mode="area")
    with torch.no_grad():  # its last layer is a ReLU, which a random network mostly gives nothing to
        network.model.head.conv3.bias.fill_(float(wanted.mean()))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for i in range(steps):
        some = slice(i % 3, None, 3)
        optimizer.zero_grad()
        (network(images[some]) - wanted[some]).abs().mean().backward()
        optimizer.step()
    network.model.save_pretrained(folder)
    return folder
