"""Keep more of a QDQ graph in 8 bits than onnxruntime does by itself.

QDQ: operators between DequantizeLinear and QuantizeLinear, which onnxruntime fuses to 8-bit kernels. All operators are
standard ones, so a runtime without these fusions still computes the same.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import NodeProto

from ..quantization.calibration import STEPS
from .graph_editor import GraphEditor, NodeBuilder, attributes
from .patterns import is_scale_2x

# Bounds of the shift b in `_elu_lookup`: 4 where the zero point leaves room for it, and 3 at least.
_MIN_SHIFT, _MAX_SHIFT = 3.0, 4.0
_MOVEMENT = frozenset({"Pad", "Resize", "Reshape"})


def extend_qdq_regions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move pixels as 8-bit values, and compute Elu by table lookup, in a QDQ graph for batches of one.

    Patterns and what they are rewritten to:
    1. DequantizeLinear, Pad or nearest Resize, QuantizeLinear with the same scale: the Pad or Resize alone, on uint8.
    2. DequantizeLinear, Elu, QuantizeLinear: two table lookups and a sum, see `_elu_lookup`.
    3. nearest 2x Resize of uint8: the same with channels as batch, between two Reshape.
    Why: (1) copies a quarter of the bytes and skips two conversions. (2) onnxruntime turns LeakyRelu and Sigmoid
    between Q and DQ into lookup tables of 256 entries, but not Elu. (3) onnxruntime would run the Resize channels-last,
    for which it has no fast kernel.
    Measured as part of `Int8Quantizer`: see the package.
    """
    editor = GraphEditor(model)
    for node in editor:
        if _is_data_movement(node):
            _hoist_through_qdq(editor, node)
    for node in editor:
        if node.op_type == "Elu":
            _replace_elu(editor, node)
    for node in editor:
        if node.op_type == "Resize" and is_scale_2x(editor, node) and _is_quantized(editor, node.input[0]):
            _resize_per_channel(editor, node)
    return editor.model()


def _scale_and_zero_point(editor: GraphEditor, node: NodeProto | None, op_type: str) -> tuple[float, int] | None:
    """Return scale and zero point of a per-tensor uint8 node of type `op_type`; None for another node."""
    if node is None or node.op_type != op_type or len(node.input) < 3:
        return None
    scale, zero_point = (editor.constant(name) for name in node.input[1:3])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.dtype != np.uint8:
        return None
    return float(scale.reshape(())), int(zero_point.reshape(()))


def _is_quantized(editor: GraphEditor, name: str) -> bool:
    """Return whether a value comes from a QuantizeLinear through nothing but data movement."""
    producer = editor.producer(name)
    while producer is not None and producer.op_type in _MOVEMENT:
        producer = editor.producer(producer.input[0])
    return producer is not None and producer.op_type == "QuantizeLinear"


# ----------------------------------------------------------------------------------- data movement


def _is_data_movement(node: NodeProto) -> bool:
    """Return whether a node only copies values of its input."""
    given = attributes(node)
    if node.op_type == "Pad":
        return given.get("mode") in (b"reflect", b"edge")
    return node.op_type == "Resize" and given.get("mode", b"nearest") == b"nearest"


def _hoist_through_qdq(editor: GraphEditor, node: NodeProto) -> None:
    """Drop the DequantizeLinear before and the QuantizeLinear after `node` when both have the same scale."""
    dequantize, quantize = editor.producer(node.input[0]), editor.sole_consumer(node)
    scale = _scale_and_zero_point(editor, dequantize, "DequantizeLinear")
    if scale is None or dequantize is None or quantize is None:
        return
    if scale != _scale_and_zero_point(editor, quantize, "QuantizeLinear"):
        return
    moved = NodeProto()
    moved.CopyFrom(node)
    moved.input[0], moved.output[0] = dequantize.input[0], quantize.output[0]
    unshared = editor.sole_consumer(dequantize) is node
    editor.replace([*([dequantize] if unshared else []), node, quantize], [moved])


