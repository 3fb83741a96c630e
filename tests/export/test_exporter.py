"""A run exported: what the files hold and say, that they are the network, and how wrong requests end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from export import spec, to_onnx
from export.__main__ import main
from export.errors import ExportError
from export.exporter import ExportConfig, export_run
from export.fp16 import to_fp16
from export.metric_scale import KnownDepth
from export.passes.output_range import SEGMENTS
from export.quantization.quantizer import Int8Quantizer
from export.runtime import OnnxDepth
from export.spec import Graph, ModelMetadata, Variant
from sfmttr import networks
from sfmttr.config import OutputConfig, RunConfig
from sfmttr.errors import ConfigError, DepthKindError, DeviceError, NetworkError, RunFolderError, SfmttrError
from sfmttr.evaluation.comparison import errors_at_points
from sfmttr.networks.base import TorchPredictor, antialiased_resize, resize_image
from sfmttr.run import pipeline
from sfmttr.run.finished import FinishedRun
from sfmttr.run.manifest import read_manifest
from sfmttr.types import Camera, DepthKind
from tests.support.data_paths import data_root, existing, weights_root
from tests.support.exported import HW, Exported
from tests.support.fakes import TINY, TINY_INFO, FakeSfm
from tools.synthetic import RenderedClip, render_room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report(exported: Exported) -> dict[str, Any]:
    """export_report.json"""
    return json.loads((exported.export / spec.REPORT).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(exported: Exported) -> FinishedRun:
    return FinishedRun.read(exported.run)


@pytest.fixture(scope="module")
def clip() -> RenderedClip:
    """Inputs of the exported run."""
    return render_room(8, HW)


@pytest.fixture
def copied(exported: Exported, clip: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, without its export, that a test may spoil."""
    FakeSfm(clip).install(monkeypatch)
    return shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("export", "kit.zip"))


# -------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("variant", Variant)
def test_a_file_is_self_contained_valid_and_anonymous(exported: Exported, variant: Variant) -> None:
    path = exported.export / spec.file_name(variant)
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(item.external_data for item in model.graph.initializer)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", spec.DEFAULT_OPSET)]
    assert model.ir_version == spec.IR_VERSION
    assert all(prop.key.startswith(spec.METADATA_PREFIX) for prop in model.metadata_props)
    assert not any(len(node.metadata_props) or node.doc_string for node in model.graph.node)
    content = path.read_bytes()
    for trace in (str(ROOT).encode(), b".py", b"site-packages", b"pkg.torch", os.path.expanduser("~/").encode()):
        assert trace not in content


@pytest.mark.parametrize("variant", Variant)
def test_sizes_are_free_and_types_as_promised(exported: Exported, variant: Variant) -> None:
    graph = onnx.load(exported.export / spec.file_name(variant)).graph
    (image,), (depth,) = graph.input, graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("image", TensorProto.UINT8)
    assert (depth.name, depth.type.tensor_type.elem_type) == ("depth", TensorProto.FLOAT)
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [1, "height", "width", 3]
    assert [d.dim_param or d.dim_value for d in depth.type.tensor_type.shape.dim] == [1, "height", "width"]


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("hw", [(1, 1), (37, 500), (333, 111), (150, 200), (601, 799)])
def test_depth_is_finite_and_positive_at_any_size(exported: Exported, variant: Variant, hw: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)
    depth = OnnxDepth(exported.export / spec.file_name(variant)).predict(rgb)
    assert (depth.shape, depth.dtype) == (hw, np.float32)
    assert np.isfinite(depth).all()
    assert (depth > 0).all()


@pytest.mark.parametrize("hw", [(150, 200), (75, 100), (400, 533), (200, 150), (128, 160)])
def test_fp32_is_the_torch_network(exported: Exported, run: FinishedRun, hw: tuple[int, int]) -> None:
    network = run.refined_network()
    rgb = run.frames.read(3).rgb
    rgb = np.ascontiguousarray(np.resize(rgb, (*hw, 3)))
    expected = TorchPredictor(network, network.input_hw(HW)).predict(rgb)
    np.testing.assert_allclose(OnnxDepth(exported.export / "depth-fp32.onnx").predict(rgb), expected, rtol=1e-4)


