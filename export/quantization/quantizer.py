"""The same graph in 8-bit integers, whose ranges are measured on frames of the clip, for CPUs.

Pictures in and depth out stay in float, and so does the last layer, unless its output can be had in more steps than 8
bits have: over the whole range of depth, those would be steps of half a metre. A first layer of few weights does, too:
rounding the picture takes longer than the layer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from ..ort import Feed, extract_subgraph, make_session
from ..passes import cpu, space_to_depth
from ..passes.graph_editor import GraphEditor
from ..passes.qdq import elu_input_range, elu_output_range, extend_qdq_regions, head_conv_to_matmul
from ..spec import INPUT, OUTPUT
from ..to_onnx import NETWORK, in_network
from .calibration import calibrate, min_max
from .weight_correction import correct_weights, ensure_bias

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_BETWEEN = frozenset({"Relu", "LeakyRelu", "Clip", "Add", "Concat", "Pad", "Resize", "MaxPool", "AveragePool"})
"""What can stay in 8 bits between layers with weights. Attention, norms and the like are left in float: their ranges
are wide, and onnxruntime's 8-bit kernels for them are slower than those for float."""
_FEW_WEIGHTS = 1000
_RANKING_FRAMES = 4
Pictures = Mapping[str, np.ndarray]
"""What goes in for one frame: by the input's name, (H, W, 3) uint8."""
_MARGIN = 0.25
"""Of the last layer's range, added at either end."""


@dataclass(frozen=True)
class LayerError:
    """What quantising one layer alone does to the depth of the calibration frames."""

    layer: str
    mean_log_error: float
    """mean |log(int8 / fp32)|"""
    multiplications: int
    """For one picture."""


