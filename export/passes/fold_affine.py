"""Fold scales and shifts of channels into the convolution that follows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from .graph_editor import GraphEditor
from .patterns import conv_weight

_AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})


def fold_affine_into_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite `Conv(a x + b)` to `Conv'(x - c)`.

    Pattern: two or more of Add, Sub, Mul, Div with constants per channel (or scalars), read by nothing but one Conv
    without groups or dilation. Networks normalize their input this way.
    Rewritten to: one Sub of `c = -b / a`, and the Conv with weights times `a`.
    Why: each operator reads and writes the whole image once. The shift stays outside because the Conv's zero padding
    applies to its input: folded into the bias, it would be wrong at the edges.
    Measured alone: 1.01 (bundled) and 1.02 (RT-MonoDepth-S) times as fast.
    """
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None:
            continue
        chain, scale, shift = _affine_chain(editor, node, weight.shape[1])
        if len(chain) < 2 or not np.all(np.isfinite(shift / scale)):
            continue
        first, last = chain[0], chain[-1]
        scaled = editor.add_constant(node.input[1], (weight * scale[:, None, None]).astype(weight.dtype))
        center = editor.add_constant(f"{last.output[0]}_centre", (-shift / scale)[:, None, None].astype(np.float32))
        source = next(name for name in first.input if name not in editor.constants)
        shifted = helper.make_node("Sub", [source, center], last.output, name=last.name)
        conv = NodeProto()
        conv.CopyFrom(node)
        conv.input[1] = scaled
        editor.replace([*chain, node], [shifted, conv])
    return editor.model()


def _affine_chain(
    editor: GraphEditor, node: NodeProto, channels: int
) -> tuple[list[NodeProto], np.ndarray, np.ndarray]:
    """Return the affine nodes right before `node`, first to last, and their joint scale and shift (C,)."""
    chain: list[NodeProto] = []
    scale, shift = np.ones(channels), np.zeros(channels)
    consumer, current = node, editor.producer(node.input[0])
    while current is not None and current.op_type in _AFFINE and editor.sole_consumer(current) is consumer:
        left, right = (_per_channel(editor.constant(name), channels) for name in current.input)
        if (left is None) == (right is None) or (left is not None and current.op_type == "Div"):
            break
        value = left if right is None else right
        assert value is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            match current.op_type:
                case "Add":
                    a, b = np.ones(channels), value
                case "Sub":
                    a, b = (np.ones(channels), -value) if left is None else (-np.ones(channels), value)
                case "Mul":
                    a, b = value, np.zeros(channels)
                case _:
                    a, b = 1 / value, np.zeros(channels)
            scale, shift = scale * a, scale * b + shift
        chain.insert(0, current)
        data = current.input[1 if left is not None else 0]
        consumer, current = current, editor.producer(data)
    return chain, scale, shift


def _per_channel(value: np.ndarray | None, channels: int) -> np.ndarray | None:
    """Return a constant that is uniform over (1, C, h, w) as (C,) float64, and None for any other value."""
    if value is None or value.dtype != np.float32:
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[:1] + shape[2:] != (1, 1, 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)
