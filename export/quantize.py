"""The same graph in 8-bit integers, whose ranges are measured on frames of the clip.

Pictures in and depth out stay in float, and so does the last layer: 8 bits over the whole range of depth would be
steps of half a metre.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
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

from export.spec import INPUT
from export.to_onnx import NETWORK, in_network

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_BETWEEN = frozenset({"Relu", "LeakyRelu", "Clip", "Add", "Concat", "Pad", "Resize", "MaxPool", "AveragePool"})
"""What can stay in 8 bits between layers with weights. Attention, norms and the like are left in float: their ranges
are wide, and onnxruntime's 8-bit kernels for them are slower than those for float."""


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

    def __init__(self, model: onnx.ModelProto, frames: Sequence[np.ndarray]) -> None:
        """Measure the range of every activation of `model` (an image graph) over `frames`, (H, W, 3) uint8 each."""
        self._model, self._frames = model, frames
        weights = {initializer.name for initializer in model.graph.initializer}
        weighted = [node for node in model.graph.node if _has_weights(node, weights)]
        self.last_layers = tuple(_layer(node) for node in weighted if node.name in _last(model, weighted))
        self.layers = tuple(_layer(node) for node in weighted if _layer(node) not in self.last_layers)
        """Names of those that can be quantised, in the order in which they are computed."""
        self._nodes = {_layer(node): node.name for node in weighted}
        self._ranges = self._calibrate()

    def _calibrate(self):  # type: ignore[no-untyped-def]
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
            return calibrator.compute_data()

    def quantised(self, float_layers: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all `layers` in 8 bits but `float_layers`."""
        chosen = {self._nodes[layer] for layer in self.layers if layer not in float_layers}
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
        return quantizer.model.model

    def layer_errors(self) -> tuple[LayerError, ...]:
        """Every layer with what it alone does to the depth, the worst first."""
        session = session_of(self._model)
        exact = [np.log(_run(session, frame)) for frame in self._frames]
        errors = []
        for layer in self.layers:
            session = session_of(self._quantise([self._nodes[layer]]))
            each = [np.abs(np.log(_run(session, f)) - e).mean() for f, e in zip(self._frames, exact, strict=True)]
            errors.append(LayerError(layer, float(np.mean(each))))
        return tuple(sorted(errors, key=lambda error: -error.mean_log_error))


class _Frames(CalibrationDataReader):
    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self._left = iter(frames)

    def get_next(self) -> dict[str, np.ndarray] | None:
        frame = next(self._left, None)
        return None if frame is None else {INPUT: frame[None]}


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, frame: np.ndarray) -> np.ndarray:
    return session.run(None, {INPUT: frame[None]})[0]


def _layer(node: onnx.NodeProto) -> str:
    """`network.encoder.conv1/Conv` -> `encoder.conv1`: the module's name within the network."""
    return node.name.split("/")[0].removeprefix(f"{NETWORK}.")


def _has_weights(node: onnx.NodeProto, weights: Collection[str]) -> bool:
    return node.op_type in _WEIGHTED and len(node.input) > 1 and node.input[1] in weights


def _last(model: onnx.ModelProto, weighted: Sequence[onnx.NodeProto]) -> set[str]:
    """Names of the nodes with weights from which the output is reached without passing another."""
    stops = {node.name for node in weighted}
    maker = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    todo, seen = [output.name for output in model.graph.output], set()
    while todo:
        value = todo.pop()
        node = maker.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.name in stops:
            found.add(node.name)
        else:
            todo.extend(node.input)
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