class Int8Quantizer:
    """A network whose ranges were measured once, and that can then be quantised with any of its layers kept in float.

    Static quantisation in QDQ form: activations unsigned 8 bit, weights signed 8 bit with a scale for each channel.
    Graphs are those that `for_cpu` and `for_int8` make, whose nodes keep the names of their layers.
    """

    def __init__(self, model: onnx.ModelProto, frames: Sequence[Pictures]) -> None:
        """Measure the range of every activation of `model` (an image graph) over `frames`."""
        self._feeds = [_feed(frame) for frame in frames]
        model = cpu.fold_affine_into_conv(model)
        small_first = {name for name, size in _first(model).items() if size < _FEW_WEIGHTS}
        model = space_to_depth.single_output_conv_to_depthwise_sum(
            space_to_depth.space_to_depth_ends(model, small_first)
        )
        weighted = _weighted(model)
        last = _last(model.graph, weighted)
        in_squares = [name for name in last if space_to_depth.is_space_to_depth_head(model, name)]
        for name in in_squares:
            model = space_to_depth.split_output_range(model, name, *_add_margin(min_max(model, name, self._feeds)))
        at_the_ends = {_layer(name) for name in small_first | (last - set(in_squares))}
        self._nodes: dict[str, list[str]] = {}
        for name in weighted:
            self._nodes.setdefault(_layer(name), []).append(name)
        self.always_float = tuple(layer for layer in self._nodes if layer in at_the_ends)
        """Layers that are never quantised."""
        self.layers = tuple(layer for layer in self._nodes if layer not in at_the_ends)
        """Names of those that can be quantised, in the order in which they are computed."""
        flat = {each.name for each in model.graph.initializer if len(each.dims) == 4}
        convs = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in flat]
        self._convs = [node.name for node in convs]
        self._model = ensure_bias(model, self._convs)
        self._ranges = self._calibrate()

    def _calibrate(self) -> TensorsData:
        editor = GraphEditor(self._model)
        nodes = [node for node in editor if node.op_type in _WEIGHTED | _BETWEEN and in_network(node)]
        values = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
        names = [name for name in values if name not in editor.constants]
        ranges = calibrate(self._model, names, self._feeds)
        for name, data in ranges.items():
            low, high = data.range_value
            maker = editor.producer(name)
            if maker is not None and maker.op_type == "Elu":
                low, high = elu_output_range(high)
            elif {node.op_type for node in editor.consumers(name)} == {"Elu"}:
                low, high = elu_input_range(low, high)
            ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
        return ranges

    def quantized(self, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all `layers` in 8 bits but `float_layers`, and weights that make up for the rounding."""
        chosen = {name for layer in self.layers if layer not in float_layers for name in self._nodes[layer]}
        nodes = [*chosen, *_between(self._model.graph, chosen)]
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
            op_types_to_quantize=list(_WEIGHTED | _BETWEEN),
            extra_options={"ForceQuantizeNoInputCheck": True},
        )
        with _quiet():
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        return _with_short_names(extend_qdq_regions(quantizer.model.model))

    def layer_errors(self) -> tuple[LayerError, ...]:
        """Every layer with what it alone does to the depth of a few of the frames, and what it computes; first those
        that do most for what they compute: keeping them in float costs least time."""
        feeds = self._feeds[:: max(1, len(self._feeds) // _RANKING_FRAMES)]
        session = make_session(self._model)
        exact = [np.log(_run(session, feed)) for feed in feeds]
        work = _multiplications(self._model, [name for names in self._nodes.values() for name in names], feeds[0])
        errors = []
        for layer in self.layers:
            nodes = self._nodes[layer]
            session = make_session(self._quantize_nodes(self._model, [*nodes, *_ended(self._model.graph, nodes)]))
            each = [np.abs(np.log(_run(session, f)) - e).mean() for f, e in zip(feeds, exact, strict=True)]
            errors.append(LayerError(layer, float(np.mean(each)), sum(work[name] for name in nodes)))
        return tuple(sorted(errors, key=lambda error: -error.mean_log_error / error.multiplications))


def _multiplications(model: onnx.ModelProto, nodes: Sequence[str], feed: Feed) -> dict[str, int]:
    """How many each of these nodes with weights takes for one picture."""
    sizes = {initializer.name: math.prod(initializer.dims) for initializer in model.graph.initializer}
    chosen = [node for node in model.graph.node if node.name in nodes]
    names = [node.output[0] for node in chosen]
    outputs = make_session(extract_subgraph(model, names)).run(names, dict(feed))
    channels = [out.shape[1 if "Conv" in node.op_type else -1] for node, out in zip(chosen, outputs, strict=True)]
    return {
        node.name: out.size * sizes[node.input[1]] // count
        for node, out, count in zip(chosen, outputs, channels, strict=True)
    }


def _feed(frame: Pictures) -> dict[str, np.ndarray]:
    return {name: picture[None] for name, picture in frame.items()}


def _run(session: onnxruntime.InferenceSession, feed: Feed) -> np.ndarray:
    return session.run(None, dict(feed))[0]


def _layer(node: str) -> str:
    """`network.encoder.conv1/Conv` -> `encoder.conv1`: the module's name within the network."""
    return node.split("/")[0].removeprefix(f"{NETWORK}.")


def _weighted(model: onnx.ModelProto) -> dict[str, int]:
    """Names of the nodes with weights, in order, and how many weights each has."""
    sizes = {initializer.name: math.prod(initializer.dims) for initializer in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _WEIGHTED and len(node.input) > 1]
    return {node.name: sizes[node.input[1]] for node in nodes if node.input[1] in sizes}


def _first(model: onnx.ModelProto) -> dict[str, int]:
    """The nodes with weights that the picture reaches without passing another, and how many weights each has."""
    weighted = _weighted(model)
    found = _nearest(INPUT, ((node.name, node.input, node.output) for node in model.graph.node), weighted)
    return {name: weighted[name] for name in found}


def _last(graph: onnx.GraphProto, weighted: Collection[str]) -> set[str]:
    """Names of the nodes with weights that reach the depth without passing another."""
    return _nearest(OUTPUT, ((node.name, node.output, node.input) for node in reversed(graph.node)), weighted)


def _add_margin(ends: tuple[float, float]) -> tuple[float, float]:
    """A range that other frames keep to, too."""
    low, high = ends
    return low - _MARGIN * (high - low), high + _MARGIN * (high - low)


def _nearest(
    start: str, nodes: Iterable[tuple[str, Sequence[str], Sequence[str]]], weighted: Collection[str]
) -> set[str]:
    """Names of the `weighted` nodes next to the value `start`. `nodes`: name, values on the near side, on the far."""
    found: set[str] = set()
    reached = {start}
    for name, near, far in nodes:
        if not reached.isdisjoint(near):
            if name in weighted:
                found.add(name)
            else:
                reached.update(far)
    return found


def _between(graph: onnx.GraphProto, layers: Collection[str]) -> list[str]:
    """Names of the nodes without weights that lie right before `layers`, or before another such node.

    Rounding as early as possible makes what follows cheaper (a picture is resized after it was rounded, not before);
    rounding what no such layer will read would be loss without gain.
    """
    wanted: set[str] = set()
    chosen = []
    for node in reversed(graph.node):  # from the last that is computed to the first
        between = node.op_type in _BETWEEN and in_network(node) and not wanted.isdisjoint(node.output)
        if between:
            chosen.append(node.name)
        if between or node.name in layers:
            wanted.update(node.input)
    return list(dict.fromkeys([*chosen, *_ended(graph, layers)]))


def _ended(graph: onnx.GraphProto, layers: Collection[str]) -> list[str]:
    """Names of the nodes that end the range of what `layers` give: as that is rounded, it ends there anyway."""
    given = {name for node in graph.node if node.name in layers for name in node.output}
    reads = [name for node in graph.node for name in node.input]
    relus = {node.name for node in graph.node if node.op_type == "Relu" and reads.count(node.input[0]) == 1}
    clips = {space_to_depth.segment_clip_name(layer) for layer in layers}
    return [node.name for node in graph.node if node.name in relus | clips and node.input[0] in given]


def _with_short_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Numbers for the names that the quantiser makes: in a small network they take a tenth of the file."""
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
def _quiet() -> Iterator[None]:
    """The quantiser logs through the root logger, at length, about what it does not quantise."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
