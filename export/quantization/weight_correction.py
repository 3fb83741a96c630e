"""Weight correction: refit weights and biases to compensate, on frames of the clip, for quantization error.

The inputs of a layer in a quantized graph are shifted and noisier than those it was trained on, most so in channels of
small values. The weights and bias that reproduce the exact output from these inputs with the least squared error have a
closed form. Layers are corrected in order of computation, as in Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction" (ICCV 2019, section 4.2), which corrects the bias alone.
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
"""Passes over the network; in one with more layers, several are fitted at a time."""
_FRAMES = 8
_POSITIONS = 4096
"""Sampled pixels of a layer's output per frame."""
# Of a layer with more inputs, or with too few samples for its inputs, only the bias is corrected.
_MAX_INPUTS = 2048
"""Inputs of one output channel: input channels times kernel size."""
_SAMPLES_PER_INPUT = 4
_RIDGE = 1e-5
"""Regularization, relative to the inputs' mean square: keeps the weights of inputs that hardly vary."""


def ensure_bias(model: onnx.ModelProto, convs: Sequence[str]) -> onnx.ModelProto:
    """Return `model` with a bias, and with weights that no other node shares, for each Conv named in `convs`."""
    editor = GraphEditor(model)
    for node in editor:
        if node.name not in convs:
            continue
        weight = editor.constant(node.input[1])
        assert weight is not None
        bias = editor.constant(node.input[2]) if len(node.input) > 2 else np.zeros(weight.shape[0], np.float32)
        if bias is None:
            continue
        conv = NodeProto()
        conv.CopyFrom(node)
        del conv.input[1:]
        conv.input.append(_unshared(editor, node.input[1], weight))
        conv.input.append(_unshared(editor, node.input[2] if len(node.input) > 2 else f"{node.name}/bias", bias))
        editor.replace([node], [conv])
    return editor.model()


def _unshared(editor: GraphEditor, name: str, value: np.ndarray) -> str:
    return name if len(editor.consumers(name)) == 1 else editor.add_constant(name, value)


