"""Nodes that rewritings look for, and one that several of them make."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from .graph_editor import GraphEditor, attributes

ACTIVATIONS = frozenset({"Elu", "Relu", "LeakyRelu", "Sigmoid", "Tanh"})
"""Of each value by itself, whatever its place."""
_TWICE = [1.0, 1.0, 2.0, 2.0]


def conv_weight(editor: GraphEditor, node: NodeProto | None) -> np.ndarray | None:
    """Weights (O, I, h, w) of a convolution of pictures without groups or dilation; None for any other node."""
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
    """Whether a convolution has an output for each pixel, and itself pads with so many zeros at every edge."""
    given = attributes(node)
    return set(given.get("strides", [1])) == {1} and list(given.get("pads", [0] * 4)) == [padded] * 4


def is_nearest_upsample_2x(editor: GraphEditor, node: NodeProto) -> bool:
    """Whether a node makes of every pixel a square of 2 x 2."""
    if node.op_type != "Resize":
        return False
    given = attributes(node)
    scales = editor.constant(node.input[2]) if len(node.input) == 3 else None
    how = (given.get("mode"), given.get("coordinate_transformation_mode"), given.get("nearest_mode"))
    return scales is not None and list(scales) == _TWICE and how == (b"nearest", b"asymmetric", b"floor")


def one_pixel_padding(editor: GraphEditor, node: NodeProto) -> str:
    """How a Pad repeats one pixel at every edge of pictures; "other" where it does something else."""
    amounts = editor.constant(node.input[1])
    if len(node.input) > 2 or amounts is None or list(amounts) != [0, 0, 1, 1] * 2:
        return "other"
    mode = attributes(node).get("mode", b"constant").decode()
    return mode if mode in ("reflect", "edge") else "other"


def edge_pad(editor: GraphEditor, value: str, conv: NodeProto) -> NodeProto:
    """A Pad that repeats the outermost pixels of `value` once, for `conv` to read."""
    amounts = editor.add_constant(f"{conv.name}/one", np.array([0, 0, 1, 1] * 2))
    padded = editor.unique_name(f"{conv.name}/padded")
    return helper.make_node("Pad", [value, amounts], [padded], name=f"{conv.name}/Pad", mode="edge")
