"""The same graph in operators that onnxruntime is quick at on a CPU. Other processors may well prefer the plain one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from .graph_editor import GraphEditor, attributes
from .patterns import ACTIVATIONS, conv_weight, edge_pad, is_nearest_upsample_2x, one_pixel_padding, preserves_size

_AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})
_PLACES = 4
"""In a square of 2 x 2."""


def optimize_for_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with less to compute and to pass over, and the same output up to rounding.

    - What scales and shifts channels before a convolution is one subtraction; the scale goes into the weights. The
      shift cannot: where a picture is padded with zeros, they are zeros of what comes after it.
    - What filters a picture right after it is doubled in size filters before that.
    - A convolution of one output channel, which onnxruntime computes with fifteen others for nothing, adds up what each
      pixel gives to its neighbours instead.
    - ELU, for which onnxruntime has no quick kernel, is made of four that are.
    Other graphs come back as they are.
    """
    return decompose_elu(single_output_conv_to_conv_transpose(fuse_upsample_conv(fold_affine_into_conv(model))))


def fold_affine_into_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with `conv(a x + b)` as another `conv(x - c)`, wherever a and b take two operators or more."""
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None:
            continue
        chain, scale, shift = _affine(editor, node, weight.shape[1])
        if len(chain) < 2 or not np.all(np.isfinite(shift / scale)):
            continue
        first, last = chain[0], chain[-1]
        scaled = editor.add_constant(node.input[1], (weight * scale[:, None, None]).astype(weight.dtype))
        centre = editor.add_constant(f"{last.output[0]}_centre", (-shift / scale)[:, None, None].astype(np.float32))
        source = next(name for name in first.input if name not in editor.constants)
        shifted = helper.make_node("Sub", [source, centre], last.output, name=last.name)
        other = NodeProto()
        other.CopyFrom(node)
        other.input[1] = scaled
        editor.replace([*chain, node], [shifted, other])
    return editor.model()


def _affine(editor: GraphEditor, node: NodeProto, channels: int) -> tuple[list[NodeProto], np.ndarray, np.ndarray]:
    """The nodes right before `node` that alone scale and shift its input, first to last, and a and b (C,) of them."""
    chain: list[NodeProto] = []
    scale, shift = np.ones(channels), np.zeros(channels)
    reader, before = node, editor.producer(node.input[0])
    while before is not None and before.op_type in _AFFINE and editor.sole_consumer(before) is reader:
        left, right = (_per_channel(editor.constant(name), channels) for name in before.input)
        if (left is None) == (right is None) or (left is not None and before.op_type == "Div"):
            break
        value = left if right is None else right
        assert value is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            match before.op_type:
                case "Add":
                    a, b = np.ones(channels), value
                case "Sub":
                    a, b = (np.ones(channels), -value) if left is None else (-np.ones(channels), value)
                case "Mul":
                    a, b = value, np.zeros(channels)
                case _:
                    a, b = 1 / value, np.zeros(channels)
            scale, shift = scale * a, scale * b + shift
        chain.insert(0, before)
        data = before.input[1 if left is not None else 0]
        reader, before = before, editor.producer(data)
    return chain, scale, shift


def _per_channel(value: np.ndarray | None, channels: int) -> np.ndarray | None:
    """(C,) float64 of a constant that is the same all over a picture (1, C, h, w); None for another."""
    if value is None or value.dtype != np.float32:
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[:1] + shape[2:] != (1, 1, 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)


# ------------------------------------------------------------------------------- twice the size


def fuse_upsample_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every 3 x 3 convolution of a picture that was just doubled as one of 2 x 2 of the picture itself.

    Below a kernel are 3 x 3 pixels of the doubled picture, but only 2 x 2 different ones. So each of the four places in
    a square of outputs has 2 x 2 weights of its own: four ninths of the work. Squares begin a pixel before the picture,
    square i with rows 2 i - 1 and 2 i of the doubled one: then all its places see the same pixels, i - 1 and i.
    """
    editor = GraphEditor(model)
    for node in editor:
        if not is_nearest_upsample_2x(editor, node):
            continue
        old, pad, conv = [node], "", editor.sole_consumer(node)
        if conv is not None and conv.op_type == "Pad":
            old, pad, conv = [node, conv], one_pixel_padding(editor, conv), editor.sole_consumer(conv)
        weight = conv_weight(editor, conv)
        if weight is None or weight.shape[2:] != (3, 3) or pad == "other":
            continue
        assert conv is not None
        if not preserves_size(conv, 0 if pad else 1):
            continue
        activation = editor.sole_consumer(conv)
        if activation is not None and activation.op_type not in ACTIVATIONS:
            activation = None
        old += [conv] if activation is None else [conv, activation]
        editor.replace(old, _upsample_conv_nodes(editor, node.input[0], pad, conv, weight, activation))
    return editor.model()


