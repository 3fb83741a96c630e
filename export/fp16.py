"""Convert the network of an image graph to fp16."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.compose import add_prefix
from onnx.helper import make_graph, make_model, make_tensor_value_info
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from .to_onnx import in_network


def to_fp16(model: ModelProto) -> ModelProto:
    """Return an image graph whose network computes in fp16. Input and output keep their types.

    The network is extracted, converted, and put back: onnxruntime's converter rounds the values between nodes to fp16
    even where it is told to leave the nodes alone.
    """
    inside = [node for node in model.graph.node if in_network(node)]
    outside = [node for node in model.graph.node if not in_network(node)]
    images = sorted(_inputs(inside) & _outputs(outside))  # several for a network with source frames
    (depth,) = _inputs(outside) & _outputs(inside)
    *inputs, output = (make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*images, depth))
    network = _prefix_constants(_subgraph(model, inside, inputs, [output]))
    half = convert_float_to_float16(network, keep_io_types=True)
    whole = _subgraph(model, outside, model.graph.input, model.graph.output)
    whole.graph.node.extend(half.graph.node)
    whole.graph.initializer.extend(half.graph.initializer)
    OnnxModel.graph_topological_sort(whole.graph)
    return whole


def _inputs(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input}


def _outputs(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.output}


def _subgraph(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> ModelProto:
    """Return a model of `nodes` of `model`, with the constants that they read."""
    constants = [initializer for initializer in model.graph.initializer if initializer.name in _inputs(nodes)]
    graph = make_graph(nodes, model.graph.name, inputs, outputs, constants)
    return make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _prefix_constants(network: ModelProto) -> ModelProto:
    """Rename the constants, so that converting them does not change those of the nodes outside the network."""
    return add_prefix(
        network,
        "half.",
        rename_nodes=False,
        rename_edges=False,
        rename_inputs=False,
        rename_outputs=False,
        rename_value_infos=False,
    )