def test_metadata_are_those_of_the_run(exported: Exported, run: FinishedRun) -> None:
    held_out = run.report.comparison.held_out
    for variant in Variant:
        path = exported.export / spec.file_name(variant)
        props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
        found = ModelMetadata.from_props(props)
        assert len(props) == len(found.to_props())
        assert (found.graph, found.variant, found.network) == (Graph.IMAGE, variant, TINY)
        assert (found.kind, found.unit, found.scale) == ("scale_invariant", "network units", 1.0)
        assert (found.network_licence, found.network_source) == (TINY_INFO.licence, TINY_INFO.source)
        assert (found.frame_hw, found.working_hw) == (HW, run.refined_network().input_hw(HW))
        assert (found.clip_sha256, found.clip_frames) == (run.frames.content_hash, len(run.frames))
        assert found.held_out_abs_rel_before == held_out.before.abs_rel
        assert found.held_out_abs_rel_after == held_out.after.abs_rel
        assert found.held_out_points == held_out.after.count
        assert re.fullmatch("[0-9a-f]{64}", found.weights_sha256)


def test_metadata_survive_being_text() -> None:
    texts = dict.fromkeys(("version", "graph", "variant", "network", "network_source", "network_licence"), 'a "b" c')
    texts |= dict.fromkeys(("kind", "unit", "preset", "weights_sha256", "clip_sha256"), "1.0")
    given = ModelMetadata(
        schema=1,
        **texts,
        scale=0.1,
        refined=False,
        clip_frames=7,
        frame_hw=(3, 4),
        working_hw=(1, 2),
        held_out_abs_rel_before=None,
        held_out_abs_rel_after=1 / 3,
        held_out_points=0,
    )
    assert ModelMetadata.from_props(given.to_props() | {"other": "x"}) == given
    with pytest.raises(ValueError, match=r"lack sfmttr\.unit"):
        ModelMetadata.from_props({k: v for k, v in given.to_props().items() if k != "sfmttr.unit"})


def test_half_changes_the_network_alone(exported: Exported, run: FinishedRun) -> None:
    """Pictures of 0 to 255 in half floats would be rounded to a quarter of a grey level."""
    network = run.refined_network()
    exact = to_onnx.image_graph(network, network.input_hw(run.frames.hw), 1.0, spec.DEFAULT_OPSET)
    half = onnx.load(exported.export / "depth-fp16.onnx")
    outside = {node.name: node for node in exact.graph.node if not to_onnx.in_network(node)}
    assert all(node in half.graph.node for node in outside.values())
    types = {item.name: item.data_type for item in half.graph.initializer}
    weights = {name: kind for name, kind in types.items() if name.endswith(".weight")}
    assert weights
    assert set(weights.values()) == {TensorProto.FLOAT16}
    constants = {name for node in outside.values() for name in node.input} & types.keys()
    assert all(types[name] != TensorProto.FLOAT16 for name in constants)
    assert [node.name for node in to_fp16(exact).graph.node] == [node.name for node in half.graph.node]


# --------------------------------------------------------------------------------------- the report


def test_report_holds_what_was_measured(report: dict[str, Any], exported: Exported, run: FinishedRun) -> None:
    assert report["opset"] == spec.DEFAULT_OPSET
    assert report["provider"] == "CPUExecutionProvider"
    assert set(report["variants"]) == {"fp32", "fp16", "int8"}
    for variant, entry in report["variants"].items():
        path = exported.export / entry["file"]
        assert path.name == spec.file_name(Variant(variant))
        assert path.stat().st_size == entry["bytes"]
        tolerance = spec.TOLERANCES[Variant(variant)]
        assert len(entry["parity"]) >= 3
        assert all(case["max_relative"] <= tolerance.max_relative for case in entry["parity"])
        assert entry["abs_rel_change"] <= tolerance.abs_rel_increase
    for size in ("frame", "working"):
        assert set(report["latency"][size]["median_ms"]) == {"torch", "fp32", "fp16", "int8"}
    assert report["latency"]["frame"]["hw"] == list(HW)
    assert "where" in report["variants"]["fp32"]["parity"][0]
    assert str(ROOT) not in json.dumps(report)


