"""Replace Elu by operators that onnxruntime vectorizes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .graph_editor import GraphEditor, attributes


def decompose_elu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite `Elu(x)` to `Max(x, Exp(Clip(x, max=0)) - 1)`.

    Pattern: Elu with alpha 1.
    Rewritten to: Clip, Exp, Sub, Max. Below zero, exp(x) - 1 is the larger of the two; above zero, it is 0 and x is.
    Why: onnxruntime has no vectorized CPU kernel for Elu, but has one for each of the four.
    Measured alone: 0.99 (bundled, which has no Elu) and 1.09 (RT-MonoDepth-S) times as fast.
    """
    editor = GraphEditor(model)
    for node in editor:
        if node.op_type != "Elu" or attributes(node).get("alpha", 1.0) != 1.0:
            continue
        (x,), (y,) = node.input, node.output
        zero, one = (editor.add_constant(f"{node.name}/{n}", np.float32(n == "one")) for n in ("zero", "one"))
        clipped, exponential, difference = (editor.unique_name(f"{y}_{what}") for what in ("below", "exp", "less"))
        editor.replace(
            [node],
            [
                helper.make_node("Clip", [x, "", zero], [clipped], name=f"{node.name}/Clip"),
                helper.make_node("Exp", [clipped], [exponential], name=f"{node.name}/Exp"),
                helper.make_node("Sub", [exponential, one], [difference], name=f"{node.name}/Sub"),
                helper.make_node("Max", [x, difference], [y], name=node.name),
            ],
        )
    return editor.model()
