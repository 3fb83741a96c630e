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
from .graph_editor import Rewriter, attributes
from .patterns import plain_conv

_LEAST_END = 3.0
"""Of the range of an ELU's input, see `_elu_of_tables`."""
_FAR = 4.0
"""The shift b of `_elu_of_tables`, where zero points leave room for it; `_LEAST_END` at the least."""
_MOVES = frozenset({"Pad", "Resize", "Reshape"})
_TWICE = [1.0, 1.0, 2.0, 2.0]


def more_in_eight_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, of one picture at a time, with pixels moved as the 8-bit numbers that they are, and ELUs of tables."""
    rewriter = Rewriter(model)
    for node in rewriter:
        if _only_moves(node):
            _move_numbers(rewriter, node)
    for node in rewriter:
        if node.op_type == "Elu":
            _replace_elu(rewriter, node)
    for node in rewriter:
        if node.op_type == "Resize" and _is_quantised(rewriter, node.input[0]):
            _double_by_channel(rewriter, node)
    return rewriter.model()


# ------------------------------------------------------------------------------------------ scales


def _scale(rewriter: Rewriter, node: NodeProto | None, kind: str) -> tuple[float, int] | None:
    """Scale and zero point of a node of this kind that has one for all; None for another node."""
    if node is None or node.op_type != kind or len(node.input) < 3:
        return None
    scale, zero = (rewriter.constant(name) for name in node.input[1:3])
    if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
        return None
    return float(scale.reshape(())), int(zero.reshape(()))


def _is_quantised(rewriter: Rewriter, name: str) -> bool:
    maker = rewriter.maker(name)
    while maker is not None and maker.op_type in _MOVES:
        maker = rewriter.maker(maker.input[0])
    return maker is not None and maker.op_type == "QuantizeLinear"


class _Steps:
    """New nodes, each with an output of its own."""

    def __init__(self, rewriter: Rewriter, name: str) -> None:
        self._rewriter, self._name = rewriter, name
        self.nodes: list[NodeProto] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **given: Any) -> str:
        name = self._rewriter.unused(f"{self._name}/{kind}")
        output = output or self._rewriter.unused(f"{name}_output")
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **given))
        return output

    def scaled(self, kind: str, value: str, scale: float, zero: int, output: str = "") -> str:
        """A QuantizeLinear or DequantizeLinear."""
        names = [
            self._rewriter.add_constant(f"{self._name}/scale", np.float32(scale)),
            self._rewriter.add_constant(f"{self._name}/zero", np.uint8(zero)),
        ]
        return self.add(kind, [value, *names], output)


# ---------------------------------------------------------------------------------------- movement


def _only_moves(node: NodeProto) -> bool:
    """Whether a node gives nothing but numbers that it was given."""
    given = attributes(node)
    if node.op_type == "Pad":
        return given.get("mode") in (b"reflect", b"edge")
    return node.op_type == "Resize" and given.get("mode", b"nearest") == b"nearest"


def _move_numbers(rewriter: Rewriter, node: NodeProto) -> None:
    """Dequantise, move, quantise in the same way: move alone."""
    before, after = rewriter.maker(node.input[0]), rewriter.only_reader(node)
    scale = _scale(rewriter, before, "DequantizeLinear")
    if scale is None or before is None or after is None or scale != _scale(rewriter, after, "QuantizeLinear"):
        return
    moved = NodeProto()
    moved.CopyFrom(node)
    moved.input[0], moved.output[0] = before.input[0], after.output[0]
    alone = rewriter.only_reader(before) is node
    rewriter.exchange([*([before] if alone else []), node, after], [moved])


def _double_by_channel(rewriter: Rewriter, node: NodeProto) -> None:
    """The same doubling with channels where the batch is: onnxruntime would otherwise carry it out with channels last,
    for which it has no quick kernel."""
    scales = rewriter.constant(node.input[2]) if len(node.input) == 3 else None
    if scales is None or list(scales) != _TWICE:
        return
    steps = _Steps(rewriter, node.name)
    apart = steps.add("Reshape", [node.input[0], _shape(rewriter, node, [-1, 1, 0, 0])])
    doubled = NodeProto()
    doubled.CopyFrom(node)
    doubled.input[0], doubled.output[0] = apart, rewriter.unused(f"{node.name}/doubled")
    steps.nodes.append(doubled)
    steps.add("Reshape", [doubled.output[0], _shape(rewriter, node, [1, -1, 0, 0])], node.output[0])
    rewriter.exchange([node], steps.nodes)


def _shape(rewriter: Rewriter, node: NodeProto, shape: list[int]) -> str:
    return rewriter.add_constant(f"{node.name}/shape", np.array(shape, np.int64))


# --------------------------------------------------------------------------------------------- ELU


def elu_input_range(low: float, high: float) -> tuple[float, float]:
    """The range of an ELU's input that `more_in_eight_bits` needs, given the one that would lose least."""
    return low, max(high, _LEAST_END)


