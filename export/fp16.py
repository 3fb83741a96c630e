"""The same graph with the network in half floats."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.compose import add_prefix
from onnx.helper import make_graph, make_model, make_tensor_value_info
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from .to_onnx import in_network


def to_fp16(model: ModelProto) -> ModelProto:
    """An image graph with weights and arithmetic of the network as half floats; pictures and depth stay as they are.

    The network is cut out, converted, and put back: a converter that is told to leave some nodes alone still rounds
    what passes between them.
    """
    inside = [node for node in model.graph.node if in_network(node)]
    outside = [node for node in model.graph.node if not in_network(node)]
    pictures = sorted(_read(inside) & _made(outside))  # one, or several to a network that sees neighbours
    (depth,) = _read(outside) & _made(inside)
    *taken, given = (make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*pictures, depth))
    half = convert_float_to_float16(_renamed(_part(model, inside, taken, [given])), keep_io_types=True)
    whole = _part(model, outside, model.graph.input, model.graph.output)
    whole.graph.node.extend(half.graph.node)
    whole.graph.initializer.extend(half.graph.initializer)
    OnnxModel.graph_topological_sort(whole.graph)
    return whole


def _read(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.input}


def _made(nodes: Sequence[NodeProto]) -> set[str]:
    return {name for node in nodes for name in node.output}


def _part(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> ModelProto:
    """A model of some of the nodes of `model`, with the constants that they use."""
    constants = [initializer for initializer in model.graph.initializer if initializer.name in _read(nodes)]
    graph = make_graph(nodes, model.graph.name, inputs, outputs, constants)
    return make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _renamed(network: ModelProto) -> ModelProto:
    """With names of its own for its constants: those that others use, too, must not change for them."""
    return add_prefix(
        network,
        "half.",
        rename_nodes=False,
        rename_edges=False,
        rename_inputs=False,
        rename_outputs=False,
        rename_value_infos=False,
    )