def _resize_per_channel(editor: GraphEditor, node: NodeProto) -> None:
    """Run a Resize of (1, C, h, w) as one of (C, 1, h, w)."""
    builder = NodeBuilder(editor, node.name)
    channels_as_batch = builder.add("Reshape", [node.input[0], _shape(editor, node, [-1, 1, 0, 0])])
    resized = NodeProto()
    resized.CopyFrom(node)
    resized.input[0], resized.output[0] = channels_as_batch, editor.unique_name(f"{node.name}/doubled")
    builder.nodes.append(resized)
    builder.add("Reshape", [resized.output[0], _shape(editor, node, [1, -1, 0, 0])], node.output[0])
    editor.replace([node], builder.nodes)


def _shape(editor: GraphEditor, node: NodeProto, shape: list[int]) -> str:
    return editor.add_constant(f"{node.name}/shape", np.array(shape, np.int64))


# --------------------------------------------------------------------------------------------- ELU


def elu_input_range(low: float, high: float) -> tuple[float, float]:
    """Return the calibrated range of an Elu's input, widened to what `extend_qdq_regions` needs."""
    return low, max(high, _MIN_SHIFT)


def elu_output_range(high: float) -> tuple[float, float]:
    """Return a range [-1, >= high] of an Elu's output in which 1 is a whole number of steps."""
    steps_of_one = max(1, math.floor(STEPS / (max(high, 0.0) + 1)))
    return -1.0, STEPS / steps_of_one - 1


def _replace_elu(editor: GraphEditor, node: NodeProto) -> None:
    """Replace DequantizeLinear, Elu, QuantizeLinear by `_elu_lookup` where the two ranges allow it."""
    dequantize, quantize = editor.producer(node.input[0]), editor.sole_consumer(node)
    x_scale = _scale_and_zero_point(editor, dequantize, "DequantizeLinear")
    y_scale = _scale_and_zero_point(editor, quantize, "QuantizeLinear")
    if dequantize is None or quantize is None or x_scale is None or y_scale is None:
        return
    if attributes(node).get("alpha", 1.0) != 1.0:
        return
    too_narrow = x_scale[0] * (STEPS - x_scale[1]) < _MIN_SHIFT - x_scale[0]
    if too_narrow or not math.isclose(y_scale[0] * y_scale[1], 1, rel_tol=1e-4):
        return
    nodes = _elu_lookup(editor, node, dequantize.input[0], x_scale, quantize.output[0], y_scale[0])
    unshared = editor.sole_consumer(dequantize) is node
    editor.replace([*([dequantize] if unshared else []), node, quantize], nodes)


def _elu_lookup(
    editor: GraphEditor, node: NodeProto, value: str, x_scale: tuple[float, int], output: str, y_scale: float
) -> list[NodeProto]:
    """Return nodes for elu(x) + 1 = max(x, 0) + exp(min(x, 0)), each term a table lookup.

    The first is LeakyRelu with slope 0. The second uses that a sigmoid is nearly exponential far below 0: exp(x) is
    sigmoid(x - b) / sigmoid(-b) within about 0.01 for b = 3. Its quantized range ends at the value for x = 0,
    which clips positive x. The consumers of `output` subtract the 1 by their zero point.
    """
    scale, zero_point = x_scale
    shifted = min(STEPS, zero_point + round(_MAX_SHIFT / scale))
    largest = 1 / (1 + math.exp(scale * (shifted - zero_point)))
    builder = NodeBuilder(editor, node.name)
    negative = builder.add("Sigmoid", [builder.add_qdq("DequantizeLinear", value, scale, shifted)])
    negative = builder.add_qdq("QuantizeLinear", negative, largest / STEPS, 0)
    negative = builder.add_qdq("DequantizeLinear", negative, 1 / STEPS, 0)
    positive = builder.add("LeakyRelu", [builder.add_qdq("DequantizeLinear", value, scale, zero_point)], alpha=0.0)
    positive = builder.add_qdq("QuantizeLinear", positive, scale, 0)
    positive = builder.add_qdq("DequantizeLinear", positive, scale, 0)
    total = builder.add("Add", [negative, positive])
    builder.add_qdq("QuantizeLinear", total, y_scale, 0, output)
    return builder.nodes
