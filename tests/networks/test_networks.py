"""The contract over every registered network, and parity of the adapters with the published ones."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sfmttr import networks
from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks import lookup
from sfmttr.networks.base import DepthNetwork, TorchPredictor, resize_depth, resize_image, state_dict_cpu
from sfmttr.networks.lookup import entry
from sfmttr.networks.models import monodepth
from sfmttr.networks.models.adabins import AdaBins
from sfmttr.networks.models.meter import Meter, positive
from sfmttr.networks.models.rt_monodepth import RtMonoDepthS
from sfmttr.types import DepthKind
from tests.support.data_paths import data_root, existing, parity_root, weights_root

every_network = pytest.mark.parametrize("name", networks.built_in())
LARGE = 5_000_000
"""Parameters from which on a network is tested on pictures of few pixels, and mostly in the slow set."""
KITTI_SIZES = ((370, 1224), (370, 1226), (374, 1238), (375, 1242), (376, 1241))
SIZES = {"street": (375, 1242), "odd": (97, 131), "tall": (640, 361), "tiny": (1, 1), "panorama": (20, 110)}


def is_large(name: str) -> bool:
    return entry(name).parameters >= LARGE


def with_marks(name: str) -> ParameterSet:
    return pytest.param(name, marks=[pytest.mark.slow] if is_large(name) else [])


def small(network: DepthNetwork, patch: pytest.MonkeyPatch) -> DepthNetwork:
    """`network`, working on as few pixels as it can, if it is large."""
    if isinstance(network, AdaBins):
        network.domain = replace(network.domain, cells=132)
    elif is_large(network.info.name):
        patch.setattr(monodepth, "WORKING_AREA", 80 * 200)
    return network


@pytest.fixture(scope="module", params=[with_marks(name) for name in networks.built_in()])
def network(request: pytest.FixtureRequest) -> Iterator[DepthNetwork]:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        yield small(networks.build(request.param), patch)


def input_of(network: DepthNetwork, hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Input of `network` for a picture of noise with source frames of other noise."""
    count = 1 + len(network.source_offsets)
    return torch.cat([network.prepare(image_of(hw, seed + 10 * i)) for i in range(count)], dim=1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These networks are too small for more to pay, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def image_of(hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


# --------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("hw", SIZES.values(), ids=SIZES)
def test_output_is_positive_and_finite_at_any_size(network: DepthNetwork, hw: tuple[int, int]) -> None:
    assert network.prepare(image_of(hw)).shape == (1, 3, *network.input_hw(hw))
    image = input_of(network, hw)
    with torch.inference_mode():
        output = network.predict_full(image)
    assert output.shape[:2] == (1, 1)
    assert torch.isfinite(output).all()
    assert (output > 0).all()


def test_predictor_gives_depth_at_image_size(network: DepthNetwork) -> None:
    rgb = image_of((97, 131))
    predictor = TorchPredictor(network)
    first, second = predictor.predict(rgb), predictor.predict(rgb)
    assert first.shape == (97, 131)
    assert first.dtype == np.float32
    assert predictor.kind is network.info.kind
    np.testing.assert_array_equal(first, second)


def test_predictor_takes_a_working_size(network: DepthNetwork) -> None:
    rgb, hw = image_of((97, 131)), network.input_hw((120, 90))
    with torch.inference_mode():
        image = resize_image(network.prepare(rgb, (97, 131)), hw).repeat(1, 1 + len(network.source_offsets), 1, 1)
        own = resize_depth(network.predict_full(image), (97, 131))
    np.testing.assert_array_equal(TorchPredictor(network, hw).predict(rgb), own[0, 0])


def test_a_batch_is_its_images(network: DepthNetwork) -> None:
    one, other = (input_of(network, (60, 90), seed) for seed in (1, 2))
    with torch.inference_mode():
        together, apart = network(torch.cat((one, other))), torch.cat((network(one), network(other)))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_encoder_parameter(network: DepthNetwork) -> None:
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    network.zero_grad()
    network(input_of(network, (60, 90))).log().mean().backward()
    encoder = dict(network.encoder_parameters())
    assert encoder
    assert encoder.keys() <= network.state_dict().keys()
    without = [name for name, parameter in encoder.items() if parameter.grad is None or not parameter.grad.any()]
    assert without == []
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, statistics[name])


def test_training_graph_agrees_with_inference(network: DepthNetwork) -> None:
    """A network may take shortcuts while gradients are on."""
    torch.manual_seed(0)
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    image = input_of(network, (60, 90))
    with torch.no_grad():
        expected = network(image)
    torch.testing.assert_close(network(image).detach(), expected, rtol=1e-4, atol=1e-6)


def test_preferred_memory_format_changes_nothing(network: DepthNetwork) -> None:
    image = input_of(network, (60, 90))
    layout = network.preferred_memory_format
    with torch.inference_mode():
        expected = network(image)
        output = copy.deepcopy(network).to(memory_format=layout)(image.to(memory_format=layout))
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-6)


def test_constructed_ready_to_predict(network: DepthNetwork) -> None:
    assert not network.training
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    assert sum(parameter.numel() for parameter in network.parameters()) == entry(network.info.name).parameters


