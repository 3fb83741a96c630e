"""A graph between QuantizeLinear and DequantizeLinear, with more of it in 8 bits than onnxruntime finds by itself.

Standard operators alone: what is not quick elsewhere is still right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

from ..quantization.calibration import STEPS
from .graph_editor import GraphEditor, attributes
from .patterns import conv_weight

_LEAST_END = 3.0
"""Of the range of an ELU's input, see `_elu_lookup`."""
_FAR = 4.0
"""The shift b of `_elu_lookup`, where zero points leave room for it; `_LEAST_END` at the least."""
_MOVES = frozenset({"Pad", "Resize", "Reshape"})
_TWICE = [1.0, 1.0, 2.0, 2.0]


def extend_qdq_regions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, of one picture at a time, with pixels moved as the 8-bit numbers that they are, and ELUs of tables."""
    editor = GraphEditor(model)
    for node in editor:
        if _is_data_movement(node):
            _hoist_through_qdq(editor, node)
    for node in editor:
        if node.op_type == "Elu":
            _replace_elu(editor, node)
    for node in editor:
        if node.op_type == "Resize" and _is_quantized(editor, node.input[0]):
            _upsample_per_channel(editor, node)
    return editor.model()


# ------------------------------------------------------------------------------------------ scales


def _scale(editor: GraphEditor, node: NodeProto | None, kind: str) -> tuple[float, int] | None:
    """Scale and zero point of a node of this kind that has one for all; None for another node."""
    if node is None or node.op_type != kind or len(node.input) < 3:
        return None
    scale, zero = (editor.constant(name) for name in node.input[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
        return None
    return float(scale.reshape(())), int(zero.reshape(()))


def _is_quantized(editor: GraphEditor, name: str) -> bool:
    maker = editor.producer(name)
    while maker is not None and maker.op_type in _MOVES:
        maker = editor.producer(maker.input[0])
    return maker is not None and maker.op_type == "QuantizeLinear"


class _NodeBuilder:
    """New nodes, each with an output of its own."""

    def __init__(self, editor: GraphEditor, name: str) -> None:
        self._editor, self._name = editor, name
        self.nodes: list[NodeProto] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **given: Any) -> str:
        name = self._editor.unique_name(f"{self._name}/{kind}")
        output = output or self._editor.unique_name(f"{name}_output")
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **given))
        return output

    def scaled(self, kind: str, value: str, scale: float, zero: int, output: str = "") -> str:
        """A QuantizeLinear or DequantizeLinear."""
        names = [
            self._editor.add_constant(f"{self._name}/scale", np.float32(scale)),
            self._editor.add_constant(f"{self._name}/zero", np.uint8(zero)),
        ]
        return self.add(kind, [value, *names], output)


# ---------------------------------------------------------------------------------------- movement


def _is_data_movement(node: NodeProto) -> bool:
    """Whether a node gives nothing but numbers that it was given."""
    given = attributes(node)
    if node.op_type == "Pad":
        return given.get("mode") in (b"reflect", b"edge")
    return node.op_type == "Resize" and given.get("mode", b"nearest") == b"nearest"


def _hoist_through_qdq(editor: GraphEditor, node: NodeProto) -> None:
    """Dequantise, move, quantise in the same way: move alone."""
    before, after = editor.producer(node.input[0]), editor.sole_consumer(node)
    scale = _scale(editor, before, "DequantizeLinear")
    if scale is None or before is None or after is None or scale != _scale(editor, after, "QuantizeLinear"):
        return
    moved = NodeProto()
    moved.CopyFrom(node)
    moved.input[0], moved.output[0] = before.input[0], after.output[0]
    alone = editor.sole_consumer(before) is node
    editor.replace([*([before] if alone else []), node, after], [moved])


def _upsample_per_channel(editor: GraphEditor, node: NodeProto) -> None:
    """The same doubling with channels where the batch is: onnxruntime would otherwise carry it out with channels last,
    for which it has no quick kernel."""
    scales = editor.constant(node.input[2]) if len(node.input) == 3 else None
    if scales is None or list(scales) != _TWICE:
        return
    steps = _NodeBuilder(editor, node.name)
    apart = steps.add("Reshape", [node.input[0], _shape(editor, node, [-1, 1, 0, 0])])
    doubled = NodeProto()
    doubled.CopyFrom(node)
    doubled.input[0], doubled.output[0] = apart, editor.unique_name(f"{node.name}/doubled")
    steps.nodes.append(doubled)
    steps.add("Reshape", [doubled.output[0], _shape(editor, node, [1, -1, 0, 0])], node.output[0])
    editor.replace([node], steps.nodes)


def _shape(editor: GraphEditor, node: NodeProto, shape: list[int]) -> str:
    return editor.add_constant(f"{node.name}/shape", np.array(shape, np.int64))


# --------------------------------------------------------------------------------------------- ELU


def elu_input_range(low: float, high: float) -> tuple[float, float]:
    """The range of an ELU's input that `extend_qdq_regions` needs, given the one that would lose least."""
    return low, max(high, _LEAST_END)


