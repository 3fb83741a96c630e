"""Peak memory of a training step of Depth-Anything-V2-Base, with features kept for gradients and computed again.

    python -m benchmarks.transformer_memory [--hw 518 518 518 686] [--trained lora encoder] [--out results/memory.json]

Its architecture with random weights, on the CPU; each step in a process of its own, by the refinement itself, so that
copies, gradients and the optimiser's moments count. "kept" are the bytes of features that the encoder's blocks keep for
gradients, a token, channel and block: what `sfmttr.networks.huggingface.activation_memory` decides by.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfmttr.config import LossForm, RefineConfig, Sampling, TrainableScope
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.disparity_to_depth import DisparityNetwork
from sfmttr.networks.huggingface import activation_memory, adapter, loader
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.inverse_depth import InverseDepth
from sfmttr.networks.lora import add_low_rank
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.targets import FrameTargets, Targets
from sfmttr.refinement.task import RefineTask
from sfmttr.refinement.trainable import trainable_parameters
from sfmttr.types import HW, DepthKind
from sfmttr.utils.device import Compute

BASE: dict[str, Any] = {
    "model_type": "depth_anything",
    "architectures": ["DepthAnythingForDepthEstimation"],
    "backbone_config": {
        "model_type": "dinov2",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": [3, 6, 9, 12],
        "reshape_hidden_states": False,
        "apply_layernorm": True,
    },
    "patch_size": 14,
    "reassemble_hidden_size": 768,
    "neck_hidden_sizes": [96, 192, 384, 768],
    "fusion_hidden_size": 128,
    "head_hidden_size": 32,
    "depth_estimation_type": "relative",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hw", type=int, nargs="+", default=[518, 518, 518, 686], help="H W [H W ...]")
    parser.add_argument(
        "--trained", nargs="+", type=TrainableScope, default=[TrainableScope.LORA, TrainableScope.ENCODER]
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/transformer_memory.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return
    rows = []
    for hw in zip(options.hw[::2], options.hw[1::2], strict=True):
        for trained in options.trained:
            for recompute in (False, True):
                asked = json.dumps({"hw": hw, "trained": trained, "recompute": recompute})
                command = [sys.executable, "-m", "benchmarks.transformer_memory", "--one", asked]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows.append(json.loads(said.splitlines()[-1]))
                _print(rows[-1])
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(rows, indent=2) + "\n")


def _print(row: dict[str, Any]) -> None:
    how = "recomputed" if row["recompute"] else "kept"
    print(
        f"{row['hw'][0]} x {row['hw'][1]}  {row['trained']:<8} {how:<10}  peak "
        f"{row['peak_gb']:5.2f} GB (before the step {row['before_gb']:.2f}), step {row['cpu_seconds']:6.1f} s of CPU; "
        f"{row['kept_gb']:.2f} GB kept by all, {row['kept_a_token']:.0f} bytes a token, channel and block",
        flush=True,
    )


def _one(hw: HW, trained: str, recompute: bool) -> dict[str, Any]:
    """One step, in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    info = NetworkInfo("base", DepthKind.AFFINE_DISPARITY, "none", "random weights", "Depth-Anything-V2-Base")
    network = loader.rebuild(json.dumps({"config": BASE, "preprocessor": None, "size": None}), info)
    activation_memory.MAX_KEPT_BYTES = 0 if recompute else 1 << 60
    h, w = hw
    rng = np.random.default_rng(0)
    grid = rng.uniform(-1, 1, (500, 2)).astype(np.float32)
    one = FrameTargets(0, grid, rng.uniform(1, 9, 500).astype(np.float32), np.ones(500, np.float32))
    config = RefineConfig(
        steps=1,
        learning_rate=1e-5,
        trained=TrainableScope(trained),
        loss=LossForm.LOG,
        sampling=Sampling.BILINEAR,
        num_validations=1,
    )
    learner = DisparityNetwork(network, InverseDepth(-1.0, 0.05))
    images = torch.rand((1, 3, h, w))
    targets, compute = Targets((one,), (one,), 1.0), Compute(torch.device("cpu"), None)
    refinement = Refinement(RefineTask(learner, images, targets, config, 0), compute)
    before = _peak_gb()
    started = time.process_time()
    losses = [step.loss for step in refinement.steps()]
    peak, cpu_seconds = _peak_gb(), time.process_time() - started
    kept_gb, kept_a_token = kept_bytes(network, hw, TrainableScope(trained))
    return {
        "hw": [h, w],
        "trained": trained,
        "recompute": recompute,
        "before_gb": before,
        "peak_gb": peak,
        "cpu_seconds": cpu_seconds,
        "kept_gb": kept_gb,
        "kept_a_token": kept_a_token,
        "loss": losses[0],
    }


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def kept_bytes(network: adapter.HubNetwork, hw: HW, trained: TrainableScope) -> tuple[float, float]:
    """GB of all features kept for gradients, and bytes a token, channel and block of those of the encoder's blocks."""

    network = copy.deepcopy(network)
    moving = set(trainable_parameters(network, trained))
    if trained is TrainableScope.LORA:
        moving = set(add_low_rank(network, moving, 8, 0))
    for name, value in network.named_parameters():
        value.requires_grad_(name in moving)
    blocks = network.model.backbone.encoder.layer
    with _counting(network) as counted:
        inside: dict[str, int] = {}
        first = blocks[0].register_forward_pre_hook(lambda *_: inside.update(start=sum(counted.values())))
        last = blocks[-1].register_forward_hook(lambda *_: inside.update(end=sum(counted.values())))
        network(torch.rand((1, 3, *hw)))
        first.remove()
        last.remove()
    tokens = hw[0] // 14 * (hw[1] // 14) + 1
    return sum(counted.values()) / 1e9, (inside["end"] - inside["start"]) / (tokens * 768 * len(blocks))


@contextmanager
def _counting(network: DepthNetwork) -> Iterator[dict[int, int]]:
    """Bytes by storage of what is kept for gradients in a forward pass, the network's weights left out."""
    own = {value.untyped_storage().data_ptr() for value in network.parameters()}
    counted: dict[int, int] = {}
    alive: list[Any] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            counted[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)  # so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield counted


if __name__ == "__main__":
    main()