def test_held_out_errors_are_those_of_the_predictors(
    report: dict[str, Any], exported: Exported, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compare` judges an exported file as it judges a torch network."""
    run = FinishedRun.read(copied)
    held_out = run.held_out()
    assert held_out is not None
    assert len(held_out.observations) == report["held_out"]["points"] == report["model"]["held_out_points"]
    for name in ("fp32", "int8"):
        predictor = OnnxDepth(exported.export / f"depth-{name}.onnx")
        errors = errors_at_points(predictor, run.frames, held_out.observations, held_out.scale)
        assert errors.abs_rel == pytest.approx(report["variants"][name]["held_out"]["abs_rel"])
    torch_errors = errors_at_points(
        TorchPredictor(run.refined_network()), run.frames, held_out.observations, held_out.scale
    )
    assert torch_errors.abs_rel == pytest.approx(report["held_out"]["torch"]["abs_rel"], rel=1e-5)


def test_compare_refuses_what_is_no_depth(run: FinishedRun, copied: Path) -> None:
    held_out = FinishedRun.read(copied).held_out()
    assert held_out is not None

    class Wrong:
        source_offsets = ()

        def __init__(self, kind: DepthKind, value: float) -> None:
            self.kind, self.value = kind, value

        def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
            return np.full(rgb.shape[:2], self.value, np.float32)

    for kind, value, error in (
        (DepthKind.AFFINE_DISPARITY, 1.0, DepthKindError),
        (DepthKind.METRIC, 0.0, NetworkError),
        (DepthKind.METRIC, np.nan, NetworkError),
    ):
        with pytest.raises(error):
            errors_at_points(Wrong(kind, value), run.frames, held_out.observations, 1.0)


# ---------------------------------------------------------------------------------------------- int8


def test_int8_is_eight_bits_but_for_the_first_layer(exported: Exported, report: dict[str, Any]) -> None:
    model = onnx.load(exported.export / "depth-int8.onnx")
    assert report["variants"]["int8"]["float_layers"] == ["encoder.0"]  # few weights
    constants = {item.name: item for item in model.graph.initializer}
    maker = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name not in ("network.encoder.0/Conv", "network.head/Conv/sum"):
            image, weight = (maker[name] for name in node.input[:2])
            assert constants[weight.input[0]].data_type == TensorProto.INT8
            assert len(constants[weight.input[1]].float_data or constants[weight.input[1]].raw_data) > 4  # by channel
            assert constants[image.input[2]].data_type == TensorProto.UINT8
    floats = [name for name, item in constants.items() if name.endswith(".weight")]
    assert floats == ["network.encoder.0.weight"]
    (head,) = (node for node in model.graph.node if node.name == "network.head/Conv")
    levels = constants[maker[head.input[1]].input[0]]
    assert levels.dims[0] == 4 * SEGMENTS  # the four pixels of a square, in so many parts each


def test_layers_kept_in_float_are_in_float(exported: Exported, run: FinishedRun) -> None:
    network = run.refined_network()
    model = to_onnx.image_graph(network, network.input_hw(run.frames.hw), 1.0, spec.DEFAULT_OPSET)
    quantizer = Int8Quantizer(model, [{spec.INPUT: run.frames.read(i).rgb} for i in (0, 4)])
    assert quantizer.always_float == ("encoder.0",)
    assert quantizer.layers == ("encoder.3", "encoder.6", "decoder.1", "head")
    errors = quantizer.layer_errors()
    assert {error.layer for error in errors} == set(quantizer.layers)
    counts = {error.layer: error.multiplications for error in errors}
    assert counts["encoder.3"] == 24 * 12 * 9 * 32 * 40
    assert counts["encoder.6"] == 24 * 24 * 9 * 16 * 20
    values = [error.mean_log_error / error.multiplications for error in errors]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    kept = quantizer.quantized([errors[0].layer])
    assert any(item.name.startswith(f"network.{errors[0].layer}.weight") for item in kept.graph.initializer)
    rounded = {node.input[0] for node in kept.graph.node if node.op_type == "QuantizeLinear"}
    assert len(rounded) < sum(node.op_type == "QuantizeLinear" for node in quantizer.quantized().graph.node)


def test_int8_that_is_not_good_enough_keeps_layers_in_float(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts are spoilt; the third is accepted, and the report says what it took."""
    exact = Int8Quantizer.quantized
    spoilt = {0, 1}

    def quantized(self: Int8Quantizer, float_layers: Any = ()) -> onnx.ModelProto:
        model = exact(self, float_layers)
        if len(float_layers) in spoilt:
            bias = next(item for item in model.graph.initializer if item.name == "network.head/Conv/low")
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.3), bias.name))
        return model

    monkeypatch.setattr(Int8Quantizer, "quantized", quantized)
    file = export_run(copied, config=ExportConfig(variants=(Variant.INT8,))).variants[Variant.INT8]
    assert [len(attempt.float_layers) for attempt in file.attempts] == [0, 1, 2]
    assert file.attempts[0].abs_rel_change is not None
    assert file.attempts[0].abs_rel_change > 0.05
    assert file.float_layers == (*file.attempts[-1].float_layers, "encoder.0")
    assert sorted(path.name for path in (copied / "export").iterdir()) == ["depth-int8.onnx", spec.REPORT]

    spoilt |= set(range(20))
    with pytest.raises(ExportError, match=r"depth-int8\.onnx is refused: ") as refused:
        export_run(copied, config=ExportConfig(variants=(Variant.INT8,)))
    assert refused.value.cli_message.endswith("Leave it out with --variants.")
    assert (copied / "export" / "depth-int8.onnx").is_file()  # of the export before


# -------------------------------------------------------------------------------- options and ends


def test_core_graph_takes_batches_and_sizes(copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    report = export_run(copied, out, ExportConfig(variants=(Variant.FP32,), core=True))
    assert report.core is not None
    assert {case.batch for case in report.core.parity} == {1, 3}
    assert len({case.hw for case in report.core.parity}) == 3
    session = onnxruntime.InferenceSession(out / spec.CORE_FILE, providers=["CPUExecutionProvider"])
    (depth,) = session.run(None, {"image": np.full((5, 3, 48, 112), 0.5, np.float32)})
    assert np.asarray(depth).shape == (5, 12, 28)
    assert session.get_modelmeta().custom_metadata_map["sfmttr.graph"] == "core"
    assert not (copied / "export").exists()


def test_a_known_depth_makes_metres(copied: Path, exported: Exported, tmp_path: Path) -> None:
    known = KnownDepth(frame=2, row=30, column=40, metres=3.25)
    report = export_run(copied, config=ExportConfig(variants=(Variant.FP32,), known_depth=known))
    rgb = FinishedRun.read(copied).frames.read(2).rgb
    predictor = OnnxDepth(copied / "export" / "depth-fp32.onnx")
    depth = predictor.predict(rgb)
    assert depth[30, 40] == pytest.approx(3.25, rel=1e-5)
    assert (predictor.kind, predictor.unit) == ("metric", "metres")
    plain = OnnxDepth(exported.export / "depth-fp32.onnx").predict(rgb)
    np.testing.assert_allclose(depth, report.model.scale * plain, rtol=1e-5)
    assert report.held_out is not None
    assert report.variants[Variant.FP32].held_out is not None
    # All in metres: AbsRel is the same in any unit, RMSE is not.
    assert report.held_out.unit == "metres"
    fp32 = report.variants[Variant.FP32].held_out
    assert (fp32.abs_rel, fp32.rmse) == pytest.approx(
        (report.held_out.torch.abs_rel, report.held_out.torch.rmse), rel=1e-4
    )
    in_units = export_run(exported.run, tmp_path / "units", ExportConfig(variants=(Variant.FP32,))).held_out
    assert in_units is not None
    assert in_units.unit == "network units"
    assert report.held_out.torch.rmse == pytest.approx(report.model.scale * in_units.torch.rmse, rel=1e-5)


@pytest.mark.parametrize(
    ("known", "violation"),
    [
        (KnownDepth(8, 0, 0, 1.0), "frame 8 of the known depth is not in the run: it has 0 to 7"),
        (KnownDepth(-1, 0, 0, 1.0), "frame -1"),
        (KnownDepth(0, 150, 0, 1.0), "row 150, column 0 of the known depth are outside of 150 x 200"),
        (KnownDepth(0, 0, 0, 0.0), "has to be more than 0"),
        (KnownDepth(0, 0, 0, float("nan")), "has to be more than 0"),
    ],
)
def test_a_known_depth_that_cannot_be_is_refused(copied: Path, known: KnownDepth, violation: str) -> None:
    with pytest.raises(ConfigError, match=violation):
        export_run(copied, config=ExportConfig(known_depth=known))
    assert not (copied / "export").exists()


def test_a_known_camera_height_makes_metres(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def two_units(frames: Iterable[tuple[np.ndarray, Camera]]) -> float:
        seen.extend(depth.shape for depth, camera in frames if camera.hw == depth.shape)
        return 2.0

    monkeypatch.setattr("export.metric_scale.camera_height", two_units)
    report = export_run(copied, config=ExportConfig(variants=(Variant.FP32,), camera_height_m=1.5))
    assert seen == [(150, 200)] * 8
    assert report.model.scale == pytest.approx(0.75)
    assert report.model.unit == "metres"


@pytest.mark.parametrize(("height", "known"), [(0.0, None), (float("nan"), None), (1.5, KnownDepth(0, 0, 0, 1.0))])
def test_a_camera_height_that_cannot_be_is_refused(copied: Path, height: float, known: KnownDepth | None) -> None:
    with pytest.raises(ConfigError, match=r"more than 0|not both"):
        export_run(copied, config=ExportConfig(known_depth=known, camera_height_m=height))
    assert not (copied / "export").exists()


@pytest.mark.parametrize("opset", [18, 20])
def test_opset_is_the_one_that_was_asked_for(copied: Path, opset: int) -> None:
    export_run(copied, config=ExportConfig(variants=(Variant.FP32,), opset=opset))
    model = onnx.load(copied / "export" / "depth-fp32.onnx")
    assert [o.version for o in model.opset_import if not o.domain] == [opset]


def test_what_was_exported_goes_when_the_network_changes(
    copied: Path, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(copied, config=ExportConfig(variants=(Variant.FP32,)))
    assert read_manifest(copied).stage("export") is not None
    clip = exported.run.parent / "clip"
    config = RunConfig(network=TINY, steps=3, device="cpu", output=OutputConfig(pictures=False, clouds=False))
    pipeline.run(clip, copied, config)
    assert not (copied / "export").exists()
    assert read_manifest(copied).stage("export") is None


def test_cuda_is_refused_where_it_does_not_run(copied: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _cuda_runs(copied):
        pytest.skip("CUDA runs here")
    with pytest.raises(SfmttrError) as refused:
        export_run(copied, config=ExportConfig(variants=(Variant.FP32,), device="cuda"))
    assert isinstance(refused.value, DeviceError)
    assert not (copied / "export").exists()


def _cuda_runs(run: Path) -> bool:
    import torch

    return torch.cuda.is_available()


# ------------------------------------------------------------------------------------- wrong runs


def _no_report(run: Path) -> None:
    (run / "report.json").unlink()


def _not_refined(run: Path) -> None:
    path = run / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"refinement": None, "advice": "Walk sideways."}))


def _damaged_report(run: Path) -> None:
    (run / "report.json").write_text('{"network": ')


def _report_of_another_version(run: Path) -> None:
    (run / "report.json").write_text('{"network": "tiny-test"}')


def _no_weights(run: Path) -> None:
    (run / "refined.safetensors").unlink()


def _damaged_weights(run: Path) -> None:
    path = run / "refined.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _no_frames(run: Path) -> None:
    next((run / "frames").glob("*.png")).unlink()


def _parts_of_another_run(run: Path) -> None:
    path = run / "report.json"
    report = json.loads(path.read_text())
    report["seed"] += 1
    path.write_text(json.dumps(report))


def _another_network(run: Path) -> None:
    path = run / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"network": "of-tomorrow"}))


def _unknown_network(run: Path) -> None:
    _another_network(run)
    path = run / "refined.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"network": "of-tomorrow"}
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize(
    ("spoil", "violation"),
    [
        (_no_report, "is not a finished run: there is no report.json"),
        (_not_refined, "holds no refined network: its clip was not refined. Walk sideways."),
        (_damaged_report, "report.json is damaged"),
        (_report_of_another_version, "report.json is damaged or from another version"),
        (_no_weights, "refined.safetensors is missing; run refine again"),
        (_damaged_weights, "refined.safetensors cannot be read"),
        (_no_frames, "frames lacks"),
        (_parts_of_another_run, "holds parts of different runs"),
        (_another_network, "its weights are those of tiny-test, its report's of of-tomorrow"),
        (_unknown_network, "no network is called 'of-tomorrow'"),
    ],
)
def test_a_run_that_cannot_be_exported_ends_in_one_line(
    copied: Path, spoil: Callable[[Path], None], violation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copied)
    before = {path.name for path in copied.iterdir()}
    assert main([str(copied), "--no-kit"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("export: ")
    assert violation in lines[0]
    assert {path.name for path in copied.iterdir()} == before


def test_a_run_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a finished run"):
        export_run(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--variants", "fp64"],
        ["--variants", ""],
        ["--opset", "17"],
        ["--opset", "x"],
        ["--device", "tpu"],
        ["--known-depth", "1"],
        ["--known-depth", "nan", "0", "0", "1"],
        ["--known-depth", "0", "1.5", "0", "1"],
    ],
)
def test_a_wrong_option_ends_in_one_line(tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *wrong])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_out_folder_that_cannot_be_is_refused(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError):
            export_run(copied, out, ExportConfig(variants=(Variant.FP32,)))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_out_folder_of_others_is_not_replaced(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="holds other files"):
        export_run(copied, tmp_path / "mine", ExportConfig(variants=(Variant.FP32,)))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


# ---------------------------------------------------------------------------------- the command line


def test_help_imports_no_torch() -> None:
    code = """
import sys
from export.__main__ import main
try:
    main(["--help"])
except SystemExit as exit:
    assert exit.code == 0
heavy = {"torch", "onnx", "onnxruntime", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_command_prints_the_table_and_makes_a_kit(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(copied), "--variants", "int8,fp32"]) == 0
    shown = capsys.readouterr().out
    assert all(
        word in shown
        for word in ("torch", "fp32", "int8", "Layers in float in the int8 file: ", "Written to ", "Kit: ")
    )
    assert "fp16" not in shown
    assert (copied / "kit.zip").is_file()
    kit = read_manifest(copied).stage("kit")
    assert kit is not None
    assert list(kit.files) == ["kit.zip"]


def test_the_method_does_not_know_the_export() -> None:
    imports = re.compile(r"^\s*(?:from|import) export\b", re.MULTILINE)
    for path in (ROOT / "sfmttr").rglob("*.py"):
        assert not imports.search(path.read_text(encoding="utf-8")), path


def test_refine_asks_early_for_what_an_export_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from sfmttr.cli import companions
    from sfmttr.cli.main import main as sfmttr_main

    monkeypatch.setattr(companions, "find_spec", lambda name: None if name == "onnx" else object())
    assert sfmttr_main(["refine", str(tmp_path / "clip.mp4"), "--export"]) == 2
    assert "--export needs onnx: pip install" in capsys.readouterr().err


def test_resize_at_working_size_is_the_identity() -> None:
    """A graph that may not ask for the size resizes to the size that an image has already: nothing must change."""
    import torch

    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(antialiased_resize(image, (40, 56)), image)
    assert torch.equal(resize_image(image, (40, 56)), image)


# ------------------------------------------------------------------------------------------- real


@pytest.mark.slow
def test_refine_then_export_in_one_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sfmttr", "refine", "examples/room.mp4", "--out", str(tmp_path / "run")]
    quick = ["--preset", "fast", "--max-frames", "20", "--no-pictures", "--no-clouds"]
    ran = subprocess.run([*command, *quick, "--export"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "run" / "export" / spec.REPORT).read_text())
    assert set(report["variants"]) == {"fp32", "fp16", "int8"}
    assert (tmp_path / "run" / "kit.zip").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundled", "meter-xxs-kitti", "meter-xxs-nyu", "rt-monodepth-s"])
def test_published_networks_export_faithfully(name: str, tmp_path: Path) -> None:
    """With the authors' weights, core graph included, at sizes and batches that were not traced."""
    from PIL import Image

    from export import parity
    from sfmttr.types import FrameSet

    network = networks.load(name, existing(weights_root()))
    folder = existing(data_root() / "redkitchen" / "rgb")
    files = tuple(sorted(path.name for path in folder.iterdir()))[::15]
    hw = Image.open(folder / files[0]).size[::-1]
    count = len(files)
    frames = FrameSet(folder, files, files, tuple(range(count)), (0.0,) * count, hw, hw, count, False, "", None)
    working_hw = network.input_hw(hw)
    graph = to_onnx.image_graph(network, working_hw, 1.0, spec.DEFAULT_OPSET)
    metadata = {"sfmttr.graph": "image", "sfmttr.kind": "metric", "sfmttr.unit": "metres"}
    onnx.helper.set_model_props(graph, metadata)
    to_onnx.save(graph, tmp_path / "image.onnx")
    cases = parity.check_image_graph(OnnxDepth(tmp_path / "image.onnx"), TorchPredictor(network, working_hw), frames)
    assert parity.violation(cases, spec.TOLERANCES[Variant.FP32]) == ""
    traced, sizes = parity.core_sizes(network, hw)
    to_onnx.save(to_onnx.core_graph(network, traced, 1.0, spec.DEFAULT_OPSET), tmp_path / "core.onnx")
    cpu = ("CPUExecutionProvider",)
    cases = parity.check_core_graph(tmp_path / "core.onnx", network, sizes, 1.0, frames, cpu)
    assert parity.violation(cases, spec.TOLERANCES[Variant.FP32]) == ""