def _upsample_conv_nodes(
    editor: GraphEditor, value: str, pad: str, conv: NodeProto, weight: np.ndarray, activation: NodeProto | None
) -> list[NodeProto]:
    nodes: list[NodeProto] = []
    outputs = weight.shape[0]
    if pad:
        # The pixel beyond the edge of a doubled picture is the one at its edge, repeated or reflected.
        nodes.append(edge_pad(editor, value, conv))
        (value,) = nodes[-1].output
    constants = [editor.add_constant(conv.input[1], _subpixel_weight(weight))]
    if len(conv.input) > 2:
        bias = editor.constant(conv.input[2])
        assert bias is not None
        constants.append(editor.add_constant(conv.input[2], np.repeat(bias, _PLACES)))
    squares = editor.unique_name(f"{conv.output[0]}_squares")
    pads = [0 if pad else 1] * 4
    nodes.append(helper.make_node("Conv", [value, *constants], [squares], name=conv.name, pads=pads))
    if activation is not None:
        other = NodeProto()
        other.CopyFrom(activation)
        other.input[0], other.output[0] = squares, editor.unique_name(f"{activation.output[0]}_squares")
        nodes.append(other)
        squares = other.output[0]
    # DepthToSpace would take three times as long, and leave the pixels beyond the edges.
    together = _channels_per_group(outputs)
    places = np.zeros((outputs, _PLACES, together, 2, 2), np.float32)
    for output, place in np.ndindex(outputs, _PLACES):
        places[output, place, output % together, place // 2, place % 2] = 1
    weight_name = editor.add_constant(f"{conv.name}/places", places.reshape(_PLACES * outputs, together, 2, 2))
    nodes.append(
        helper.make_node(
            "ConvTranspose",
            [squares, weight_name],
            (activation or conv).output,
            name=f"{conv.name}/pixels",
            group=outputs // together,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        )
    )
    return nodes


def _channels_per_group(outputs: int) -> int:
    """How many output channels a group is to have: two, or as few as divide their number.

    One would do, but from onnxruntime-web 1.30 with WebGPU groups of one output and several inputs come out wrong.
    """
    return next((count for count in range(2, outputs) if outputs % count == 0), outputs)


def _subpixel_weight(weight: np.ndarray) -> np.ndarray:
    """(O, I, 3, 3) of a doubled picture as (O 4, I, 2, 2) of the small one.

    Tap y of row a of square i is on row 2 i - 1 + a + y - 1 of the doubled picture: row i - 1 + (a + y) // 2.
    """
    outputs, inputs = weight.shape[:2]
    result = np.zeros((outputs, 2, 2, inputs, 2, 2), weight.dtype)
    for a, b, y, x in np.ndindex(2, 2, 3, 3):
        result[:, a, b, :, (a + y) // 2, (b + x) // 2] += weight[:, :, y, x]
    return result.reshape(_PLACES * outputs, inputs, 2, 2)


# --------------------------------------------------------------------------- one output channel


def single_output_conv_to_conv_transpose(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a transposed convolution wherever a convolution has one output channel: the same, told from where a
    pixel goes instead of where it comes from."""
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None or weight.shape[0] > 1 or weight.shape[1] == 1 or max(weight.shape[2:]) == 1:
            continue
        given = attributes(node)
        before = list(given.get("pads", [0] * 4))
        pads = [size - 1 - padded for size, padded in zip(weight.shape[2:] * 2, before, strict=True)]
        if set(given.get("strides", [1])) != {1} or min(pads) < 0:
            continue
        spread = editor.add_constant(node.input[1], weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        inputs = [node.input[0], spread, *node.input[2:]]
        editor.replace([node], [helper.make_node("ConvTranspose", inputs, node.output, name=node.name, pads=pads)])
    return editor.model()


# ------------------------------------------------------------------------------------------ ELU


def decompose_elu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with max(x, exp(min(x, 0)) - 1) for ELU: below zero, exp(x) - 1 is the larger; above, it is zero."""
    editor = GraphEditor(model)
    for node in editor:
        if node.op_type != "Elu" or attributes(node).get("alpha", 1.0) != 1.0:
            continue
        (x,), (y,) = node.input, node.output
        zero, one = (editor.add_constant(f"{node.name}/{n}", np.float32(n == "one")) for n in ("zero", "one"))
        below, power, less = (editor.unique_name(f"{y}_{what}") for what in ("below", "exp", "less"))
        editor.replace(
            [node],
            [
                helper.make_node("Clip", [x, "", zero], [below], name=f"{node.name}/Clip"),
                helper.make_node("Exp", [below], [power], name=f"{node.name}/Exp"),
                helper.make_node("Sub", [power, one], [less], name=f"{node.name}/Sub"),
                helper.make_node("Max", [x, less], [y], name=node.name),
            ],
        )
    return editor.model()
