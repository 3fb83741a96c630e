"""The same graph in operators that onnxruntime is quick at on a CPU. Other processors may well prefer the plain one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from export.rewrite import Rewriter, attributes, plain_conv

_AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})


def quick_on_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with less to pass over, and the same output up to rounding.

    - What scales and shifts channels before a convolution is one subtraction; the scale goes into the weights. The
      shift cannot: where a picture is padded with zeros, they are zeros of what comes after it.
    - A convolution of one output channel is one for each input channel, and their sum: onnxruntime computes output
      channels in blocks of 16, fifteen of which are then for nothing.
    Other graphs come back as they are.
    """
    return one_output_channel_apart(scales_in_weights(model))


def scales_in_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with `conv(a x + b)` as another `conv(x - c)`, wherever a and b take two operators or more."""
    rewriter = Rewriter(model)
    for node in rewriter:
        weight = plain_conv(rewriter, node)
        if weight is None:
            continue
        chain, scale, shift = _affine(rewriter, node, weight.shape[1])
        if len(chain) < 2 or not np.all(np.isfinite(shift / scale)):
            continue
        first, last = chain[0], chain[-1]
        scaled = rewriter.add_constant(node.input[1], (weight * scale[:, None, None]).astype(weight.dtype))
        centre = rewriter.add_constant(f"{last.output[0]}_centre", (-shift / scale)[:, None, None].astype(np.float32))
        source = next(name for name in first.input if name not in rewriter.constants)
        shifted = helper.make_node("Sub", [source, centre], last.output, name=last.name)
        other = NodeProto()
        other.CopyFrom(node)
        other.input[1] = scaled
        rewriter.exchange([*chain, node], [shifted, other])
    return rewriter.model()


def _affine(rewriter: Rewriter, node: NodeProto, channels: int) -> tuple[list[NodeProto], np.ndarray, np.ndarray]:
    """The nodes right before `node` that alone scale and shift its input, first to last, and a and b (C,) of them."""
    chain: list[NodeProto] = []
    scale, shift = np.ones(channels), np.zeros(channels)
    reader, before = node, rewriter.maker(node.input[0])
    while before is not None and before.op_type in _AFFINE and rewriter.only_reader(before) is reader:
        left, right = (_by_channel(rewriter.constant(name), channels) for name in before.input)
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
        reader, before = before, rewriter.maker(data)
    return chain, scale, shift


def _by_channel(value: np.ndarray | None, channels: int) -> np.ndarray | None:
    """(C,) float64 of a constant that is the same all over a picture (1, C, h, w); None for another."""
    if value is None or value.dtype != np.float32:
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[:1] + shape[2:] != (1, 1, 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)


def one_output_channel_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with a group for each input channel where a convolution has one output channel, and then their sum."""
    rewriter = Rewriter(model)
    for node in rewriter:
        weight = plain_conv(rewriter, node)
        if weight is not None and weight.shape[0] == 1 and weight.shape[1] > 1 and max(weight.shape[2:]) > 1:
            rewriter.exchange([node], _split(node, weight, rewriter))
    return rewriter.model()


def _split(node: NodeProto, weight: np.ndarray, rewriter: Rewriter) -> list[NodeProto]:
    """Weights (1, C, h, w) become (C, 1, h, w), with a group for each channel; ones (1, C, 1, 1) add them up."""
    _, channels, *_ = weight.shape
    each = rewriter.add_constant(node.input[1], weight.transpose(1, 0, 2, 3))
    ones = rewriter.add_constant(f"{node.name}/ones", np.ones((1, channels, 1, 1), np.float32))
    apart = rewriter.unused(f"{node.output[0]}_channels")
    given = attributes(node) | {"group": channels}
    return [
        helper.make_node("Conv", [node.input[0], each], [apart], name=node.name, **given),
        helper.make_node("Conv", [apart, ones, *node.input[2:]], node.output, name=f"{node.name}/sum"),
    ]