def test_state_survives_safetensors(network: DepthNetwork, tmp_path: Path) -> None:
    save_file(dict(state_dict_cpu(network)), tmp_path / "refined.safetensors", lookup.weights_metadata(network))
    loaded = networks.load_refined(tmp_path / "refined.safetensors")
    assert loaded.info == network.info
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


# --------------------------------------------------------------------------------------- lookup


def test_listing_needs_no_torch() -> None:
    code = "import sys, sfmttr.networks as n; n.describe_all(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(NetworkError, match=r"did you mean .*meter-xxs-kitti.*rt-monodepth-s"):
        networks.load("meter-xxs-kiti")


def test_description_of_every_network(tmp_path: Path) -> None:
    summaries = networks.describe_all(tmp_path)
    assert [summary.info.name for summary in summaries] == list(networks.names())
    assert all(summary.info.licence and summary.info.description for summary in summaries)


@every_network
def test_published_files_are_https(name: str) -> None:
    for file in entry(name).files:
        assert file.url is None or file.url.startswith("https://")
        assert file.shipped or file.page.startswith("https://")


def test_refined_weights_of_another_network_do_not_load(tmp_path: Path) -> None:
    terms = lookup.weights_metadata(networks.build("meter-xxs-nyu"))
    save_file(dict(state_dict_cpu(networks.build("rt-monodepth-s"))), tmp_path / "rt.safetensors", terms)
    with pytest.raises(WeightsError, match=r"rt\.safetensors does not fit.*missing.*unexpected"):
        networks.load_refined(tmp_path / "rt.safetensors")


@pytest.mark.parametrize("terms", [None, {"network": "bundled"}, {"network": "bundled", "kind": "guesses"}])
def test_weights_that_say_nothing_of_their_network_do_not_load(terms: dict[str, str] | None, tmp_path: Path) -> None:
    save_file(dict(state_dict_cpu(networks.build("bundled"))), tmp_path / "mine.safetensors", terms)
    with pytest.raises(WeightsError, match=r"mine\.safetensors does not say which network"):
        networks.load_refined(tmp_path / "mine.safetensors")


# ----------------------------------------------------------------------------------- working sizes


