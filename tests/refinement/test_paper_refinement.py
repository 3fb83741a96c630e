"""Each of the paper's networks is refined for 20 steps on a clip, with made-up weights, and exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from export import latency, parity, to_onnx
from export.exporter import ExportConfig, export_run
from export.runtime import OnnxDepth
from export.spec import DEFAULT_OPSET, TOLERANCES, Variant, file_name
from sfmttr import networks
from sfmttr.config import Objective, OutputConfig, Preset, RunConfig, VideoConfig
from sfmttr.networks.base import DepthNetwork, TorchPredictor, state_dict_cpu
from sfmttr.networks.models import adabins, monodepth
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.task import RefineStep
from sfmttr.run import pipeline
from tests.support.fakes import FakeSfm
from tests.support.paper_weights import PAPER, write_published
from tools.synthetic import render_room, write_frames

slow, heavy = pytest.mark.slow, pytest.mark.heavy
LIGHTEST = "diffnet"
"""Networks checked by default; the other two with -m heavy."""
STEPS = 20
HW = (96, 128)


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As few as the networks can work on, and one thread, as elsewhere."""
    monkeypatch.setattr(monodepth, "WORKING_AREA", 64 * 96)
    least = {name: replace(domain, cells=132) for name, domain in adabins.DOMAINS.items()}
    monkeypatch.setattr(adabins, "DOMAINS", least)
    monkeypatch.setattr(latency, "WARM_UP", 0)
    monkeypatch.setattr(latency, "REPEATS", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moved(before: dict[str, Tensor], network: DepthNetwork) -> set[str]:
    return {name for name, value in state_dict_cpu(network).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow if name == LIGHTEST else heavy) for name in PAPER])
def test_refined_and_exported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(name, tmp_path / "weights")
    room = render_room(5, HW)
    write_frames(room, tmp_path / "clip")
    FakeSfm(room).install(monkeypatch)
    original = dict(state_dict_cpu(networks.load(name, tmp_path / "weights")))
    losses: list[float] = []
    changed: set[str] = set()

    def note(step: RefineStep, refinement: Refinement) -> None:
        losses.append(step.loss)
        if step.index == STEPS:
            changed.update(moved(original, refinement._network))

    config = RunConfig(
        network=name,
        weights_dir=tmp_path / "weights",
        preset=Preset.PAPER,
        steps=STEPS,
        force=True,
        device="cpu",
        video=VideoConfig(duplicate_threshold=0.0),
        output=OutputConfig(pictures=False, clouds=False),
    )
    result = pipeline.run(tmp_path / "clip", tmp_path / "run", config, on_step=note)
    assert result.refined is not None, result.advice
    # A step a frame, in rounds of five.
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert changed == {name for name, _ in networks.build(name).encoder_parameters()}

    report = export_run(tmp_path / "run", config=ExportConfig(variants=(Variant.FP32,)))
    exported = report.variants[Variant.FP32]
    assert len({case.hw for case in exported.parity}) >= 3
    assert parity.violation(exported.parity, TOLERANCES[Variant.FP32]) == ""
    predictor = OnnxDepth(tmp_path / "run" / "export" / file_name(Variant.FP32))
    assert predictor.source_offsets == networks.build(name).source_offsets
    inputs = [each.name for each in predictor._session.get_inputs()]
    assert inputs == (["image", "previous"] if name == "manydepth" else ["image"])
    if name == "manydepth":
        one, other = room.rgb[2], room.rgb[0]
        assert np.abs(predictor.predict(one, other) - predictor.predict(one)).max() > 0, "it looks at both"


@heavy
@pytest.mark.parametrize("name", ["manydepth", "diffnet"])
def test_photometric_refinement_moves_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(name, tmp_path / "weights")
    room = render_room(4, HW)
    write_frames(room, tmp_path / "clip")
    FakeSfm(room).install(monkeypatch)
    original = dict(state_dict_cpu(networks.load(name, tmp_path / "weights")))
    changed: set[str] = set()
    config = RunConfig(
        network=name,
        weights_dir=tmp_path / "weights",
        preset=Preset.PAPER,
        objective=Objective.PHOTOMETRIC,
        steps=2,
        force=True,
        device="cpu",
        video=VideoConfig(duplicate_threshold=0.0),
        output=OutputConfig(pictures=False, clouds=False),
    )
    pipeline.run(
        tmp_path / "clip",
        tmp_path / "run",
        config,
        on_step=lambda step, refinement: changed.update(moved(original, refinement._network)),
    )
    assert changed == {name for name, _ in networks.build(name).encoder_parameters()}


@heavy
@torch.inference_mode()
def test_core_graph_takes_any_size(tmp_path: Path, room_frames) -> None:  # type: ignore[no-untyped-def]
    """DIFFNet's; AdaBins passes, too, and takes minutes."""
    name = "diffnet"
    write_published(name, tmp_path)
    network = networks.load(name, tmp_path)
    traced, sizes = parity.core_sizes(network, HW)
    path = tmp_path / "core.onnx"
    to_onnx.save(to_onnx.core_graph(network, traced, 1.0, DEFAULT_OPSET), path)
    monkeypatched = parity.CORE_BATCHES
    parity.CORE_BATCHES = (1,)
    try:
        cpu = ("CPUExecutionProvider",)
        cases = parity.check_core_graph(path, network, sizes[:2], 1.0, room_frames, cpu)
    finally:
        parity.CORE_BATCHES = monkeypatched
    assert parity.violation(cases, TOLERANCES[Variant.FP32]) == ""
    dims = onnxruntime.InferenceSession(path).get_inputs()[0].shape
    assert dims == ["batch", 3, "height", "width"]


@slow
@torch.inference_mode()
def test_image_graph_of_a_cropped_network_is_the_predictor(tmp_path: Path) -> None:
    """At KITTI's size, where AdaBins looks at a part; torch's side of it, which is what is exported."""
    network = networks.build("adabins")
    network.forward = lambda image: torch.nn.functional.avg_pool2d(image, 2).mean(1, keepdim=True)  # type: ignore[method-assign]
    rgb = np.random.default_rng(0).integers(0, 256, (375, 1242, 3), np.uint8)
    hw = network.input_hw((375, 1242))
    depth = to_onnx.ImageGraph(network, hw, 1.0)(torch.from_numpy(rgb)[None])
    np.testing.assert_allclose(depth[0].numpy(), TorchPredictor(network).predict(rgb), rtol=1e-5)
    assert np.ptp(depth[0, :24, 600].numpy()) == 0
