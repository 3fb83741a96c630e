"""Convolutions with one output channel.

onnxruntime's CPU kernels compute output channels in blocks of 16: with a single one, fifteen are computed for nothing.
The three passes here avoid that: in fp32 graphs, before quantization, and after it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from .graph_editor import GraphEditor, NodeBuilder, attributes
from .patterns import conv_weight


def single_output_conv_to_conv_transpose(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a Conv with one output channel to a ConvTranspose: scatter instead of gather.

    Pattern: Conv with one output channel, several input channels, a kernel larger than 1x1, stride 1, and padding
    smaller than the kernel.
    Rewritten to: ConvTranspose with the flipped kernel and the complementary padding.
    Why: see the module.
    Measured alone: 0.98 (bundled) and 1.06 (RT-MonoDepth-S) times as fast.
    """
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is None or weight.shape[0] > 1 or weight.shape[1] == 1 or max(weight.shape[2:]) == 1:
            continue
        given = attributes(node)
        old_pads = list(given.get("pads", [0] * 4))
        pads = [size - 1 - padded for size, padded in zip(weight.shape[2:] * 2, old_pads, strict=True)]
        if set(given.get("strides", [1])) != {1} or min(pads) < 0:
            continue
        flipped = editor.add_constant(node.input[1], weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        inputs = [node.input[0], flipped, *node.input[2:]]
        editor.replace([node], [helper.make_node("ConvTranspose", inputs, node.output, name=node.name, pads=pads)])
    return editor.model()


def single_output_conv_to_depthwise_sum(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a Conv with one output channel to a depthwise Conv and a 1x1 Conv that sums the channels.

    Pattern: Conv with one output channel, several input channels, and a kernel larger than 1x1.
    Rewritten to: a Conv with one group per input channel, and a 1x1 Conv of ones with the bias.
    Why: see the module. For int8, as part of which it was measured.
    """
    editor = GraphEditor(model)
    for node in editor:
        weight = conv_weight(editor, node)
        if weight is not None and weight.shape[0] == 1 and weight.shape[1] > 1 and max(weight.shape[2:]) > 1:
            editor.replace([node], _depthwise_sum(node, weight, editor))
    return editor.model()


def _depthwise_sum(node: NodeProto, weight: np.ndarray, editor: GraphEditor) -> list[NodeProto]:
    """Return the two nodes: weights (1, C, h, w) become (C, 1, h, w) in C groups, then ones (1, C, 1, 1)."""
    _, channels, *_ = weight.shape
    depthwise = editor.add_constant(node.input[1], weight.transpose(1, 0, 2, 3))
    ones = editor.add_constant(f"{node.name}/ones", np.ones((1, channels, 1, 1), np.float32))
    per_channel = editor.unique_name(f"{node.output[0]}_channels")
    given = attributes(node) | {"group": channels}
    return [
        helper.make_node("Conv", [node.input[0], depthwise], [per_channel], name=node.name, **given),
        helper.make_node("Conv", [per_channel, ones, *node.input[2:]], node.output, name=f"{node.name}/sum"),
    ]


def head_conv_to_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a float 1x1 Conv with one output channel, after a DequantizeLinear, to a channels-last MatMul.

    Pattern: DequantizeLinear, Conv 1x1 with one output channel, stride 1, no padding.
    Rewritten to: Transpose to NHWC, MatMul, Add of the bias, Transpose back.
    Why: onnxruntime keeps the 8-bit values channels-last, so that the first Transpose costs nothing. For a Conv it
    would reorder them into channel blocks first.
    """
    editor = GraphEditor(model)
    for node in editor:
        weight = _head_weight(editor, node)
        if weight is None:
            continue
        builder = NodeBuilder(editor, node.name)
        value = builder.add("Transpose", [node.input[0]], perm=[0, 2, 3, 1])
        value = builder.add("MatMul", [value, editor.add_constant(node.input[1], weight[0, :, 0])])
        if len(node.input) > 2:
            value = builder.add("Add", [value, node.input[2]])
        builder.add("Transpose", [value], node.output[0], perm=[0, 3, 1, 2])
        editor.replace([node], builder.nodes)
    return editor.model()


def _head_weight(editor: GraphEditor, node: NodeProto) -> np.ndarray | None:
    """Return the weights (1, I, 1, 1) of a Conv that matches `head_conv_to_matmul`, and None for another node."""
    weight = conv_weight(editor, node)
    if weight is None or weight.shape[0] != 1 or weight.shape[2:] != (1, 1):
        return None
    given = attributes(node)
    if set(given.get("strides", [1])) != {1} or set(given.get("pads", [0])) != {0}:
        return None
    source = editor.producer(node.input[0])
    return weight if source is not None and source.op_type == "DequantizeLinear" else None
