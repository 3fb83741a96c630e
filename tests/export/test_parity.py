"""A network that cannot be exported faithfully is refused: what differed, where, by how much, and no file."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from export import bisect, parity, spec, to_onnx
from export.errors import ExportError, ParityError
from export.exporter import ExportConfig, export_run
from export.kit.builder import build_kit
from export.runtime import OnnxDepth
from export.spec import Variant
from sfmttr.networks import catalog, lookup
from sfmttr.networks.base import TorchPredictor
from sfmttr.run.finished import FinishedRun
from sfmttr.types import HW
from tests.support.exported import HW as FRAME_HW
from tests.support.exported import Exported
from tests.support.fakes import TINY, TINY_INFO, FakeSfm, TinyNetwork
from tools.synthetic import RenderedClip, render_room

OPSET = spec.DEFAULT_OPSET


class SizeBuiltIn(TinyNetwork):
    """Takes a size as a number, which tracing does once and for all: the graph declares free sizes, and has none."""

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        depth = super().forward_from_stem(*features)
        return functional.interpolate(depth, (int(depth.shape[-2]), int(depth.shape[-1])), mode="nearest")


class OtherOperator(TinyNetwork):
    """Another operator in a traced graph than in torch, in one module."""

    def __init__(self) -> None:
        super().__init__(TINY_INFO)
        self.decoder[1].register_forward_hook(self._wrong)

    @staticmethod
    def _wrong(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return 1.02 * output if torch.compiler.is_compiling() else output


class SeesBefore(TinyNetwork):
    """Depth of a frame, and a little of the one before it; looks at the left three quarters alone."""

    source_offsets = (-1,)

    def forward(self, image: Tensor) -> Tensor:
        current, previous = image.split(3, dim=1)
        return super().forward(current) + 0.1 * super().forward(previous)

    def crop(self, image: Tensor) -> Tensor:
        return image[..., :120] if image.shape[-1] == 160 else image

    def pad_to_full(self, depth: Tensor, hw: HW) -> Tensor:
        return functional.pad(depth, (0, 10, 0, 0), mode="replicate") if hw[1] == 160 else depth


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    """Inputs of the exported run."""
    return render_room(8, FRAME_HW)


RunOf = Callable[[type[TinyNetwork]], Path]


@pytest.fixture
def run_of(exported: Exported, clip: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOf:
    """A copy of the run, of a network that misbehaves."""
    FakeSfm(clip).install(monkeypatch)

    def make(network: type[TinyNetwork]) -> Path:
        folder = shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "kit.zip"))
        entry = lookup.entry(TINY)
        monkeypatch.setitem(
            catalog.ENTRIES,
            TINY,
            catalog.NetworkEntry(entry.info, entry.parameters, entry.files, lambda _: network()),
        )
        return folder

    return make


def test_an_operator_that_differs_is_refused(run_of: RunOf) -> None:
    run = run_of(OtherOperator)
    before = {path.name for path in run.iterdir()}
    with pytest.raises(ParityError) as refused:
        export_run(run)
    message = str(refused.value)
    assert message.startswith("depth-fp32.onnx is refused: on frame ")
    assert "150 x 200" in message
    assert " in onnxruntime and " in message
    assert "% apart" in message
    assert "The first module that differs is decoder.1: its output is off by" in message
    assert {path.name for path in run.iterdir()} == before


def test_a_size_that_is_built_in_is_refused(run_of: RunOf) -> None:
    run = run_of(SizeBuiltIn)
    with pytest.raises(ParityError) as refused:
        export_run(run, config=ExportConfig(variants=(Variant.FP32,), core=True))
    message = str(refused.value)
    assert message.startswith("depth-core.onnx is refused: for frame ")
    assert "128 x 160, batch 1, onnxruntime gives depth of shape (1, 40, 24) and torch (1, 32, 40)" in message
    assert "a size became a constant" in message
    assert not (run / "export").exists()


def test_a_network_with_a_size_built_in_still_gives_an_image_graph(run_of: RunOf) -> None:
    """There the network always works at one size."""
    report = export_run(run_of(SizeBuiltIn), config=ExportConfig(variants=(Variant.FP32,)))
    assert report.variants[Variant.FP32].max_relative < 1e-4


def test_a_network_that_cannot_be_traced_is_an_error(run_of: RunOf) -> None:
    class AsksForValues(TinyNetwork):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image if image.mean() > 2 else image * 0.5)

    run = run_of(AsksForValues)
    with pytest.raises(ExportError, match="torch cannot export tiny-test: "):
        export_run(run)
    assert not (run / "export").exists()


def test_a_file_that_was_there_before_stays(run_of: RunOf) -> None:
    run = run_of(OtherOperator)
    (run / "export").mkdir()
    (run / "export" / "depth-fp32.onnx").write_bytes(b"of yesterday")
    with pytest.raises(ParityError):
        export_run(run)
    assert [path.name for path in (run / "export").iterdir()] == ["depth-fp32.onnx"]
    assert (run / "export" / "depth-fp32.onnx").read_bytes() == b"of yesterday"


# --------------------------------------------------------------- more than one picture, and parts of them


def test_a_network_that_sees_the_frame_before_takes_two_pictures(run_of: RunOf, tmp_path: Path) -> None:
    run = run_of(SeesBefore)
    report = export_run(run, config=ExportConfig(core=True))
    assert report.variants[Variant.FP32].max_relative < 1e-4
    assert report.core is not None
    core = onnx.load(run / "export" / spec.CORE_FILE)
    assert [value.name for value in core.graph.input] == ["image", "previous"]
    network = SeesBefore().eval()
    network.load_state_dict(FinishedRun.read(run).refined_network().state_dict())
    frames = FinishedRun.read(run).frames
    now, before = frames.read(5).rgb, frames.read(4).rgb
    exact = TorchPredictor(network, network.input_hw(frames.hw))
    for variant in Variant:
        predictor = OnnxDepth(run / "export" / spec.file_name(variant))
        assert predictor.source_offsets == (-1,)
        tolerance = spec.TOLERANCES[variant].mean_relative
        for given in ((before,), ()):
            expected = exact.predict(now, *given)
            assert np.mean(np.abs(predictor.predict(now, *given) / expected - 1)) < tolerance
        assert np.abs(predictor.predict(now, before) - predictor.predict(now)).max() > 0
    kit = build_kit(run, run / "export", tmp_path / "kit.zip")
    with zipfile.ZipFile(kit) as archive:
        assert "`previous`: frames beside the picture" in archive.read("README.md").decode()


def test_neighbours_have_to_be_like_the_picture(run_of: RunOf) -> None:
    run = run_of(SeesBefore)
    export_run(run, config=ExportConfig(variants=(Variant.FP32,)))
    predictor = OnnxDepth(run / "export" / spec.file_name(Variant.FP32))
    rgb = np.zeros((60, 80, 3), np.uint8)
    with pytest.raises(ValueError, match="neighbour of size"):
        predictor.predict(rgb, rgb[:40])
    with pytest.raises(ValueError, match="expected 1 neighbours, got 2"):
        predictor.predict(rgb, rgb, rgb)
    with pytest.raises(ValueError, match="uint8"):
        predictor.predict(rgb, rgb.astype(np.float32))
    with pytest.raises(ValueError, match="expected 1 source frames"):
        TorchPredictor(SeesBefore()).predict(rgb, rgb, rgb)


def test_names_of_inputs() -> None:
    assert spec.input_names(()) == ("image",)
    assert spec.input_names((-1, 1, -2)) == ("image", "previous", "next", "frame-2")


# ------------------------------------------------------------------------------- the check itself


def _edited(exported: Exported, path: Path, edit) -> OnnxDepth:  # type: ignore[no-untyped-def]
    model = onnx.load(exported.export / "depth-fp32.onnx")
    edit(model)
    onnx.save(model, path)
    return OnnxDepth(path)


def _cases(predictor: OnnxDepth, exported: Exported) -> tuple[parity.ParityCase, ...]:
    run = FinishedRun.read(exported.run)
    network = run.refined_network()
    return parity.check_image_graph(predictor, TorchPredictor(network, network.input_hw(run.frames.hw)), run.frames)


def test_a_weight_that_moved_is_seen_at_its_pixel(exported: Exported, tmp_path: Path) -> None:
    def move(model: onnx.ModelProto) -> None:
        bias = next(item for item in model.graph.initializer if item.name == "network.head.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))

    cases = _cases(_edited(exported, tmp_path / "moved.onnx", move), exported)
    for case in cases:
        assert case.max_relative == pytest.approx(np.expm1(0.01), rel=1e-3)
        assert case.onnx_value / case.torch_value - 1 == pytest.approx(case.max_relative)
    problem = parity.violation(cases, spec.TOLERANCES[Variant.FP32])
    assert "1.01% apart" in problem
    assert "0.01% at most are allowed" in problem
    assert parity.violation(cases, spec.TOLERANCES[Variant.INT8]) == ""


def test_an_output_of_fixed_size_is_seen(exported: Exported, tmp_path: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        resize = next(node for node in model.graph.node if node.name == "depth_out/Resize")
        resize.input[3] = "fixed"
        sizes = onnx.numpy_helper.from_array(np.array([1, 1, *to_onnx.TRACED_IMAGE_HW], np.int64), "fixed")
        model.graph.initializer.append(sizes)

    with pytest.raises(ParityError, match=r"depth of shape \(61, 83\) and torch \(150, 200\): a size became"):
        _cases(_edited(exported, tmp_path / "fixed.onnx", fix), exported)


def test_depth_of_nothing_is_seen() -> None:
    """Where both are 0 they differ by 0 / 0, beside which a pixel that is wrong by five times would not count."""
    exact, depth = np.array([[[0.0, 1.0]]], np.float32), np.array([[[0.0, 5.0]]], np.float32)
    with pytest.raises(ParityError, match="torch gives none at 1 pixel"):
        parity._case(depth, exact, 1, (1, 2), "0")


def test_depth_that_is_not_finite_is_seen(exported: Exported, tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        bias = next(item for item in model.graph.initializer if item.name == "network.head.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(1, 200, np.float32), bias.name))

    with pytest.raises(ParityError, match="not finite at 30000 pixels"):
        _cases(_edited(exported, tmp_path / "spoilt.onnx", spoil), exported)


def test_sizes_that_are_checked_were_not_traced() -> None:
    for hw in ((150, 200), to_onnx.TRACED_IMAGE_HW, (1, 1), (375, 1242)):
        sizes = parity.image_sizes(hw)
        assert to_onnx.TRACED_IMAGE_HW not in sizes
        assert len(sizes) >= 3 or hw == (1, 1)
    traced, sizes = parity.core_sizes(TinyNetwork(), (150, 200))
    assert len({traced, *sizes}) == 1 + parity.CORE_SIZES
    assert traced[0] != traced[1]


def test_a_network_of_one_size_has_no_core_graph() -> None:
    class OneSize(TinyNetwork):
        def input_hw(self, hw: HW) -> HW:
            return 64, 96

    with pytest.raises(ExportError, match="supports one size only"):
        parity.core_sizes(OneSize(), (150, 200))


def test_diagnosis_of_a_faithful_network_blames_no_module() -> None:
    network = TinyNetwork().eval()
    image = network.prepare(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    assert bisect.locate_mismatch(network, image, OPSET).startswith("Every module gives what it should")


def test_image_graph_is_the_torch_predictor() -> None:
    """The torch path at the frames' size is what is exported: no second way of resizing."""
    network = TinyNetwork().eval()
    rgb = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    hw = network.input_hw((150, 200))
    with torch.inference_mode():
        depth = to_onnx.ImageGraph(network, hw, 1.0)(torch.from_numpy(rgb)[None])
    assert depth.shape == (1, 150, 200)
    np.testing.assert_allclose(depth[0].numpy(), TorchPredictor(network).predict(rgb), rtol=1e-5)