def correct_weights(
    model: onnx.ModelProto,
    convs: Sequence[str],
    quantize: Callable[[onnx.ModelProto], onnx.ModelProto],
    feeds: Sequence[Feed],
) -> onnx.ModelProto:
    """Return `model` with corrected weights: `quantize` of it matches `model` over `feeds` as closely as possible.

    `convs` are names of Convs that `ensure_bias` prepared, in order of computation: later ones compensate for the error
    of earlier ones.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    feeds = feeds[:: math.ceil(len(feeds) / _FRAMES)]
    rng = np.random.default_rng(0)
    per_pass = max(1, math.ceil(len(convs) / _PASSES))
    for start in range(0, len(convs), per_pass):
        some = convs[start : start + per_pass]
        quantized_model = quantize(result)
        fits = _fits(model, quantized_model, some)
        exact = make_session(extract_subgraph(model, [fit.exact.output[0] for fit in fits]))
        quantized = make_session(extract_subgraph(quantized_model, [fit.value for fit in fits]))
        for feed in feeds:
            outputs = exact.run([fit.exact.output[0] for fit in fits], dict(feed))
            values = quantized.run([fit.value for fit in fits], dict(feed))
            for fit, output, value in zip(fits, outputs, values, strict=True):
                fit.add(output[0], value[0], rng)
        for fit in fits:
            fit.solve(result)
    return result


def _fits(model: onnx.ModelProto, quantized: onnx.ModelProto, convs: Sequence[str]) -> list[_Fit]:
    exact = {node.name: node for node in model.graph.node}
    quantized_nodes = {node.name: node for node in quantized.graph.node}
    constants = {each.name for each in quantized.graph.initializer}
    editor = GraphEditor(model)
    fits = []
    for name in convs:
        weight = editor.constant(exact[name].input[1])
        assert weight is not None
        fits_weight = conv_weight(editor, exact[name]) is not None and math.prod(weight.shape[1:]) <= _MAX_INPUTS
        is_quantized = quantized_nodes[name].input[1] not in constants
        kernel = (weight.shape[-2], weight.shape[-1])
        fits.append(_Fit(exact[name], quantized_nodes[name], fits_weight, is_quantized, kernel))
    return fits


@dataclass
class _Fit:
    """Samples of one Conv in the exact and in the quantized graph, and the fit to them."""

    exact: NodeProto
    quantized: NodeProto
    fits_weight: bool
    """Fit weights and bias, from the quantized graph's inputs; else the bias alone, from its outputs."""
    is_quantized: bool
    """The weights are in int8 in the quantized graph."""
    kernel: tuple[int, int]
    samples: list[np.ndarray] = field(default_factory=list)
    """Per frame, (I, M) inputs at M positions of the output; (O, M) outputs if not `fits_weight`."""
    targets: list[np.ndarray] = field(default_factory=list)
    """Per frame, (O, M) outputs of the exact graph."""

    @property
    def value(self) -> str:
        """Name of the value of the quantized graph that is sampled."""
        return str(self.quantized.input[0] if self.fits_weight else self.quantized.output[0])

    def add(self, output: np.ndarray, value: np.ndarray, rng: np.random.Generator) -> None:
        """Sample one frame: the exact output (O, h, w), and `value` of the quantized graph."""
        _, height, width = output.shape
        chosen = rng.choice(height * width, min(_POSITIONS, height * width), replace=False)
        self.targets.append(output.reshape(len(output), -1)[:, chosen])
        if self.fits_weight:
            rows, columns = chosen // width, chosen % width
            self.samples.append(_patches(value, rows, columns, attributes(self.exact), self.kernel))
        else:
            self.samples.append(value.reshape(len(value), -1)[:, chosen])

    def solve(self, model: onnx.ModelProto) -> None:
        """Write the fitted weights and bias into `model`."""
        constants = {each.name: each for each in model.graph.initializer}
        weight, bias = (numpy_helper.to_array(constants[name]) for name in self.exact.input[1:3])
        x, y = np.concatenate(self.samples, 1), np.concatenate(self.targets, 1)
        if self.fits_weight:
            flat, bias = least_squares(weight.reshape(len(weight), -1), x, y)
            if self.is_quantized:
                bias = bias + (flat - _round_int8(flat)) @ x.mean(1)
            weight = flat.reshape(weight.shape)
        else:
            bias = bias + (y - x).mean(1)
        for name, best in zip(self.exact.input[1:3], (weight, bias), strict=True):
            constants[name].CopyFrom(numpy_helper.from_array(best.astype(np.float32), name))


def least_squares(weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights (O, I) and bias (O,) that map `x` (I, M) to `y` (O, M), regularized towards `weight`.

    With few samples M for the number of inputs I, `weight` is returned unchanged.
    """
    inputs, samples = x.shape
    center = x.mean(1, keepdims=True)
    residual = y - weight @ x
    shift = residual.mean(1, keepdims=True)
    if samples >= _SAMPLES_PER_INPUT * inputs:
        centered = x - center
        covariance = (centered @ centered.T).astype(np.float64)
        covariance[np.diag_indices(inputs)] += _RIDGE * np.trace(covariance) / inputs + np.finfo(np.float32).tiny
        change = np.linalg.solve(covariance, centered @ (residual - shift).T).T
        weight, shift = weight + change, shift - change @ center
    return weight, shift[:, 0]


def _round_int8(weight: np.ndarray) -> np.ndarray:
    """Round weights (O, I) to int8 with one symmetric scale per output channel."""
    step = np.maximum(np.abs(weight).max(1, keepdims=True), np.finfo(np.float32).tiny) / 127
    return np.round(weight / step) * step


def _patches(
    value: np.ndarray, rows: np.ndarray, columns: np.ndarray, given: Mapping[str, Any], kernel: tuple[int, int]
) -> np.ndarray:
    """Return the inputs (C h w, M) that a Conv with attributes `given` reads of (C, H, W) for M output positions."""
    height, width = kernel
    top, left, bottom, right = given.get("pads", [0] * 4)
    down, across = given.get("strides", [1, 1])
    padded = np.pad(value, ((0, 0), (top, bottom), (left, right)))
    taps = [padded[:, rows * down + y, columns * across + x] for y in range(height) for x in range(width)]
    return np.stack(taps, 1).reshape(len(value) * height * width, -1)
