"""Layers of an image graph, as quantization sees them: nodes with weights, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import onnx

from ..ort import Feed, extract_subgraph, make_session
from ..passes.output_range import segment_clip_name
from ..spec import INPUT, OUTPUT
from ..to_onnx import NETWORK, in_network

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Attention, norms and the like are left in float: their ranges are wide, and onnxruntime's 8-bit kernels for them are
# slower than those for float.
QUANTIZABLE_BETWEEN = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Add", "Concat", "Pad", "Resize", "MaxPool", "AveragePool"}
)
"""Operators without weights that can stay in 8 bits between layers."""


def layer_of(node_name: str) -> str:
    """Return the module's name within the network: `network.encoder.conv1/Conv` -> `encoder.conv1`."""
    return node_name.split("/")[0].removeprefix(f"{NETWORK}.")


def weighted_nodes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the names of the nodes with weights, in order, and the number of weights of each."""
    sizes = {initializer.name: math.prod(initializer.dims) for initializer in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in WEIGHTED and len(node.input) > 1]
    return {node.name: sizes[node.input[1]] for node in nodes if node.input[1] in sizes}


def first_layers(model: onnx.ModelProto) -> dict[str, int]:
    """Return the nodes with weights that the image reaches first, and the number of weights of each."""
    weighted = weighted_nodes(model)
    found = _nearest(INPUT, ((node.name, node.input, node.output) for node in model.graph.node), weighted)
    return {name: weighted[name] for name in found}


def last_layers(graph: onnx.GraphProto, weighted: Collection[str]) -> set[str]:
    """Return the names of the nodes with weights that reach the depth output without passing another."""
    return _nearest(OUTPUT, ((node.name, node.output, node.input) for node in reversed(graph.node)), weighted)


def _nearest(
    start: str, nodes: Iterable[tuple[str, Sequence[str], Sequence[str]]], weighted: Collection[str]
) -> set[str]:
    """Return the names of the `weighted` nodes next to the value `start`.

    `nodes` are (name, values on the near side, values on the far side), sorted by distance from `start`.
    """
    found: set[str] = set()
    reached = {start}
    for name, near, far in nodes:
        if not reached.isdisjoint(near):
            if name in weighted:
                found.add(name)
            else:
                reached.update(far)
    return found


def nodes_before(graph: onnx.GraphProto, layers: Collection[str]) -> list[str]:
    """Return the names of the quantizable nodes without weights that lead to `layers` through no other layer.

    Quantizing as early as possible makes what follows cheaper: an image is resized in 8 bits, not in float. A value
    that no quantized layer reads is left in float, because rounding it would only lose accuracy. The nodes that
    `range_ends` finds after `layers` are returned, too.
    """
    wanted: set[str] = set()
    chosen = []
    for node in reversed(graph.node):
        between = node.op_type in QUANTIZABLE_BETWEEN and in_network(node) and not wanted.isdisjoint(node.output)
        if between:
            chosen.append(node.name)
        if between or node.name in layers:
            wanted.update(node.input)
    return list(dict.fromkeys([*chosen, *range_ends(graph, layers)]))


def range_ends(graph: onnx.GraphProto, layers: Collection[str]) -> list[str]:
    """Return the names of the Relu and segment Clip nodes after `layers`, which quantization to a range replaces."""
    outputs = {name for node in graph.node if node.name in layers for name in node.output}
    inputs = [name for node in graph.node for name in node.input]
    relus = {node.name for node in graph.node if node.op_type == "Relu" and inputs.count(node.input[0]) == 1}
    clips = {segment_clip_name(layer) for layer in layers}
    return [node.name for node in graph.node if node.name in relus | clips and node.input[0] in outputs]


def multiplications(model: onnx.ModelProto, nodes: Sequence[str], feed: Feed) -> dict[str, int]:
    """Return the number of multiplications of each of these nodes with weights for one image."""
    sizes = {initializer.name: math.prod(initializer.dims) for initializer in model.graph.initializer}
    chosen = [node for node in model.graph.node if node.name in nodes]
    names = [node.output[0] for node in chosen]
    outputs = make_session(extract_subgraph(model, names)).run(names, dict(feed))
    channels = [out.shape[1 if "Conv" in node.op_type else -1] for node, out in zip(chosen, outputs, strict=True)]
    return {
        node.name: out.size * sizes[node.input[1]] // count
        for node, out, count in zip(chosen, outputs, channels, strict=True)
    }
