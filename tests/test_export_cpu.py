"""Graphs for CPUs: the same function in other operators, and ranges that spend no steps on what is flat."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from export.for_cpu import quick_on_cpu
from export.quantize import _without_saturated


def conv_model(outputs: int, inputs: int, kernel: int, *, bias: bool, group: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs // group, kernel, kernel)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    if bias:
        constants.append(numpy_helper.from_array(rng.standard_normal(outputs).astype(np.float32), "b"))
    names = ["x", "w", *(["b"] if bias else [])]
    pads = [kernel // 2] * 4
    node = helper.make_node("Conv", names, ["y"], name="head", pads=pads, strides=[2, 1], group=group)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("bias", [True, False])
def test_one_output_channel_is_a_sum_over_input_channels(bias: bool) -> None:
    model = conv_model(1, 6, 3, bias=bias)
    before = model.SerializeToString()
    quick = quick_on_cpu(model)
    x = np.random.default_rng(1).standard_normal((2, 6, 9, 11)).astype(np.float32)
    assert [node.name for node in quick.graph.node] == ["head", "head/sum"]
    np.testing.assert_allclose(run(quick, x), run(model, x), rtol=1e-4, atol=1e-5)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("outputs", "inputs", "kernel", "group"), [(2, 6, 3, 1), (1, 6, 1, 1), (1, 1, 3, 1), (6, 6, 3, 6)]
)
def test_others_stay_as_they_are(outputs: int, inputs: int, kernel: int, group: int) -> None:
    model = conv_model(outputs, inputs, kernel, bias=True, group=group)
    assert quick_on_cpu(model) == model


def test_only_what_an_elu_alone_reads_is_cut_where_it_is_flat() -> None:
    nodes = [
        helper.make_node("Elu", ["a"], ["c"]),
        helper.make_node("Elu", ["b"], ["d"]),
        helper.make_node("Relu", ["b"], ["e"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    low, high = np.float32(-40), np.float32(10)
    given = {name: TensorData(lowest=low, highest=high) for name in "ab"}
    cut = _without_saturated(TensorsData(CalibrationMethod.MinMax, given), graph)
    assert cut["a"].range_value == (-5.0, 10.0)
    assert cut["b"].range_value == (-40.0, 10.0)
