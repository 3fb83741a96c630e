"""The same graph in 8-bit integers, whose ranges are measured on frames of the clip, for CPUs.

Pictures in and depth out stay in float, and so does the last layer: 8 bits over the whole range of depth would be
steps of half a metre. A first layer of few weights does, too: rounding the picture takes longer than the layer.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from export.for_cpu import quick_on_cpu
from export.spec import INPUT, OUTPUT
from export.to_onnx import NETWORK, in_network

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_BETWEEN = frozenset({"Relu", "LeakyRelu", "Clip", "Add", "Concat", "Pad", "Resize", "MaxPool", "AveragePool"})
"""What can stay in 8 bits between layers with weights. Attention, norms and the like are left in float: their ranges
are wide, and onnxruntime's 8-bit kernels for them are slower than those for float."""
_FEW_WEIGHTS = 1000
_RANKING_FRAMES = 4
Pictures = Mapping[str, np.ndarray]
"""What goes in for one frame: by the input's name, (H, W, 3) uint8."""
_ELU_IS_FLAT = -5.0


@dataclass(frozen=True)
class LayerError:
    """What quantising one layer alone does to the depth of the calibration frames."""

    layer: str
    mean_log_error: float
    """mean |log(int8 / fp32)|"""


class Int8Quantizer:
    """A network whose ranges were measured once, and that can then be quantised with any of its layers kept in float.

    Static quantisation in QDQ form: activations unsigned 8 bit, weights signed 8 bit with a scale for each channel.
    """

    def __init__(self, model: onnx.ModelProto, frames: Sequence[Pictures]) -> None:
        """Measure the range of every activation of `model` (an image graph) over `frames`."""
        self._model, self._frames = quick_on_cpu(model), frames
        graph = self._model.graph
        sizes = {initializer.name: math.prod(initializer.dims) for initializer in graph.initializer}
        weighted = {node.name: node for node in graph.node if _has_weights(node, sizes)}
        small_first = {name for name in _first(graph, weighted) if sizes[weighted[name].input[1]] < _FEW_WEIGHTS}
        at_the_ends = {_layer(weighted[name]) for name in small_first | _last(graph, weighted)}
        self._nodes: dict[str, list[str]] = {}
        for node in weighted.values():
            self._nodes.setdefault(_layer(node), []).append(node.name)
        self.always_float = tuple(layer for layer in self._nodes if layer in at_the_ends)
        """Layers that are never quantised."""
        self.layers = tuple(layer for layer in self._nodes if layer not in at_the_ends)
        """Names of those that can be quantised, in the order in which they are computed."""
        self._ranges = self._calibrate()

    def _calibrate(self) -> TensorsData:
        with tempfile.TemporaryDirectory(prefix="sfmttr-int8-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self._model, path)
            calibrator = create_calibrator(
                path,
                list(_WEIGHTED | _BETWEEN),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Frames(self._frames))
            return _without_saturated(calibrator.compute_data(), self._model.graph)

    def quantised(self, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all `layers` in 8 bits but `float_layers`."""
        chosen = {name for layer in self.layers if layer not in float_layers for name in self._nodes[layer]}
        return self._quantise([*chosen, *_between(self._model.graph, chosen)])

    def _quantise(self, nodes: list[str]) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
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
        return _with_short_names(quantizer.model.model)

    def layer_errors(self) -> tuple[LayerError, ...]:
        """Every layer with what it alone does to the depth of a few of the frames, the worst first."""
        frames = self._frames[:: max(1, len(self._frames) // _RANKING_FRAMES)]
        session = session_of(self._model)
        exact = [np.log(_run(session, frame)) for frame in frames]
        errors = []
        for layer in self.layers:
            session = session_of(self._quantise(self._nodes[layer]))
            each = [np.abs(np.log(_run(session, f)) - e).mean() for f, e in zip(frames, exact, strict=True)]
            errors.append(LayerError(layer, float(np.mean(each))))
        return tuple(sorted(errors, key=lambda error: -error.mean_log_error))


class _Frames(CalibrationDataReader):
    def __init__(self, frames: Sequence[Pictures]) -> None:
        self._left = iter(frames)

    def get_next(self) -> dict[str, np.ndarray] | None:
        frame = next(self._left, None)
        return None if frame is None else _feed(frame)


def _feed(frame: Pictures) -> dict[str, np.ndarray]:
    return {name: picture[None] for name, picture in frame.items()}


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, frame: Pictures) -> np.ndarray:
    return session.run(None, _feed(frame))[0]


def _layer(node: onnx.NodeProto) -> str:
    """`network.encoder.conv1/Conv` -> `encoder.conv1`: the module's name within the network."""
    return node.name.split("/")[0].removeprefix(f"{NETWORK}.")


def _has_weights(node: onnx.NodeProto, weights: Collection[str]) -> bool:
    return node.op_type in _WEIGHTED and len(node.input) > 1 and node.input[1] in weights


def _first(graph: onnx.GraphProto, weighted: Collection[str]) -> set[str]:
    """Names of the nodes with weights that the picture reaches without passing another."""
    return _nearest(INPUT, ((node.name, node.input, node.output) for node in graph.node), weighted)


def _last(graph: onnx.GraphProto, weighted: Collection[str]) -> set[str]:
    """Names of the nodes with weights that reach the depth without passing another."""
    return _nearest(OUTPUT, ((node.name, node.output, node.input) for node in reversed(graph.node)), weighted)


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
    return chosen


def _without_saturated(ranges: TensorsData, graph: onnx.GraphProto) -> TensorsData:
    """`ranges` that end where an ELU, which alone reads them, is flat: no steps are spent on what it makes -1 of."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    kept = {}
    for name, data in ranges.items():
        lowest, highest = data.range_value
        if readers.get(name) == {"Elu"}:
            lowest = np.maximum(lowest, np.float32(_ELU_IS_FLAT))
        kept[name] = TensorData(lowest=lowest, highest=highest)
    return TensorsData(CalibrationMethod.MinMax, kept)


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
