"""Static int8 quantization of an image graph, calibrated on frames of the clip, for CPUs.

Input and output stay in float, and so does the last layer unless its output can be split into segments: 8 bits over the
whole range of depth would be steps of half a meter. A first layer of few weights stays in float, too: quantizing the
image takes longer than the layer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from ..ort import Feed, make_session
from ..passes.fold_affine import fold_affine_into_conv
from ..passes.graph_editor import GraphEditor
from ..passes.output_range import split_output_range
from ..passes.qdq import elu_input_range, elu_output_range, extend_qdq_regions
from ..passes.single_output_conv import head_conv_to_matmul, single_output_conv_to_depthwise_sum
from ..passes.space_to_depth import is_space_to_depth_head, space_to_depth_ends
from ..to_onnx import in_network
from .calibration import calibrate, min_max
from .layers import (
    QUANTIZABLE_BETWEEN,
    WEIGHTED,
    first_layers,
    last_layers,
    layer_of,
    multiplications,
    nodes_before,
    range_ends,
    weighted_nodes,
)
from .weight_correction import correct_weights, ensure_bias

_SMALL_LAYER = 1000
"""Weights below which a first layer stays in float."""
_RANKING_FRAMES = 4
_MARGIN = 0.25
"""Share of the last layer's range that is added at either end."""
Images = Mapping[str, np.ndarray]
"""Inputs for one frame: (H, W, 3) uint8 by input name."""


@dataclass(frozen=True)
class LayerError:
    """Effect of quantizing one layer alone on the depth of calibration frames."""

    layer: str
    mean_log_error: float
    """mean |log(int8 / fp32)|"""
    multiplications: int
    """For one image."""


class Int8Quantizer:
    """A calibrated network that can be quantized with any of its layers kept in float.

    QDQ form: activations uint8, weights int8 with one scale per output channel. The graph is what the int8 passes of
    the package `passes` make of the model; its nodes keep the names of their layers.
    """

    def __init__(self, model: onnx.ModelProto, frames: Sequence[Images]) -> None:
        """Calibrate the range of every activation of `model` (an image graph) on `frames`."""
        self._feeds = [_feed(frame) for frame in frames]
        model = fold_affine_into_conv(model)
        small_first = {name for name, size in first_layers(model).items() if size < _SMALL_LAYER}
        model = single_output_conv_to_depthwise_sum(space_to_depth_ends(model, small_first))
        weighted = weighted_nodes(model)
        last = last_layers(model.graph, weighted)
        split = [name for name in last if is_space_to_depth_head(model, name)]
        for name in split:
            model = split_output_range(model, name, *_add_margin(min_max(model, name, self._feeds)))
        at_the_ends = {layer_of(name) for name in small_first | (last - set(split))}
        self._nodes: dict[str, list[str]] = {}
        for name in weighted:
            self._nodes.setdefault(layer_of(name), []).append(name)
        self.always_float = tuple(layer for layer in self._nodes if layer in at_the_ends)
        """Names of the layers that are never quantized."""
        self.layers = tuple(layer for layer in self._nodes if layer not in at_the_ends)
        """Names of the layers that can be quantized, in order of computation."""
        kernels = {each.name for each in model.graph.initializer if len(each.dims) == 4}
        convs = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in kernels]
        self._convs = [node.name for node in convs]
        self._model = ensure_bias(model, self._convs)
        self._ranges = self._calibrate()

    def _calibrate(self) -> TensorsData:
        editor = GraphEditor(self._model)
        nodes = [node for node in editor if node.op_type in WEIGHTED | QUANTIZABLE_BETWEEN and in_network(node)]
        values = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
        names = [name for name in values if name not in editor.constants]
        ranges = calibrate(self._model, names, self._feeds)
        for name, data in ranges.items():
            low, high = data.range_value
            producer = editor.producer(name)
            if producer is not None and producer.op_type == "Elu":
                low, high = elu_output_range(high)
            elif {node.op_type for node in editor.consumers(name)} == {"Elu"}:
                low, high = elu_input_range(low, high)
            ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
        return ranges

    def quantized(self, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """Return the graph with all `layers` but `float_layers` in int8, and weights corrected for the rounding."""
        chosen = {name for layer in self.layers if layer not in float_layers for name in self._nodes[layer]}
        nodes = [*chosen, *nodes_before(self._model.graph, chosen)]
        model = correct_weights(self._model, self._convs, lambda model: self._quantize_nodes(model, nodes), self._feeds)
        return head_conv_to_matmul(self._quantize_nodes(model, nodes))

    def _quantize_nodes(self, model: onnx.ModelProto, nodes: list[str]) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list(WEIGHTED | QUANTIZABLE_BETWEEN),
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        with _quiet_root_logger():
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        return _shorten_names(extend_qdq_regions(quantizer.model.model))

    def layer_errors(self) -> tuple[LayerError, ...]:
        """Return the error that each layer causes when it alone is quantized, largest error per multiplication first.

        Keeping the first ones in float gains the most accuracy for the least time.
        """
        feeds = self._feeds[:: max(1, len(self._feeds) // _RANKING_FRAMES)]
        session = make_session(self._model)
        exact = [np.log(_run(session, feed)) for feed in feeds]
        work = multiplications(self._model, [name for names in self._nodes.values() for name in names], feeds[0])
        errors = []
        for layer in self.layers:
            nodes = self._nodes[layer]
            session = make_session(self._quantize_nodes(self._model, [*nodes, *range_ends(self._model.graph, nodes)]))
            each = [np.abs(np.log(_run(session, f)) - e).mean() for f, e in zip(feeds, exact, strict=True)]
            errors.append(LayerError(layer, float(np.mean(each)), sum(work[name] for name in nodes)))
        return tuple(sorted(errors, key=lambda error: -error.mean_log_error / error.multiplications))


def _feed(frame: Images) -> dict[str, np.ndarray]:
    return {name: image[None] for name, image in frame.items()}


def _run(session: onnxruntime.InferenceSession, feed: Feed) -> np.ndarray:
    return session.run(None, dict(feed))[0]


def _add_margin(ends: tuple[float, float]) -> tuple[float, float]:
    """Widen a range so that other frames are likely to stay within it."""
    low, high = ends
    return low - _MARGIN * (high - low), high + _MARGIN * (high - low)


def _shorten_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Number the names that the quantizer makes: in a small network they take a tenth of the file."""
    short: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
            for name in (*node.input[1:], *node.output):
                short.setdefault(name, f"q{len(short)}")
            if node.input[0].endswith("_quantized"):
                short.setdefault(node.input[0], f"q{len(short)}")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = short.get(name, name)
    for initializer in model.graph.initializer:
        initializer.name = short.get(initializer.name, initializer.name)
    del model.graph.value_info[:]
    return model


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Silence the root logger, to which onnxruntime's quantizer writes at length about what it does not quantize."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
