"""The paper's four networks: parity with the published ones, their authors' files, and what each has of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfmttr import networks
from sfmttr.errors import WeightsError
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.lookup import entry
from sfmttr.networks.models.adabins import AdaBins
from sfmttr.networks.models.cadepth import CADepth
from sfmttr.networks.models.diffnet import DIFFNet
from sfmttr.networks.models.manydepth import ManyDepth, rotation_of
from sfmttr.networks.weights import apply_state
from tests.support.data_paths import existing, parity_root
from tests.support.paper_weights import PAPER, noise, published_files


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Results repeat bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Published:
    """Parity data of one network."""

    def __init__(self, name: str) -> None:
        self.name = name
        with np.load(existing(parity_root() / f"{name}.npz")) as arrays:
            self.arrays = dict(arrays)

    def network(self) -> DepthNetwork:
        network = networks.build(self.name)
        apply_state(network, network.merge_checkpoints(published_files(self.name)), self.name)
        return network

    def agrees(self, key: str, value: Tensor, *, relative: bool = False) -> None:
        expected = torch.from_numpy(self.arrays[key])
        tolerance = {"rtol": 1e-4, "atol": 0.0} if relative else {"rtol": 0.0, "atol": 1e-4}
        torch.testing.assert_close(value.reshape(expected.shape), expected, **tolerance)


# ------------------------------------------------------------------------------------------ parity


@pytest.mark.parametrize(("name", "kind", "seed"), [("cadepth", CADepth, 2), ("diffnet", DIFFNet, 1)])
@torch.inference_mode()
def test_a_network_of_one_picture_is_the_published_one(name: str, kind: type[CADepth | DIFFNet], seed: int) -> None:
    published = Published(name)
    network, image = published.network(), noise((128, 416), seed)
    assert isinstance(network, kind)
    levels = network.depth.levels(network.encoder(image))
    for scale in range(4):
        published.agrees(f"disp{scale}", network.depth.disparity(levels, scale))
    published.agrees("depth", network(image), relative=True)


@torch.inference_mode()
def test_manydepth_is_the_published_network() -> None:
    published = Published("manydepth")
    network = published.network()
    assert isinstance(network, ManyDepth)
    previous, current = (noise((128, 416), seed) for seed in (3, 4))
    axis_angle, translation = network.motion(current, previous)
    expected = (torch.from_numpy(published.arrays[key][:, 0]) for key in ("axisangle", "translation"))
    for value, known in zip((axis_angle, translation), expected, strict=True):
        torch.testing.assert_close(value.reshape(known.shape), known, rtol=1e-4, atol=1e-9)
    motion = network.previous_from_current(current, previous)
    torch.testing.assert_close(motion, torch.from_numpy(published.arrays["pose"][:, :3]), rtol=0, atol=1e-7)
    cost, confidence = network.encoder.costs(
        network.encoder.early(current), network.encoder.early(previous), motion, network.depths()
    )
    published.agrees("confidence_mask", confidence)
    sure = confidence[:, 0] > 0  # elsewhere the authors look for the least cost among others
    lowest = (1 / network.depths())[cost.argmin(dim=1)]
    same = (lowest - torch.from_numpy(published.arrays["lowest_cost"])).abs() < 1e-4
    assert same[sure].float().mean() > 0.999, "rounding may turn a tie, and no more"
    levels = network.depth.levels(network.features(current, previous))
    for scale in range(4):
        published.agrees(f"disp{scale}", network.depth.disparity(levels, scale))
    published.agrees("depth", network(torch.cat((current, previous), dim=1)), relative=True)


@torch.inference_mode()
def test_adabins_is_the_published_network() -> None:
    published = Published("adabins")
    network = published.network()
    assert isinstance(network, AdaBins)
    edges, depth = network.edges_and_depth(noise((352, 704), 5))
    published.agrees("bin_edges", edges, relative=True)
    published.agrees("depth", depth, relative=True)


# --------------------------------------------------------------------------------- the authors' files


@pytest.mark.parametrize("name", PAPER)
def test_files_from_disk(name: str, tmp_path: Path) -> None:
    for file, content in zip(entry(name).files, published_files(name), strict=True):
        path = tmp_path / (file.aliases[0] if name == "cadepth" else file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    network = networks.load(name, tmp_path)
    assert sum(parameter.numel() for parameter in network.parameters()) == entry(name).parameters
    assert not network.training


@pytest.mark.parametrize("name", PAPER)
def test_a_missing_or_foreign_weight_is_an_error(name: str) -> None:
    network = networks.build(name)
    state = dict(network.merge_checkpoints(published_files(name)))
    some = next(name for name, _ in network.encoder_parameters())
    with pytest.raises(WeightsError, match="missing"):
        apply_state(network, {key: value for key, value in state.items() if key != some}, name)
    with pytest.raises(WeightsError, match="unexpected"):
        apply_state(network, state | {"encoder.more.weight": state[some]}, name)


def test_copies_of_a_weight_have_to_be_equal() -> None:
    encoder, decoder = published_files("diffnet")
    first = next(key for key in decoder if key.startswith("convs."))
    with pytest.raises(WeightsError, match="differs from its copy"):
        networks.build("diffnet").merge_checkpoints([encoder, decoder | {first: decoder[first] + 1}])


def test_either_name_of_a_decoder_loads() -> None:
    encoder, decoder = published_files("diffnet")
    network = networks.build("diffnet")
    for kept in ("convs.", "decoder."):
        part = {key: value for key, value in decoder.items() if key.startswith(kept)}
        apply_state(network, network.merge_checkpoints([encoder, part]), kept)


def test_older_names_of_adabins_load() -> None:
    (file,) = published_files("adabins")
    older = {
        "adaptive_bins_layer.conv3x3.": "adaptive_bins_layer.embedding_conv.",
        "patch_transformer.embedding_convPxP.": "patch_transformer.embedding_encoder.",
    }
    renamed = dict(file["model"])
    for now, before in older.items():
        renamed = {key.replace(now, before): value for key, value in renamed.items()}
    assert renamed.keys() != file["model"].keys()
    network = networks.build("adabins")
    apply_state(network, network.merge_checkpoints([{"model": renamed}]), "older")


def test_the_range_of_depths_comes_from_the_file() -> None:
    network = networks.build("manydepth")
    assert isinstance(network, ManyDepth)
    assert network.depths()[[0, -1]].tolist() == pytest.approx([0.1, 20.0])
    encoder, *rest = published_files("manydepth")
    encoder |= {"min_depth_bin": 0.25, "max_depth_bin": torch.tensor(12.0)}
    apply_state(network, network.merge_checkpoints([encoder, *rest]), "bins")
    assert network.depths()[[0, -1]].tolist() == pytest.approx([0.25, 12.0])


@pytest.mark.parametrize("name", ["adabins", "cadepth", "diffnet"])
def test_what_cannot_be_fetched_is_described(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        networks.load(name, tmp_path)
    message = str(raised.value)
    assert "https://drive.google.com/" in message
    assert entry(name).info.source in message
    assert str(tmp_path) in message
    assert Path(entry(name).files[0].name).name in message


# --------------------------------------------------------------------------------- what each has of its own


def encoder_names(name: str) -> set[str]:
    return {name for name, _ in networks.build(name).encoder_parameters()}


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("cadepth", ("encoder.",)),
        ("diffnet", ("encoder.",)),
        ("manydepth", ("encoder.", "pose_encoder.")),
        ("adabins", ("encoder.", "adaptive_bins_layer.patch_transformer.transformer_encoder.")),
    ],
)
def test_what_counts_as_the_encoder(name: str, prefixes: tuple[str, ...]) -> None:
    everything = {name for name, _ in networks.build(name).named_parameters()}
    assert encoder_names(name) == {name for name in everything if name.startswith(prefixes)}
    for prefix in prefixes:
        assert any(each.startswith(prefix) for each in everything)


def test_manydepth_takes_the_frame_before() -> None:
    network = networks.build("manydepth")
    images = torch.rand(4, 3, 64, 96)
    assert network.source_offsets == (-1,)
    assert torch.equal(network.stack_source_frames(images, 2), torch.cat((images[2:3], images[1:2]), dim=1))
    assert torch.equal(network.stack_source_frames(images, 0), torch.cat((images[:1], images[:1]), dim=1))
    assert torch.equal(
        network.stack_source_frames(images, 2, left_out={1}), torch.cat((images[2:3], images[2:3]), dim=1)
    )


def test_rotation_is_a_rotation_and_smooth_at_none() -> None:
    axis_angle = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.5]], requires_grad=True)
    rotation = rotation_of(axis_angle)
    torch.testing.assert_close(rotation[0], torch.eye(3))
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).repeat(2, 1, 1))
    cross = torch.tensor([[0.0, -0.5, -0.2], [0.5, 0.0, -0.3], [0.2, 0.3, 0.0]])
    torch.testing.assert_close(rotation[1], torch.linalg.matrix_exp(cross), rtol=1e-5, atol=1e-6)
    rotation.sum().backward()
    assert axis_angle.grad is not None
    assert torch.isfinite(axis_angle.grad).all()


@pytest.mark.parametrize("name", ["adabins", "adabins-nyu", "diffnet"])
def test_only_adabins_of_kitti_looks_at_a_part(name: str) -> None:
    network = networks.build(name)
    part = network.crop(torch.rand(1, 3, 375, 1242))
    assert part.shape[2:] == ((352, 1216) if name == "adabins" else (375, 1242))


def test_kitti_is_cropped_at_the_middle_of_the_bottom() -> None:
    network = networks.build("adabins")
    rows, columns = torch.meshgrid(torch.arange(376.0), torch.arange(1241.0), indexing="ij")
    part = network.crop(torch.stack((rows, columns, rows))[None])
    assert part[0, :2, 0, 0].tolist() == [24.0, 12.0]
    assert part[0, :2, -1, -1].tolist() == [375.0, 1227.0]


def test_depth_outside_of_the_crop_goes_on_from_its_border() -> None:
    network = networks.build("adabins")
    hw, depth = (375, 1242), torch.rand(1, 1, 176, 608) + 1
    whole = network.pad_to_full(depth, hw)
    assert whole.shape == (1, 1, *hw)
    full = torch.nn.functional.interpolate(depth, (352, 1216), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.crop(whole), full)
    assert torch.equal(whole[0, 0, 0, 13:-13], full[0, 0, 0])
    assert torch.equal(whole[0, 0, 23:, 0], full[0, 0, :, 0])


def test_places_outside_of_the_crop_are_not_seen() -> None:
    network, hw = networks.build("adabins"), (375, 1242)
    xy_px = np.array([[13.5, 23.5], [12.5, 100], [1228.5, 374.5], [1229.5, 100], [600, 22.5]])
    grid = 2 * xy_px / hw[::-1] - 1
    assert network.valid_region(grid, hw).tolist() == [True, False, True, False, False]
    assert network.valid_region(grid, (480, 640)).all()
    assert networks.build("cadepth").valid_region(grid, hw).all()


@torch.inference_mode()
def test_matching_is_exact_where_the_rest_is_not() -> None:
    """bfloat16 could not tell one pixel from the next."""
    network = networks.build("manydepth")
    assert isinstance(network, ManyDepth)
    current, previous = torch.rand(2, 1, 64, 24, 40)
    motion = torch.eye(3, 4)[None] + 0.01 * torch.rand(1, 3, 4)
    arguments = current, previous, motion, network.depths()
    expected, confidence = network.encoder.costs(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost, confident = network.encoder.costs(*arguments)
        assert cost.dtype is torch.float32
    torch.testing.assert_close(cost, expected)
    assert torch.equal(confident, confidence)
    assert 0 < expected.mean() < 1
