"""Layers of few channels at full size in forms that 8-bit kernels are quick at; the function stays what it is.

Such a kernel computes 16 or more output channels at a time from multiples of 4 input channels. Where a layer has less,
the four pixels of every 2 x 2 square are taken for channels: a quarter of the places, four times the channels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper

from ..to_onnx import in_network
from .graph_editor import GraphEditor, attributes
from .patterns import ACTIVATIONS, conv_weight, edge_pad, is_nearest_upsample_2x, one_pixel_padding, preserves_size

SEGMENTS = 4
"""Outputs that share what one 8-bit number would be too coarse for: see `split_output_range`."""
_FEW_INPUTS = 4
_FEW_OUTPUTS = 16
_TO_PIXELS = "/DepthToSpace"


def space_to_depth_ends(model: onnx.ModelProto, but: Collection[str] = ()) -> onnx.ModelProto:
    """`model` with the first layers and the last two, where they are as above, over squares of pixels.

    `but` are names of first layers (nodes) that stay as they are.
    """
    return space_to_depth_head(space_to_depth_stem(model, but))


def space_to_depth_stem(model: onnx.ModelProto, but: Collection[str] = ()) -> onnx.ModelProto:
    """`model` with every convolution of few channels and stride 2 as one of stride 1 over squares.

    Only where the picture's size is known to be even, and padded as torch pads it: by half the kernel.
    """
    editor, sizes = GraphEditor(model), _sizes(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None or node.name in but:
            continue
        if weight.shape[1] > _FEW_INPUTS or weight.shape[2] != weight.shape[3]:
            continue
        kernel, given = weight.shape[2], attributes(node)
        height, width = sizes.get(node.input[0], (1, 1))
        if kernel % 2 == 0 or list(given.get("strides", [])) != [2, 2] or height % 2 or width % 2:
            continue
        if list(given.get("pads", [0] * 4)) != [kernel // 2] * 4:
            continue
        squares, before, after = _space_to_depth_weight(weight)
        name = editor.unique_name(f"{node.input[0]}_squares")
        to_squares = helper.make_node("SpaceToDepth", [node.input[0]], [name], name=f"{node.name}/squares", blocksize=2)
        constant = editor.add_constant(node.input[1], squares)
        conv = helper.make_node(
            "Conv", [name, constant, *node.input[2:]], node.output, name=node.name, pads=[before] * 2 + [after] * 2
        )
        editor.replace([node], [to_squares, conv])
    return editor.model()


def _space_to_depth_weight(weight: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(O, C, k, k), k odd, stride 2, padded by k // 2, as (O, 4 C, m, m) of stride 1, and how much that is padded by
    before and after.

    Output i takes pixels 2 i + t - k // 2 for taps t. Of them, pixel 2 (i + s) + p is in square i + s, at place p.
    """
    outputs, channels, kernel, _ = weight.shape
    squares = [(tap - kernel // 2) // 2 for tap in range(kernel)]
    places = [(tap - kernel // 2) % 2 for tap in range(kernel)]
    before, after = -squares[0], squares[-1]
    result = np.zeros((outputs, 2, 2, channels, before + after + 1, before + after + 1), weight.dtype)
    for y in range(kernel):
        for x in range(kernel):
            result[:, places[y], places[x], :, squares[y] + before, squares[x] + before] = weight[:, :, y, x]
    return result.reshape(outputs, 4 * channels, *result.shape[-2:]), before, after


def _sizes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Height and width of values (B, C, h, w) whose size is known."""
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    sizes = {}
    for value in shaped.graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[2:]):
            sizes[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return sizes


# ------------------------------------------------------------------------------------- the last two


@dataclass(frozen=True)
class _Tail:
    """What ends many decoders: twice the size (nearest), two convolutions."""

    nodes: tuple[NodeProto, ...]
    first: NodeProto
    activation: NodeProto
    last: NodeProto
    pads: tuple[str, str]
    """How either convolution's input is padded by one pixel: "reflect", "edge", or "" for its own zeros."""


def space_to_depth_head(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every tail of few channels computed before the size is doubled, which then is a matter of order."""
    editor = GraphEditor(model)
    for node in editor:
        tail = _tail(editor, node) if in_network(node) else None
        if tail is not None:
            editor.replace(tail.nodes, _space_to_depth_tail(editor, tail))
    return editor.model()


def is_space_to_depth_head(model: onnx.ModelProto, conv_name: str) -> bool:
    """Whether a convolution is the last of those that `space_to_depth_head` made."""
    return any(node.name == f"{conv_name}{_TO_PIXELS}" for node in model.graph.node)


def segment_clip_name(conv_name: str) -> str:
    """The node that ends the range of a convolution's levels, see `split_output_range`."""
    return f"{conv_name}/Clip"


def _tail(editor: GraphEditor, resize: NodeProto) -> _Tail | None:
    """The tail that `resize` begins, if it does."""
    if not is_nearest_upsample_2x(editor, resize):
        return None
    nodes = [resize]
    convs: list[NodeProto] = []
    pads: list[str] = []
    activation = None
    node = editor.sole_consumer(resize)
    while node is not None and len(convs) < 2:
        nodes.append(node)
        if node.op_type == "Pad" and len(pads) == len(convs):
            pads.append(one_pixel_padding(editor, node))
        elif node.op_type in ACTIVATIONS and len(convs) == 1 and activation is None and len(pads) == 1:
            activation = node
        elif conv_weight(editor, node) is not None:
            if len(pads) == len(convs):
                pads.append("")
            convs.append(node)
        else:
            return None
        node = editor.sole_consumer(nodes[-1]) if len(convs) < 2 else None
    if len(convs) < 2 or activation is None or not _is_convertible(editor, convs, pads):
        return None
    return _Tail(tuple(nodes), convs[0], activation, convs[1], (pads[0], pads[1]))


def _is_convertible(editor: GraphEditor, convs: list[NodeProto], pads: list[str]) -> bool:
    for conv, pad in zip(convs, pads, strict=True):
        weight = conv_weight(editor, conv)
        assert weight is not None
        if weight.shape[2:] != (3, 3) or not preserves_size(conv, 0 if pad else 1):
            return False
    # The double of a picture is the same reflected or repeated at its edge; what is computed of it is not.
    if pads[0] not in ("", "reflect", "edge") or pads[1] not in ("", "reflect"):
        return False
    first, last = (conv_weight(editor, conv) for conv in convs)
    assert first is not None
    assert last is not None
    return first.shape[0] <= _FEW_OUTPUTS and 4 * last.shape[0] * SEGMENTS <= _FEW_OUTPUTS


def _space_to_depth_tail(editor: GraphEditor, tail: _Tail) -> list[NodeProto]:
    """One pixel of the small picture is a square of the doubled one. Beyond an edge, only the square's near half is
    read, and that is, of a reflected picture, the half of the outermost square that is away from the edge: which has
    the same place in it. So all that was reflected is repeated at the edge here."""
    first, last = conv_weight(editor, tail.first), conv_weight(editor, tail.last)
    assert first is not None
    assert last is not None
    nodes: list[NodeProto] = []
    value = tail.nodes[0].input[0]
    for conv, weight, pad in (
        (tail.first, _upsampled_weight(first), tail.pads[0]),
        (tail.last, _blocked_weight(last), tail.pads[1]),
    ):
        if pad:
            nodes.append(edge_pad(editor, value, conv))
            (value,) = nodes[-1].output
        constants = [editor.add_constant(conv.input[1], weight)]
        bias = editor.constant(conv.input[2]) if len(conv.input) > 2 else None
        if bias is not None:
            constants.append(editor.add_constant(conv.input[2], np.tile(bias, 4)))
        output = editor.unique_name(f"{conv.output[0]}_of_squares")
        pads = [0 if pad else 1] * 4
        nodes.append(helper.make_node("Conv", [value, *constants], [output], name=conv.name, pads=pads))
        value = output
        if conv is tail.first:
            activation = NodeProto()
            activation.CopyFrom(tail.activation)
            activation.input[0] = value
            activation.output[0] = value = editor.unique_name(f"{tail.activation.output[0]}_of_squares")
            nodes.append(activation)
    name = f"{tail.last.name}{_TO_PIXELS}"
    nodes.append(helper.make_node("DepthToSpace", [value], tail.last.output, name=name, blocksize=2))
    return nodes


def _upsampled_weight(weight: np.ndarray) -> np.ndarray:
    """(O, I, 3, 3) of a doubled picture as (4 O, I, 3, 3) of the small one; outputs by place in the square."""
    outputs, inputs = weight.shape[:2]
    result = np.zeros((2, 2, outputs, inputs, 3, 3), weight.dtype)
    for a, b, y, x in np.ndindex(2, 2, 3, 3):
        result[a, b, :, :, (a + y - 1) // 2 + 1, (b + x - 1) // 2 + 1] += weight[:, :, y, x]
    return result.reshape(4 * outputs, inputs, 3, 3)


def _blocked_weight(weight: np.ndarray) -> np.ndarray:
    """(O, I, 3, 3) of a picture as (4 O, 4 I, 3, 3) of its squares; inputs and outputs by place in the square."""
    outputs, inputs = weight.shape[:2]
    result = np.zeros((2, 2, outputs, 2, 2, inputs, 3, 3), weight.dtype)
    for a, b, y, x in np.ndindex(2, 2, 3, 3):
        row, column = a + y - 1, b + x - 1
        result[a, b, :, row % 2, column % 2, :, row // 2 + 1, column // 2 + 1] = weight[:, :, y, x]
    return result.reshape(4 * outputs, 4 * inputs, 3, 3)


# ------------------------------------------------------------------------------- one output channel


def single_output_conv_to_depthwise_sum(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a group for each input channel where a convolution has one output channel, and then their sum.

    onnxruntime computes output channels in blocks of 16, fifteen of which are then for nothing.
    """
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is not None and weight.shape[0] == 1 and weight.shape[1] > 1 and max(weight.shape[2:]) > 1:
            editor.replace([node], _split(node, weight, editor))
    return editor.model()


def _split(node: NodeProto, weight: np.ndarray, editor: GraphEditor) -> list[NodeProto]:
    """Weights (1, C, h, w) become (C, 1, h, w), with a group for each channel; ones (1, C, 1, 1) add them up."""
    _, channels, *_ = weight.shape
    each = editor.add_constant(node.input[1], weight.transpose(1, 0, 2, 3))
    ones = editor.add_constant(f"{node.name}/ones", np.ones((1, channels, 1, 1), np.float32))
    apart = editor.unique_name(f"{node.output[0]}_channels")
    given = attributes(node) | {"group": channels}
    return [
        helper.make_node("Conv", [node.input[0], each], [apart], name=node.name, **given),
        helper.make_node("Conv", [apart, ones, *node.input[2:]], node.output, name=f"{node.name}/sum"),
    ]


# ------------------------------------------------------------------------- more than 8 bits of output


def split_output_range(model: onnx.ModelProto, conv_name: str, low: float, high: float) -> onnx.ModelProto:
    """`model` with an output between `low` and `high` of a convolution as the sum of `SEGMENTS` outputs.

    Each is what the output rises above its own share of the range, no less than nothing and no more than the share. In
    8 bits, their sum has `SEGMENTS` times as many steps.
    """
    editor = GraphEditor(model)
    node = next(node for node in editor if node.name == conv_name)
    weight = conv_weight(editor, node)
    assert weight is not None
    outputs, share = weight.shape[0], (high - low) / SEGMENTS
    bias = np.zeros(outputs, np.float32)
    if len(node.input) > 2:
        given = editor.constant(node.input[2])
        assert given is not None
        bias = given
    below = low + share * np.arange(SEGMENTS)
    biases = (bias[:, None] - below).reshape(-1).astype(np.float32)
    apart, clipped = editor.unique_name(f"{node.output[0]}_above"), editor.unique_name(f"{node.output[0]}_levels")
    names = (
        editor.add_constant(node.input[1], np.repeat(weight, SEGMENTS, axis=0)),
        editor.add_constant(f"{node.name}/above", biases),
    )
    ends = [editor.add_constant(f"{node.name}/{n}", np.float32(v)) for n, v in (("nothing", 0.0), ("share", share))]
    ones = np.repeat(np.eye(outputs, dtype=np.float32), SEGMENTS, axis=1)[:, :, None, None]
    total = [
        editor.add_constant(f"{node.name}/ones", ones),
        editor.add_constant(f"{node.name}/low", np.full(outputs, low, np.float32)),
    ]
    conv = helper.make_node("Conv", [node.input[0], *names], [apart], name=node.name, **attributes(node))
    clip = helper.make_node("Clip", [apart, *ends], [clipped], name=segment_clip_name(node.name))
    sum_of = helper.make_node("Conv", [clipped, *total], node.output, name=f"{node.name}/sum")
    editor.replace([node], [conv, clip, sum_of])
    return editor.model()
