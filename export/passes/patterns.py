"""Patterns that several passes match, and a node that several of them create."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from .graph_editor import GraphEditor, attributes

ACTIVATIONS = frozenset({"Elu", "Relu", "LeakyRelu", "Sigmoid", "Tanh"})
"""Elementwise operators, which may be moved before a rearrangement of pixels."""
_SCALES_2X = [1.0, 1.0, 2.0, 2.0]


def conv_weight(editor: GraphEditor, node: NodeProto | None) -> np.ndarray | None:
    """Return the weights (O, I, h, w) of a 2D Conv without groups, dilation or auto_pad; None for any other node."""
    if node is None or node.op_type != "Conv":
        return None
    weight, given = editor.constant(node.input[1]), attributes(node)
    if (
        weight is None
        or weight.ndim != 4
        or given.get("group", 1) != 1
        or given.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):
        return None
    return weight if set(given.get("dilations", [1])) == {1} else None


def preserves_size(node: NodeProto, padded: int) -> bool:
    """Return whether a Conv has stride 1 and zero padding of `padded` pixels at every edge."""
    given = attributes(node)
    return set(given.get("strides", [1])) == {1} and list(given.get("pads", [0] * 4)) == [padded] * 4


def is_scale_2x(editor: GraphEditor, resize: NodeProto) -> bool:
    """Return whether a Resize has constant scales of 2 for height and width."""
    scales = editor.constant(resize.input[2]) if len(resize.input) == 3 else None
    return scales is not None and list(scales) == _SCALES_2X


def is_nearest_upsample_2x(editor: GraphEditor, node: NodeProto) -> bool:
    """Return whether a node repeats every pixel as a 2x2 block."""
    if node.op_type != "Resize":
        return False
    given = attributes(node)
    mode = (given.get("mode"), given.get("coordinate_transformation_mode"), given.get("nearest_mode"))
    return is_scale_2x(editor, node) and mode == (b"nearest", b"asymmetric", b"floor")


def one_pixel_padding(editor: GraphEditor, node: NodeProto) -> str:
    """Return the mode of a Pad by one pixel at every edge: "reflect" or "edge", and "other" for any other Pad."""
    amounts = editor.constant(node.input[1])
    if len(node.input) > 2 or amounts is None or list(amounts) != [0, 0, 1, 1] * 2:
        return "other"
    mode = attributes(node).get("mode", b"constant").decode()
    return mode if mode in ("reflect", "edge") else "other"


def edge_pad(editor: GraphEditor, value: str, conv: NodeProto) -> NodeProto:
    """Return a Pad (edge, one pixel) of `value`, named after the Conv that reads it."""
    amounts = editor.add_constant(f"{conv.name}/one", np.array([0, 0, 1, 1] * 2))
    padded = editor.unique_name(f"{conv.name}/padded")
    return helper.make_node("Pad", [value, amounts], [padded], name=f"{conv.name}/Pad", mode="edge")
