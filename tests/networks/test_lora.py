"""Low-rank adaptation: what moves, what comes out, and that a refinement with it can be interrupted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfmttr import networks
from sfmttr.config import RECIPES, Preset, SplitConfig, TrainableScope
from sfmttr.errors import NetworkError
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.disparity_to_depth import DisparityNetwork
from sfmttr.networks.inference import predict_maps
from sfmttr.networks.lora import add_low_rank, merged_state
from sfmttr.refinement.alignment import align_disparity
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.observations import observe, sample_at
from sfmttr.refinement.targets import Targets, make_targets
from sfmttr.refinement.task import RefineCheckpoint, RefineResult, RefineTask
from sfmttr.types import FrameSet
from sfmttr.utils.device import choose_compute
from tests.support.fakes import TinyNetwork, sparse_model_from_truth
from tools.synthetic import RenderedClip

CPU = choose_compute("cpu")
RECIPE = RECIPES[Preset.FAST]
QUICK = replace(RECIPE.refine, steps=9, num_validations=3, trained=TrainableScope.LORA, learning_rate=3e-3, lora_rank=2)


# ------------------------------------------------------------------------------------------ layers


class Plain(nn.Module):
    """Two linear layers that may move, one that may not, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.first, self.second, self.other = nn.Linear(6, 10), nn.Linear(10, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).movedim(1, -1)
        return self.other(self.second(self.first(y).tanh()))


WEIGHTS = ("first.weight", "second.weight", "first.bias", "conv.weight")


def plain() -> Plain:
    torch.manual_seed(0)
    return Plain().requires_grad_(False)


def moved(network: nn.Module, rank: int = 3, seed: int = 0) -> dict[str, nn.Parameter]:
    """The low-rank parts that were added, with values as after some training."""
    added = add_low_rank(network, WEIGHTS, rank, seed)
    with torch.no_grad():
        for value in added.values():
            value.add_(torch.randn_like(value))
    return added


def test_at_first_nothing_is_changed() -> None:
    network, original = plain(), plain().state_dict()
    add_low_rank(network, WEIGHTS, 3, 0)
    for layer in ("first", "second"):
        assert torch.equal(getattr(network, layer).weight, original[f"{layer}.weight"])


def test_merged_weights_give_what_the_parts_gave() -> None:
    network, image = plain(), torch.rand(2, 3, 4, 5)
    before = network(image)
    moved(network)
    merged = plain()
    merged.load_state_dict(merged_state(network))
    torch.testing.assert_close(merged(image), network(image), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(network(image), before)


def test_names_and_shapes_are_those_of_before() -> None:
    network, original = plain(), plain().state_dict()
    moved(network)
    state = merged_state(network)
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in original.items()}
    assert not any(torch.equal(state[name], original[name]) for name in ("first.weight", "second.weight"))
    rest = original.keys() - {"first.weight", "second.weight"}
    assert all(torch.equal(state[name], original[name]) for name in rest)


