"""The authors' files of the paper's networks, with weights made up as the parity data's are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfmttr.networks.lookup import entry
from tests.networks.test_networks import generated
from tests.support.data_paths import existing, parity_root

PAPER = ("adabins", "manydepth", "cadepth", "diffnet")
_GAINS = {"manydepth": {"pose": 0.0005}, "diffnet": {"encoder": 0.8, "decoder": 0.8}}


def keys_of(name: str) -> dict[str, Any]:
    return json.loads(existing(parity_root() / f"{name}.keys.json").read_text())


def _part(name: str, prefix: str, keys: Mapping[str, list[int]], pose_gain: float | None = None) -> dict[str, Any]:
    gain = _GAINS.get(name, {}).get(prefix, 1.0)
    if prefix == "pose" and pose_gain is not None:
        gain = pose_gain
    return {key: generated(f"{prefix}.{key}", shape, gain) for key, shape in keys.items()}


def published_files(name: str, pose_gain: float | None = None) -> list[dict[str, Any]]:
    """In the catalog's order, with what they hold beside weights."""
    keys = keys_of(name)
    settings: dict[str, Any] = {"height": 320, "width": 1024, "use_stereo": False, "num_layers": 50}
    if name == "adabins":
        weights = {f"module.{key}": value for key, value in _part(name, "model", keys["model"]).items()}
        return [{"model": weights, "epoch": 25, "optimizer": {"state": {}}}]
    if name == "diffnet":
        order, aliases = keys["decoder_order"], keys["depth_aliases"]
        decoder = _part(name, "decoder", {key: shape for key, shape in aliases.items() if key.startswith("decoder.")})
        for key in [key for key in aliases if key.startswith("convs.")]:
            _, alias, rest = key.split(".", 2)
            decoder[key] = decoder[f"decoder.{order.index(alias)}.{rest}"]
        return [_part(name, "encoder", keys["encoder"]) | settings, decoder]
    files = [_part(name, prefix, part, pose_gain) for prefix, part in keys.items()]
    return [files[0] | settings, *files[1:]]


def write_published(name: str, folder: Path) -> None:
    """As they lie on disk. Motion is not as tiny as in the parity data, so that it can be learnt."""
    for file, content in zip(entry(name).files, published_files(name, pose_gain=0.2), strict=True):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)


def noise(hw: tuple[int, int], seed: int) -> Tensor:
    """A picture as the parity data has them."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random((1, 3, *hw)).astype(np.float32))
