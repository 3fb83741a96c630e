"""Weights that make up, on frames of a clip, for what the layers before them lost by rounding.

What comes into a layer of a quantised graph is not what it was trained on: shifted, noisier, most so in channels that
are small. The weights and the bias that give its exact output from that input with the least squares are known in
closed form. Layer after layer, as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019, section 4.2), which corrects the bias alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from ..ort import Feed, extract_subgraph, make_session
from ..passes.graph_editor import GraphEditor, attributes
from ..passes.patterns import conv_weight

_PASSES = 32
"""Layers of larger networks are fitted several at a time."""
_FRAMES = 8
_PLACES = 4096
"""Of a layer's output, from each of so many frames."""
_MOST_INPUTS = 2048
"""Of one output channel. A layer with more, or with few places for what it has, gets another bias alone."""
_PLACES_FOR_AN_INPUT = 4
_RIDGE = 1e-5
"""Of the inputs' mean square: keeps weights of what hardly ever varies as they are."""


def ensure_bias(model: onnx.ModelProto, convs: Sequence[str]) -> onnx.ModelProto:
    """`model` with weights and a bias of its own for each of the convolutions `convs` (names of nodes)."""
    editor = GraphEditor(model)
    for node in editor:
        if node.name not in convs:
            continue
        weight = editor.constant(node.input[1])
        assert weight is not None
        bias = editor.constant(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[0], np.float32)
        if bias is None:
            continue
        other = NodeProto()
        other.CopyFrom(node)
        del other.input[1:]
        other.input.append(_own(editor, node.input[1], weight))
        other.input.append(_own(editor, node.input[2] if len(node.input) > 2 else f"{node.name}/bias", bias))
        editor.replace([node], [other])
    return editor.model()


def _own(editor: GraphEditor, name: str, value: np.ndarray) -> str:
    return name if len(editor.consumers(name)) == 1 else editor.add_constant(name, value)