def test_merging_leaves_the_network_as_it_is() -> None:
    network = plain()
    added = moved(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    merged_state(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter is dict(network.named_parameters())[name] for name, parameter in added.items())


@pytest.mark.parametrize("rank", [1, 3])
def test_the_rank_is_respected(rank: int) -> None:
    network, original = plain(), plain().state_dict()
    added = moved(network, rank)
    state = merged_state(network)
    for name in ("first.weight", "second.weight"):
        assert torch.linalg.matrix_rank(state[name] - original[name], atol=1e-4) == rank
    assert sum(value.numel() for value in added.values()) == rank * (6 + 10 + 10 + 6)


def test_its_start_follows_from_the_seed() -> None:
    def start(seed: int) -> list[Tensor]:
        torch.manual_seed(7 * seed + 1)  # the global generator has no say
        return [value.detach() for value in add_low_rank(plain(), WEIGHTS, 2, seed).values()]

    assert all(torch.equal(one, other) for one, other in zip(start(3), start(3), strict=True))
    torch.manual_seed(5)
    again = [value.detach() for value in add_low_rank(plain(), WEIGHTS, 2, 3).values()]
    assert all(torch.equal(one, other) for one, other in zip(start(3), again, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(start(3), start(4), strict=True))


def test_a_network_without_linear_layers_is_refused() -> None:
    network = TinyNetwork()
    with pytest.raises(NetworkError, match="no linear layers"):
        add_low_rank(network, [name for name, _ in network.encoder_parameters()], 2, 0)


# -------------------------------------------------------------------------------------- refinement


@pytest.fixture(scope="module")
def case(room_model: Path, room: RenderedClip, room_frames: FrameSet) -> tuple[DepthNetwork, Tensor, Targets]:
    return case_of(room_model, room, room_frames)


def case_of(folder: Path, room: RenderedClip, frames: FrameSet) -> tuple[DepthNetwork, Tensor, Targets]:
    """A transformer that gives inverse depth, with the shift that a clip gave it; the clip's pictures and points."""
    hub = networks.load(str(folder))
    images = torch.cat([hub.prepare(rgb) for rgb in room.rgb])
    model = sparse_model_from_truth(room, frames)
    observations = observe(model, len(room), frames.hw, SplitConfig(), np.random.default_rng(0))
    said = sample_at(predict_maps(hub, images, CPU, "before"), observations)
    alignment = align_disparity(observations.z, said, RECIPE.align, np.random.default_rng(0))
    assert alignment.inverse is not None
    targets = make_targets(observations.where(alignment.relaxed), alignment, RECIPE.weight)
    return DisparityNetwork(hub, alignment.inverse), images, targets


def refinement(case: tuple[DepthNetwork, Tensor, Targets], checkpoint: RefineCheckpoint | None = None) -> Refinement:
    return Refinement(RefineTask(*case, QUICK, 0), CPU, checkpoint)


@pytest.fixture(scope="module")
def refined(case: tuple[DepthNetwork, Tensor, Targets]) -> RefineResult:
    whole = refinement(case)
    for _ in whole.steps():
        pass
    return whole.result()


def test_it_learns_and_moves_linear_layers_of_the_encoder_alone(
    case: tuple[DepthNetwork, Tensor, Targets], refined: RefineResult
) -> None:
    network, original = case[0], state_dict_cpu(case[0])
    assert not refined.rolled_back
    assert refined.weights.keys() == original.keys()
    linear = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    encoder = {name for name, _ in network.encoder_parameters()}
    changed = {name for name, value in refined.weights.items() if not torch.equal(value, original[name])}
    assert changed == linear & encoder
    assert len(changed) >= 4 * 6  # query, key, value, output and two of the perceptron, in each of four blocks
    for name in changed:
        assert torch.linalg.matrix_rank(refined.weights[name] - original[name], rtol=1e-3) <= QUICK.lora_rank


def test_pieces_give_what_the_whole_gives(case: tuple[DepthNetwork, Tensor, Targets], refined: RefineResult) -> None:
    first = refinement(case)
    assert len(list(islice(first.steps(), 4))) == 4
    checkpoint = pickle.loads(pickle.dumps(first.checkpoint()))
    assert any(".parametrizations." in name for name in checkpoint.weights)
    second = refinement(case, checkpoint=checkpoint)
    assert [step.index for step in second.steps()] == [5, 6, 7, 8, 9]
    result = second.result()
    assert (result.losses, result.validation, result.best_step) == (
        refined.losses,
        refined.validation,
        refined.best_step,
    )
    assert all(torch.equal(value, refined.weights[name]) for name, value in result.weights.items())


def test_what_comes_out_is_what_was_validated(
    case: tuple[DepthNetwork, Tensor, Targets], refined: RefineResult
) -> None:
    """The live network, with its parts, and a plain one with the merged weights say the same."""
    live = refinement(case)
    for _ in live.steps():
        pass
    if live.result().best_step != QUICK.steps:
        pytest.fail("the last step is the best here, or this test compares two different steps")
    plain, images, _ = case
    merged = pickle.loads(pickle.dumps(plain))
    merged.load_state_dict(live.result().weights)
    maps = predict_maps(merged, images[:2], CPU, "after")
    for frame in range(2):
        np.testing.assert_allclose(maps[frame], live.depth(frame), rtol=1e-4)


def test_the_input_network_is_left_alone(case: tuple[DepthNetwork, Tensor, Targets], refined: RefineResult) -> None:
    assert not any("parametrizations" in name for name in case[0].state_dict())
    assert all(value.requires_grad for value in case[0].parameters())
