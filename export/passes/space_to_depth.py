"""Space to depth for layers of few channels at full resolution; the function stays the same.

An 8-bit kernel computes 16 or more output channels at a time, from multiples of 4 input channels. Where a layer has
fewer, the four pixels of every 2x2 block are used as channels: a quarter of the positions, four times the channels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper

from ..to_onnx import in_network
from .graph_editor import GraphEditor, attributes
from .output_range import SEGMENTS
from .patterns import ACTIVATIONS, conv_weight, edge_pad, is_nearest_upsample_2x, one_pixel_padding, preserves_size

_MAX_INPUTS = 4
_MAX_OUTPUTS = 16
_DEPTH_TO_SPACE = "/DepthToSpace"


def space_to_depth_ends(model: onnx.ModelProto, excluded: Collection[str] = ()) -> onnx.ModelProto:
    """Apply `space_to_depth_stem`, except to the Convs named in `excluded`, and then `space_to_depth_head`."""
    return space_to_depth_head(space_to_depth_stem(model, excluded))


# -------------------------------------------------------------------------------------------- stem


def space_to_depth_stem(model: onnx.ModelProto, excluded: Collection[str] = ()) -> onnx.ModelProto:
    """Rewrite stride-2 Convs of few input channels to SpaceToDepth + Conv of stride 1.

    Pattern: Conv with at most 4 input channels, an odd square kernel, stride 2, padding of half the kernel (as torch
    pads), and an input whose height and width are known to be even. Convs named in `excluded` are left alone.
    Rewritten to: SpaceToDepth (block size 2) and a Conv of stride 1 with four times the input channels.
    Why: 3 input channels leave most of an 8-bit kernel idle. For int8, as part of which it was measured.
    """
    editor, sizes = GraphEditor(model), _known_sizes(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None or node.name in excluded:
            continue
        if weight.shape[1] > _MAX_INPUTS or weight.shape[2] != weight.shape[3]:
            continue
        kernel, given = weight.shape[2], attributes(node)
        height, width = sizes.get(node.input[0], (1, 1))
        if kernel % 2 == 0 or list(given.get("strides", [])) != [2, 2] or height % 2 or width % 2:
            continue
        if list(given.get("pads", [0] * 4)) != [kernel // 2] * 4:
            continue
        block_weight, before, after = _space_to_depth_weight(weight)
        name = editor.unique_name(f"{node.input[0]}_squares")
        rearrange = helper.make_node("SpaceToDepth", [node.input[0]], [name], name=f"{node.name}/squares", blocksize=2)
        constant = editor.add_constant(node.input[1], block_weight)
        conv = helper.make_node(
            "Conv", [name, constant, *node.input[2:]], node.output, name=node.name, pads=[before] * 2 + [after] * 2
        )
        editor.replace([node], [rearrange, conv])
    return editor.model()


def _space_to_depth_weight(weight: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return weights (O, 4 C, m, m) of stride 1 for weights (O, C, k, k) of stride 2, and the padding before and after.

    k is odd, the padding k // 2. Output i reads pixels 2i + t - k // 2 for taps t; pixel 2(i + s) + p is in block
    i + s, at position p.
    """
    outputs, channels, kernel, _ = weight.shape
    blocks = [(tap - kernel // 2) // 2 for tap in range(kernel)]
    positions = [(tap - kernel // 2) % 2 for tap in range(kernel)]
    before, after = -blocks[0], blocks[-1]
    result = np.zeros((outputs, 2, 2, channels, before + after + 1, before + after + 1), weight.dtype)
    for y in range(kernel):
        for x in range(kernel):
            result[:, positions[y], positions[x], :, blocks[y] + before, blocks[x] + before] = weight[:, :, y, x]
    return result.reshape(outputs, 4 * channels, *result.shape[-2:]), before, after


def _known_sizes(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Return height and width of all values (B, C, h, w) whose size shape inference finds."""
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    sizes = {}
    for value in shaped.graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[2:]):
            sizes[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return sizes


# -------------------------------------------------------------------------------------------- head


@dataclass(frozen=True)
class _Head:
    """End of many decoders: nearest 2x Resize, Conv, activation, Conv."""

    nodes: tuple[NodeProto, ...]
    first: NodeProto
    activation: NodeProto
    last: NodeProto
    pads: tuple[str, str]
    """Padding by one pixel before each Conv: "reflect", "edge", or "" for the Conv's own zeros."""


def space_to_depth_head(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a decoder's end so that both Convs run before the upsampling.

    Pattern: within the network, nearest 2x Resize, Conv 3x3, activation, Conv 3x3, each Conv optionally after a Pad by
    one pixel; at most 16 channels between the Convs; and none of the values between is read elsewhere.
    Rewritten to: both Convs at the low resolution on 2x2 blocks as channels, and a DepthToSpace at the end.
    Why: the full-resolution layers have too few channels for 8-bit kernels. For int8, as part of which it was measured.
    """
    editor = GraphEditor(model)
    for node in editor:
        head = _match_head(editor, node) if in_network(node) else None
        if head is not None:
            editor.replace(head.nodes, _block_nodes(editor, head))
    return editor.model()


def is_space_to_depth_head(model: onnx.ModelProto, conv_name: str) -> bool:
    """Return whether a Conv is the last one of a head that `space_to_depth_head` rewrote."""
    return any(node.name == f"{conv_name}{_DEPTH_TO_SPACE}" for node in model.graph.node)


def _match_head(editor: GraphEditor, resize: NodeProto) -> _Head | None:
    """Return the head that starts with the node `resize`, and None if there is none."""
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
    return _Head(tuple(nodes), convs[0], activation, convs[1], (pads[0], pads[1]))


def _is_convertible(editor: GraphEditor, convs: list[NodeProto], pads: list[str]) -> bool:
    for conv, pad in zip(convs, pads, strict=True):
        weight = conv_weight(editor, conv)
        assert weight is not None
        if weight.shape[2:] != (3, 3) or not preserves_size(conv, 0 if pad else 1):
            return False
    # Reflection and repetition agree at the edge of an upsampled image, but not at that of the first Conv's output.
    if pads[0] not in ("", "reflect", "edge") or pads[1] not in ("", "reflect"):
        return False
    first, last = (conv_weight(editor, conv) for conv in convs)
    assert first is not None
    assert last is not None
    return first.shape[0] <= _MAX_OUTPUTS and 4 * last.shape[0] * SEGMENTS <= _MAX_OUTPUTS


def _block_nodes(editor: GraphEditor, head: _Head) -> list[NodeProto]:
    """Return the nodes that compute `head` at the low resolution.

    One pixel there is one 2x2 block of the upsampled image. Reflection becomes repetition of the edge block: beyond the
    edge, the second Conv reads only the nearer half of a block, and the reflected pixel has the same position in the
    edge block as the pixel that is read in the repeated one.
    """
    first, last = conv_weight(editor, head.first), conv_weight(editor, head.last)
    assert first is not None
    assert last is not None
    nodes: list[NodeProto] = []
    value = head.nodes[0].input[0]
    for conv, weight, pad in (
        (head.first, _upsampled_weight(first), head.pads[0]),
        (head.last, _block_weight(last), head.pads[1]),
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
        if conv is head.first:
            activation = NodeProto()
            activation.CopyFrom(head.activation)
            activation.input[0] = value
            activation.output[0] = value = editor.unique_name(f"{head.activation.output[0]}_of_squares")
            nodes.append(activation)
    name = f"{head.last.name}{_DEPTH_TO_SPACE}"
    nodes.append(helper.make_node("DepthToSpace", [value], head.last.output, name=name, blocksize=2))
    return nodes


def _upsampled_weight(weight: np.ndarray) -> np.ndarray:
    """Return weights (O, I, 3, 3) of an upsampled image as (4 O, I, 3, 3) of its source; outputs by block position."""
    outputs, inputs = weight.shape[:2]
    result = np.zeros((2, 2, outputs, inputs, 3, 3), weight.dtype)
    for a, b, y, x in np.ndindex(2, 2, 3, 3):
        result[a, b, :, :, (a + y - 1) // 2 + 1, (b + x - 1) // 2 + 1] += weight[:, :, y, x]
    return result.reshape(4 * outputs, inputs, 3, 3)


def _block_weight(weight: np.ndarray) -> np.ndarray:
    """Return weights (O, I, 3, 3) for an image as (4 O, 4 I, 3, 3) for its 2x2 blocks; channels by block position."""
    outputs, inputs = weight.shape[:2]
    result = np.zeros((2, 2, outputs, 2, 2, inputs, 3, 3), weight.dtype)
    for a, b, y, x in np.ndindex(2, 2, 3, 3):
        row, column = a + y - 1, b + x - 1
        result[a, b, :, row % 2, column % 2, :, row // 2 + 1, column // 2 + 1] = weight[:, :, y, x]
    return result.reshape(4 * outputs, 4 * inputs, 3, 3)
