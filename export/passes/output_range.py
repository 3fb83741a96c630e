"""Represent a convolution's output with more than 8 bits, as a sum of 8-bit segments."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .graph_editor import GraphEditor, attributes
from .patterns import conv_weight

SEGMENTS = 4
"""Outputs whose sum replaces one output that needs more than 8 bits."""


def split_output_range(model: onnx.ModelProto, conv_name: str, low: float, high: float) -> onnx.ModelProto:
    """Rewrite the Conv `conv_name`, whose output lies in [low, high], to a sum of `SEGMENTS` clipped outputs.

    Pattern: the named Conv, without groups or dilation.
    Rewritten to: a Conv with `SEGMENTS` copies of each output channel and staggered biases, a Clip, and a 1x1 Conv that
    adds the copies and `low`. Copy i is the part of the output within the i-th segment of the range: 0 below it, the
    segment's width above it.
    Why: with 256 steps per segment, the sum has `SEGMENTS` times as many. Over the whole range of depth, 8 bits would
    be steps of half a meter; without this, the last layer would have to stay in float.
    Outputs outside [low, high] are clipped to it.
    """
    editor = GraphEditor(model)
    node = next(node for node in editor if node.name == conv_name)
    weight = conv_weight(editor, node)
    assert weight is not None
    outputs, width = weight.shape[0], (high - low) / SEGMENTS
    bias = np.zeros(outputs, np.float32)
    if len(node.input) > 2:
        stored = editor.constant(node.input[2])
        assert stored is not None
        bias = stored
    starts = low + width * np.arange(SEGMENTS)
    biases = (bias[:, None] - starts).reshape(-1).astype(np.float32)
    unclipped = editor.unique_name(f"{node.output[0]}_above")
    clipped = editor.unique_name(f"{node.output[0]}_levels")
    names = (
        editor.add_constant(node.input[1], np.repeat(weight, SEGMENTS, axis=0)),
        editor.add_constant(f"{node.name}/above", biases),
    )
    ends = [editor.add_constant(f"{node.name}/{n}", np.float32(v)) for n, v in (("nothing", 0.0), ("share", width))]
    ones = np.repeat(np.eye(outputs, dtype=np.float32), SEGMENTS, axis=1)[:, :, None, None]
    sum_inputs = [
        editor.add_constant(f"{node.name}/ones", ones),
        editor.add_constant(f"{node.name}/low", np.full(outputs, low, np.float32)),
    ]
    conv = helper.make_node("Conv", [node.input[0], *names], [unclipped], name=node.name, **attributes(node))
    clip = helper.make_node("Clip", [unclipped, *ends], [clipped], name=segment_clip_name(node.name))
    total = helper.make_node("Conv", [clipped, *sum_inputs], node.output, name=f"{node.name}/sum")
    editor.replace([node], [conv, clip, total])
    return editor.model()


def segment_clip_name(conv_name: str) -> str:
    """Name of the Clip that `split_output_range` adds after a Conv."""
    return f"{conv_name}/Clip"