@pytest.mark.parametrize(
    ("name", "hw", "expected"),
    [
        ("meter-xxs-kitti", (375, 1242), (192, 636)),
        ("meter-xxs-kitti", (370, 1226), (192, 636)),
        ("meter-xxs-kitti", (1242, 375), (640, 192)),
        ("meter-xxs-nyu", (375, 1242), (192, 640)),
        ("meter-xxs-nyu", (480, 640), (192, 256)),
        ("meter-xxs-nyu", (640, 480), (256, 192)),
        ("meter-xxs-kitti", (1080, 1920), (192, 320)),
        ("meter-xxs-kitti", (10, 9000), (192, 1280)),
        ("rt-monodepth-s", (375, 1242), (192, 640)),
        ("rt-monodepth-s", (480, 640), (480, 640)),
        ("rt-monodepth-s", (1920, 1080), (640, 352)),
        ("rt-monodepth-s", (10, 9000), (32, 640)),
        *((name, (h, w), (320, 1024)) for name in ("manydepth", "cadepth", "diffnet") for h, w in KITTI_SIZES),
        ("diffnet", (480, 640), (480, 640)),
        ("diffnet", (1920, 1080), (736, 416)),
        ("diffnet", (10, 9000), (64, 1280)),
        *(("adabins", size, size) for size in KITTI_SIZES),
        ("adabins", (374, 1242), (352, 1184)),
        ("adabins", (1080, 1920), (480, 864)),
        ("adabins", (10, 9000), (128, 1920)),
        ("adabins", (1, 1), (640, 640)),
        ("adabins-nyu", (480, 640), (480, 640)),
        ("adabins-nyu", (375, 1242), (320, 1056)),
    ],
)
def test_working_size(name: str, hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert networks.build(name).input_hw(hw) == expected


def test_positive_is_identity_above_the_floor_and_keeps_a_slope_below() -> None:
    raw = torch.tensor([-1e4, -10.0, 0.0, 9.99, 10.0, 500.0], requires_grad=True)
    bent = positive(raw, 10.0)
    assert (bent > 0).all()
    assert (bent.diff() > 0).all()
    torch.testing.assert_close(bent[-2:], raw[-2:])
    (slope,) = torch.autograd.grad(bent.sum(), raw)
    assert (slope > 0).all()
    torch.testing.assert_close(slope[1:], torch.tensor([1 / 9, 1 / 4, 0.998, 1.0, 1.0]), rtol=1e-3, atol=0)


# ------------------------------------------------------------------------------------------ parity


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    with np.load(existing(parity_root() / "edge_networks.npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def published_keys() -> dict[str, dict]:
    return json.loads(existing(parity_root() / "edge_networks.keys.json").read_text())


def frame(hw: tuple[int, int]) -> Tensor:
    """Frame 10 of drive_0002, resized as the parity data's was."""
    folder = existing(data_root() / "kitti_drive_0002" / "image_02")
    with Image.open(next(folder.rglob("0000000010.png"))) as image:
        rgb = np.array(image.resize((hw[1], hw[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def generated(name: str, shape: list[int], gain: float = 1.0) -> Tensor:
    """A weight as a function of its name (parity README)."""
    values = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        values = 1 + 0.2 * np.abs(values)
    elif name.endswith("running_mean"):
        values = 0.1 * values
    elif len(shape) > 1:
        values = values * np.sqrt(gain / np.prod(shape[1:]))
    else:
        values = 1 + 0.1 * values if name.endswith("weight") else 0.05 * values
    return torch.from_numpy(values.astype(np.float32))


def shapes(network: DepthNetwork) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize(("name", "hw"), [("meter-xxs-kitti", (192, 636)), ("meter-xxs-nyu", (192, 256))])
@torch.inference_mode()
def test_meter_xxs_is_the_published_network(
    name: str, hw: tuple[int, int], published: dict[str, np.ndarray], published_keys: dict[str, dict]
) -> None:
    network = networks.load(name, existing(weights_root()))
    assert isinstance(network, Meter)
    assert shapes(network) == published_keys["meter_xxs"]
    expected = torch.from_numpy(published[name.replace("-", "_")])
    torch.testing.assert_close(network.raw(frame(hw)), expected, rtol=1e-5, atol=0)


@torch.inference_mode()
def test_meter_kitti_gives_metres(published: dict[str, np.ndarray]) -> None:
    network = networks.load("meter-xxs-kitti", existing(weights_root()))
    expected = torch.from_numpy(published["meter_xxs_kitti"]) * 0.1
    torch.testing.assert_close(network(frame((192, 636))), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", ["xs", "s"])
@torch.inference_mode()
def test_larger_meters_are_the_published_networks(
    size: str, published: dict[str, np.ndarray], published_keys: dict[str, dict]
) -> None:
    network = networks.build(f"meter-{size}-kitti")
    assert isinstance(network, Meter)
    keys = published_keys[f"meter_{size}"]
    assert shapes(network) == keys
    network.load_state_dict({name: generated(f"model.{name}", shape) for name, shape in keys.items()})
    image = np.random.Generator(np.random.PCG64(6)).random((1, 3, 192, 640)).astype(np.float32)
    expected = torch.from_numpy(published[f"meter_{size}"])
    torch.testing.assert_close(network.raw(torch.from_numpy(image)), expected, rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_rt_monodepth_is_the_published_network(published: dict[str, np.ndarray]) -> None:
    network = networks.load("rt-monodepth-s", existing(weights_root()))
    assert isinstance(network, RtMonoDepthS)
    image = frame((192, 640))
    disparity, depth = (torch.from_numpy(published[f"rt_monodepth_s_m.{what}"]) for what in ("disp", "depth"))
    torch.testing.assert_close(network.disparity(image), disparity, rtol=0, atol=1e-5)
    torch.testing.assert_close(network(image), depth, rtol=1e-5, atol=0)


def test_nyu_weights_see_a_room() -> None:
    """Pins their input normalisation: without it the correlation is negative."""
    predictor = TorchPredictor(networks.load("meter-xxs-nyu", existing(weights_root())))
    assert predictor.kind is DepthKind.METRIC
    folder = existing(data_root() / "redkitchen")
    images, truths = sorted((folder / "rgb").iterdir()), sorted((folder / "depth").iterdir())
    correlations, scales = [], []
    for i in range(0, len(images), 20):
        depth = predictor.predict(np.array(Image.open(images[i]).convert("RGB")))
        truth = np.array(Image.open(truths[i])).astype(np.float32) / 1000
        known = (truth > 0) & (truth < 10)
        correlations.append(np.corrcoef(np.log(depth[known]), np.log(truth[known]))[0, 1])
        scales.append(np.median(truth[known] / depth[known]))
    assert np.median(correlations) > 0.7
    assert 0.4 < np.median(scales) < 2.5


WITH_EARLY_PART = [name for name in networks.built_in() if not is_large(name)]


@pytest.mark.parametrize("name", [name for name in networks.built_in() if is_large(name)])
def test_large_networks_keep_no_early_features(name: str) -> None:
    """They would take gigabytes for a clip."""
    assert list(networks.build(name).stem_parameters()) == []


@pytest.mark.parametrize("name", WITH_EARLY_PART)
def test_early_and_late_part_are_the_network(name: str) -> None:
    network = networks.build(name)
    image = torch.rand(1, 3, *network.input_hw((120, 160)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.forward_from_stem(*network.stem_features(image)), network(image))


@pytest.mark.parametrize("name", WITH_EARLY_PART)
def test_early_parameters_are_those_that_early_features_use(name: str) -> None:
    network = networks.build(name)
    early, encoder = dict(network.stem_parameters()), dict(network.encoder_parameters())
    assert early.keys() < encoder.keys()
    features = network.stem_features(torch.rand(1, 3, *network.input_hw((120, 160))))
    sum(feature.sum() for feature in features).backward()
    used = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert used == set(early)
