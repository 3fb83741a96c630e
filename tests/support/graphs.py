"""Small ONNX graphs, and what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper


def model_of(
    nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray], shape: Sequence[int], *, inside: bool = False
) -> onnx.ModelProto:
    """x (of this shape) -> y. `inside`: x is made of the input "image", so that it is a value of the graph's inside."""
    nodes = [*([helper.make_node("Identity", ["image"], ["x"], name="image_in/Identity")] if inside else []), *nodes]
    given = helper.make_tensor_value_info("image" if inside else "x", TensorProto.FLOAT, list(shape))
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "g", [given], [wanted], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """y of x."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {model.graph.input[0].name: x})[0])


def op_types(model: onnx.ModelProto) -> list[str]:
    """The operators, in order."""
    return [node.op_type for node in model.graph.node]