def elu_output_range(high: float) -> tuple[float, float]:
    """That of its output, which 1 is a whole number of steps of."""
    steps_of_one = max(1, math.floor(STEPS / (max(high, 0.0) + 1)))
    return -1.0, STEPS / steps_of_one - 1


def _replace_elu(rewriter: Rewriter, node: NodeProto) -> None:
    before, after = rewriter.maker(node.input[0]), rewriter.only_reader(node)
    given, taken = _scale(rewriter, before, "DequantizeLinear"), _scale(rewriter, after, "QuantizeLinear")
    if before is None or after is None or given is None or taken is None or attributes(node).get("alpha", 1.0) != 1.0:
        return
    if given[0] * (STEPS - given[1]) < _LEAST_END - given[0] or not math.isclose(taken[0] * taken[1], 1, rel_tol=1e-4):
        return
    nodes = _elu_of_tables(rewriter, node, before.input[0], given, after.output[0], taken[0])
    alone = rewriter.only_reader(before) is node
    rewriter.exchange([*([before] if alone else []), node, after], nodes)


def _elu_of_tables(
    rewriter: Rewriter, node: NodeProto, value: str, given: tuple[float, int], output: str, step: float
) -> list[NodeProto]:
    """elu(x) + 1 = max(x, 0) + exp(min(x, 0)), each of a table of 256 entries, which is what onnxruntime makes of a
    LeakyRelu and a Sigmoid.

    Far below 0 a sigmoid is an exponential: exp(x) is about sigmoid(x - b) / sigmoid(-b), to a hundredth for b = 3. As
    it is rounded, it ends at the value that it has for x = 0. Who reads `output` takes 1 off, by its zero point.
    """
    scale, zero = given
    shifted = min(STEPS, zero + round(_FAR / scale))
    most = 1 / (1 + math.exp(scale * (shifted - zero)))
    steps = _Steps(rewriter, node.name)
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


def last_as_product(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with one output channel, in float, of 8-bit numbers at one place as a product with channels last, as they
    are already in onnxruntime. For a convolution, it would put them in blocks first."""
    rewriter = Rewriter(model)
    for node in rewriter:
        _one_channel_of_last(rewriter, node)
    return rewriter.model()


def _one_channel_of_last(rewriter: Rewriter, node: NodeProto) -> None:
    weight = plain_conv(rewriter, node)
    before = rewriter.maker(node.input[0]) if node.input else None
    if weight is None or weight.shape[0] != 1 or weight.shape[2:] != (1, 1):
        return
    given = attributes(node)
    if set(given.get("strides", [1])) != {1} or set(given.get("pads", [0])) != {0}:
        return
    if before is None or before.op_type != "DequantizeLinear":
        return
    steps = _Steps(rewriter, node.name)
    value = steps.add("Transpose", [node.input[0]], perm=[0, 2, 3, 1])
    value = steps.add("MatMul", [value, rewriter.add_constant(node.input[1], weight[0, :, 0])])
    if len(node.input) > 2:
        value = steps.add("Add", [value, node.input[2]])
    steps.add("Transpose", [value], node.output[0], perm=[0, 3, 1, 2])
    rewriter.exchange([node], steps.nodes)
