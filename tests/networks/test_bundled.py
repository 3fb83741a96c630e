"""The bundled network's own promises; what it shares with every network is in `test_networks.py`."""

from __future__ import annotations

import pytest
import torch

from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.bundled import Bundled
from sfmttr.types import DepthKind

INFO = NetworkInfo("bundled", DepthKind.SCALE_INVARIANT, "Apache-2.0", "", "")


@pytest.fixture(scope="module")
def network() -> Bundled:
    torch.manual_seed(0)
    return Bundled(INFO).eval()


def image(hw: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, *hw, generator=torch.Generator().manual_seed(1))


def test_it_is_small(network: Bundled) -> None:
    assert sum(p.numel() for p in network.parameters()) <= 2_000_000
    assert sum(v.numel() * v.element_size() for v in network.state_dict().values()) <= 8_000_000


@pytest.mark.parametrize("hw", [(32, 32), (96, 320), (192, 64), (160, 224)])
def test_takes_any_multiple_of_32(network: Bundled, hw: tuple[int, int]) -> None:
    with torch.inference_mode():
        depth = network(image(hw))
    assert depth.shape == (1, 1, hw[0] // 2, hw[1] // 2)
    assert torch.isfinite(depth).all()
    assert (depth > 0).all()


def test_an_untrained_one_says_something_plausible(network: Bundled) -> None:
    with torch.inference_mode():
        depth = network(image((96, 320)))
    assert 0.5 < depth.median() < 100


def test_log_depth_is_what_depth_is_made_of(network: Bundled) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(network.log_depth(image((64, 64))).exp(), network(image((64, 64))))


def test_early_and_late_part_are_the_network(network: Bundled) -> None:
    with torch.inference_mode():
        assert torch.equal(network.forward_from_stem(*network.stem_features(image((64, 96)))), network(image((64, 96))))


def test_kept_features_are_moderate(network: Bundled) -> None:
    with torch.inference_mode():
        features = network.stem_features(image((192, 640)))
    assert sum(f.numel() * f.element_size() for f in features) < 5_000_000


def test_gradient_reaches_every_parameter_in_training(network: Bundled) -> None:
    network.train()
    network.log_depth(torch.rand(2, 3, 64, 96)).abs().mean().backward()
    network.eval()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    network.zero_grad()


def test_norms_are_folded_into_the_same_function(network: Bundled) -> None:
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    x = image((64, 96))
    with torch.no_grad():
        apart = network.stem.norm(network.stem.conv(x)).relu()
        torch.testing.assert_close(network.stem(x), apart, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("hw", "expected"),
    [((375, 1242), (192, 640)), ((1080, 1920), (256, 480)), ((1920, 1080), (480, 256)), ((10, 9000), (32, 1280))],
)
def test_working_size(network: Bundled, hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network.input_hw(hw) == expected