def elu_output_range(high: float) -> tuple[float, float]:
    """That of its output, which 1 is a whole number of steps of."""
    steps_of_one = max(1, math.floor(STEPS / (max(high, 0.0) + 1)))
    return -1.0, STEPS / steps_of_one - 1


def _replace_elu(editor: GraphEditor, node: NodeProto) -> None:
    before, after = editor.producer(node.input[0]), editor.sole_consumer(node)
    given, taken = _scale(editor, before, "DequantizeLinear"), _scale(editor, after, "QuantizeLinear")
    if before is None or after is None or given is None or taken is None or attributes(node).get("alpha", 1.0) != 1.0:
        return
    if given[0] * (STEPS - given[1]) < _LEAST_END - given[0] or not math.isclose(taken[0] * taken[1], 1, rel_tol=1e-4):
        return
    nodes = _elu_lookup(editor, node, before.input[0], given, after.output[0], taken[0])
    alone = editor.sole_consumer(before) is node
    editor.replace([*([before] if alone else []), node, after], nodes)


def _elu_lookup(
    editor: GraphEditor, node: NodeProto, value: str, given: tuple[float, int], output: str, step: float
) -> list[NodeProto]:
    """elu(x) + 1 = max(x, 0) + exp(min(x, 0)), each of a table of 256 entries, which is what onnxruntime makes of a
    LeakyRelu and a Sigmoid.

    Far below 0 a sigmoid is an exponential: exp(x) is about sigmoid(x - b) / sigmoid(-b), to a hundredth for b = 3. As
    it is rounded, it ends at the value that it has for x = 0. Who reads `output` takes 1 off, by its zero point.
    """
    scale, zero = given
    shifted = min(STEPS, zero + round(_FAR / scale))
    most = 1 / (1 + math.exp(scale * (shifted - zero)))
    steps = _NodeBuilder(editor, node.name)
    below = steps.add("Sigmoid", [steps.scaled("DequantizeLinear", value, scale, shifted)])
    below = steps.scaled("QuantizeLinear", below, most / STEPS, 0)
    below = steps.scaled("DequantizeLinear", below, 1 / STEPS, 0)
    above = steps.add("LeakyRelu", [steps.scaled("DequantizeLinear", value, scale, zero)], alpha=0.0)
    above = steps.scaled("QuantizeLinear", above, scale, 0)
    above = steps.scaled("DequantizeLinear", above, scale, 0)
    total = steps.add("Add", [below, above])
    steps.scaled("QuantizeLinear", total, step, 0, output)
    return steps.nodes


# --------------------------------------------------------------------------------------------- ends


def head_conv_to_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with one output channel, in float, of 8-bit numbers at one place as a product with channels last, as they
    are already in onnxruntime. For a convolution, it would put them in blocks first."""
    editor = GraphEditor(model)
    for node in editor:
        _one_channel_of_last(editor, node)
    return editor.model()


def _one_channel_of_last(editor: GraphEditor, node: NodeProto) -> None:
    weight = conv_weight(editor, node)
    before = editor.producer(node.input[0]) if node.input else None
    if weight is None or weight.shape[0] != 1 or weight.shape[2:] != (1, 1):
        return
    given = attributes(node)
    if set(given.get("strides", [1])) != {1} or set(given.get("pads", [0])) != {0}:
        return
    if before is None or before.op_type != "DequantizeLinear":
        return
    steps = _NodeBuilder(editor, node.name)
    value = steps.add("Transpose", [node.input[0]], perm=[0, 2, 3, 1])
    value = steps.add("MatMul", [value, editor.add_constant(node.input[1], weight[0, :, 0])])
    if len(node.input) > 2:
        value = steps.add("Add", [value, node.input[2]])
    steps.add("Transpose", [value], node.output[0], perm=[0, 3, 1, 2])
    editor.replace([node], steps.nodes)
