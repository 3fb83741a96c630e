"""The same graph in operators that onnxruntime is quick at on a CPU. Other processors may well prefer the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def quick_on_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every convolution of one output channel as one for each input channel, and their sum.

    onnxruntime computes output channels in blocks of 16, fifteen of which are then for nothing. Other graphs come back
    as they are.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    # As they were: two nodes may share one.
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        nodes += [node] if weight is None or not _wasteful(node, weight) else _split(node, weight, result.graph)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    return result


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _wasteful(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    outputs, inputs, *kernel = weight.dims
    return outputs == 1 and inputs > 1 and max(kernel) > 1 and _attributes(node).get("group", 1) == 1


def _split(node: onnx.NodeProto, weight: onnx.TensorProto, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Weights (1, C, h, w) become (C, 1, h, w), with a group for each channel; ones (1, C, 1, 1) add them up."""
    _, channels, *_ = weight.dims
    each = numpy_helper.to_array(weight).transpose(1, 0, 2, 3)
    own = next(initializer for initializer in graph.initializer if initializer.name == weight.name)
    own.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(each), weight.name))
    ones = f"{node.name}/ones"
    graph.initializer.append(numpy_helper.from_array(np.ones((1, channels, 1, 1), np.float32), ones))
    apart = f"{node.output[0]}_channels"
    attributes = _attributes(node) | {"group": channels}
    return [
        helper.make_node("Conv", [node.input[0], weight.name], [apart], name=node.name, **attributes),
        helper.make_node("Conv", [apart, ones, *node.input[2:]], node.output, name=f"{node.name}/sum"),
    ]
