"""Networks of the Hub: what a training step keeps in memory, and that computing it again changes no gradient."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from sfmttr.config import TrainableScope
from sfmttr.networks.huggingface import activation_memory, adapter, loader
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.lora import add_low_rank
from sfmttr.refinement.trainable import trainable_parameters
from sfmttr.types import DepthKind

WIDTH, BLOCKS, HW = 96, 4, (140, 196)
CONFIG: dict[str, Any] = {
    "model_type": "depth_anything",
    "backbone_config": {
        "model_type": "dinov2",
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 3,
        "image_size": 140,
        "patch_size": 14,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
    },
    "reassemble_hidden_size": WIDTH,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "head_hidden_size": 8,
}


@pytest.fixture
def network() -> adapter.HubNetwork:
    torch.manual_seed(0)
    info = NetworkInfo("tiny", DepthKind.AFFINE_DISPARITY, "none", "random weights", "for tests alone")
    built = loader.rebuild(json.dumps({"config": CONFIG, "preprocessor": None, "size": None}), info)
    with torch.no_grad():
        built.model.head.conv3.bias.fill_(1.0)  # or all of it may lie below the last ReLU
    return built


class Kept:
    """Bytes of what is kept for gradients, by storage: weights left out."""

    def __init__(self, network: adapter.HubNetwork) -> None:
        self._own = {value.untyped_storage().data_ptr() for value in network.parameters()}
        self._bytes: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._bytes[storage.data_ptr()] = storage.nbytes()
            self._alive.append(tensor.detach())  # so that its place is not given to another
        return tensor

    @property
    def total(self) -> int:
        return sum(self._bytes.values())


def step(network: adapter.HubNetwork, trained: TrainableScope) -> tuple[dict[str, Tensor], Tensor, int]:
    """Gradients by name, the output, and the bytes kept for them."""
    network = copy.deepcopy(network)
    moving = set(trainable_parameters(network, trained))  # type: ignore[arg-type]
    if trained is TrainableScope.LORA:
        moving = set(add_low_rank(network, moving, 4, 0))
    for name, value in network.named_parameters():
        value.requires_grad_(name in moving)
        if name.endswith(".up"):
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(1))
    image = torch.rand((1, 3, *HW), generator=torch.Generator().manual_seed(2))
    kept = Kept(network)
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        output = network(image)
    output.square().mean().backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, output.detach(), kept.total


@pytest.mark.parametrize(
    "trained", [TrainableScope.ENCODER, TrainableScope.LORA, TrainableScope.ALL, TrainableScope.DECODER]
)
def test_computing_features_again_changes_no_gradient(
    network: adapter.HubNetwork, trained: TrainableScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, output, bytes_kept = step(network, trained)
    monkeypatch.setattr(activation_memory, "MAX_KEPT_BYTES", 0)
    again, same_output, fewer_bytes = step(network, trained)
    assert kept.keys() == again.keys()
    assert sum(gradient.abs().sum() for gradient in kept.values()) > 0
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    torch.testing.assert_close(same_output, output, rtol=0, atol=0)
    if trained is not TrainableScope.DECODER:  # which needs none of the encoder's features but its outputs
        assert fewer_bytes < 0.5 * bytes_kept


def test_what_is_kept_is_as_much_as_is_reckoned_with(
    network: adapter.HubNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peak memory with all encoder weights trained, which keeps the most activations."""
    *_, kept = step(network, TrainableScope.ENCODER)
    monkeypatch.setattr(activation_memory, "MAX_KEPT_BYTES", 0)
    *_, left = step(network, TrainableScope.ENCODER)
    tokens = HW[0] * HW[1] / 14**2
    inputs = 4  # of each block's, which is what recomputing keeps: one float32 a token and channel
    a_token = (kept - left) / (tokens * WIDTH * BLOCKS) + inputs
    assert a_token == pytest.approx(activation_memory.BYTES_PER_TOKEN, rel=0.15)


def test_recomputing_starts_and_ends_with_the_picture(
    network: adapter.HubNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large picture must not leave its mark on the small one after it, nor training on prediction."""
    small, large = (torch.rand((1, 3, *hw)) for hw in ((28, 28), HW))
    blocks = network.model.backbone.encoder.layer
    monkeypatch.setattr(activation_memory, "MAX_KEPT_BYTES", 50 * WIDTH * BLOCKS * activation_memory.BYTES_PER_TOKEN)
    network(large)
    assert all(block.training for block in blocks)
    network(small)
    assert not any(block.training for block in blocks)
    with torch.no_grad():
        network(large)
    assert not any(block.training for block in blocks)