def correct_weights(
    model: onnx.ModelProto,
    convs: Sequence[str],
    quantize: Callable[[onnx.ModelProto], onnx.ModelProto],
    feeds: Sequence[Feed],
) -> onnx.ModelProto:
    """`model` whose `convs`, in `quantize` of it, come as near as they can to what they give in `model` over `feeds`.

    `convs` are names of convolutions with weights and a bias of their own, in the order in which they are computed:
    those later make up for those earlier.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    feeds = feeds[:: math.ceil(len(feeds) / _FRAMES)]
    places = np.random.default_rng(0)
    at_a_time = max(1, math.ceil(len(convs) / _PASSES))
    for start in range(0, len(convs), at_a_time):
        some = convs[start : start + at_a_time]
        rounded = quantize(result)
        fits = _fits(model, rounded, some)
        exact = make_session(extract_subgraph(model, [fit.exact.output[0] for fit in fits]))
        other = make_session(extract_subgraph(rounded, [fit.value for fit in fits]))
        for feed in feeds:
            outputs = exact.run([fit.exact.output[0] for fit in fits], dict(feed))
            values = other.run([fit.value for fit in fits], dict(feed))
            for fit, output, value in zip(fits, outputs, values, strict=True):
                fit.add(output[0], value[0], places)
        for fit in fits:
            fit.solve(result)
    return result


def _fits(model: onnx.ModelProto, rounded: onnx.ModelProto, convs: Sequence[str]) -> list[_Fit]:
    exact = {node.name: node for node in model.graph.node}
    others = {node.name: node for node in rounded.graph.node}
    constants = {each.name for each in rounded.graph.initializer}
    editor = GraphEditor(model)
    fits = []
    for name in convs:
        weight = editor.constant(exact[name].input[1])
        assert weight is not None
        whole = conv_weight(editor, exact[name]) is not None and math.prod(weight.shape[1:]) <= _MOST_INPUTS
        rounds = others[name].input[1] not in constants
        fits.append(_Fit(exact[name], others[name], whole, rounds, (weight.shape[-2], weight.shape[-1])))
    return fits


@dataclass
class _Fit:
    """One convolution, in the exact graph and in the other, and what is known of it."""

    exact: NodeProto
    other: NodeProto
    whole: bool
    """Its weights are fitted, too: what is read out of the other graph is its input, not its output."""
    rounds: bool
    """Its weights are rounded in the other graph."""
    kernel: tuple[int, int]
    given: list[np.ndarray] = field(default_factory=list)
    """(I, M) of each frame, of inputs around M places of the output; (O, M) of outputs where `whole` is not."""
    wanted: list[np.ndarray] = field(default_factory=list)
    """(O, M) of each frame: outputs of the exact graph there."""

    @property
    def value(self) -> str:
        return str(self.other.input[0] if self.whole else self.other.output[0])

    def add(self, output: np.ndarray, value: np.ndarray, places: np.random.Generator) -> None:
        """One frame: the exact output (O, h, w), and `value` of the other graph."""
        _, height, width = output.shape
        chosen = places.choice(height * width, min(_PLACES, height * width), replace=False)
        self.wanted.append(output.reshape(len(output), -1)[:, chosen])
        if self.whole:
            rows, columns = chosen // width, chosen % width
            self.given.append(_around(value, rows, columns, attributes(self.exact), self.kernel))
        else:
            self.given.append(value.reshape(len(value), -1)[:, chosen])

    def solve(self, model: onnx.ModelProto) -> None:
        """Put the best weights and bias into `model`."""
        constants = {each.name: each for each in model.graph.initializer}
        weight, bias = (numpy_helper.to_array(constants[name]) for name in self.exact.input[1:3])
        x, y = np.concatenate(self.given, 1), np.concatenate(self.wanted, 1)
        if self.whole:
            flat, bias = least_squares(weight.reshape(len(weight), -1), x, y)
            if self.rounds:
                bias = bias + (flat - _rounded(flat)) @ x.mean(1)
            weight = flat.reshape(weight.shape)
        else:
            bias = bias + (y - x).mean(1)
        for name, best in zip(self.exact.input[1:3], (weight, bias), strict=True):
            constants[name].CopyFrom(numpy_helper.from_array(best.astype(np.float32), name))


def least_squares(weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (O, I) and bias (O,) that make `y` (O, M) of `x` (I, M); near `weight` where `x` says nothing.

    With few samples M for the number of inputs I, `weight` stays as it is.
    """
    inputs, samples = x.shape
    centre = x.mean(1, keepdims=True)
    left = y - weight @ x
    shift = left.mean(1, keepdims=True)
    if samples >= _PLACES_FOR_AN_INPUT * inputs:
        around = x - centre
        squares = (around @ around.T).astype(np.float64)
        squares[np.diag_indices(inputs)] += _RIDGE * np.trace(squares) / inputs + np.finfo(np.float32).tiny
        change = np.linalg.solve(squares, around @ (left - shift).T).T
        weight, shift = weight + change, shift - change @ centre
    return weight, shift[:, 0]


def _rounded(weight: np.ndarray) -> np.ndarray:
    """(O, I) in 127 steps of each output channel's largest weight."""
    step = np.maximum(np.abs(weight).max(1, keepdims=True), np.finfo(np.float32).tiny) / 127
    return np.round(weight / step) * step


def _around(
    value: np.ndarray, rows: np.ndarray, columns: np.ndarray, given: Mapping[str, Any], kernel: tuple[int, int]
) -> np.ndarray:
    """(C h w, M): what a convolution with attributes `given` takes of (C, H, W) for outputs at `rows` and `columns`."""
    height, width = kernel
    top, left, bottom, right = given.get("pads", [0] * 4)
    down, across = given.get("strides", [1, 1])
    padded = np.pad(value, ((0, 0), (top, bottom), (left, right)))
    taps = [padded[:, rows * down + y, columns * across + x] for y in range(height) for x in range(width)]
    return np.stack(taps, 1).reshape(len(value) * height * width, -1)
