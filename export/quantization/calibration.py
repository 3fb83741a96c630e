"""Calibration: ranges of activations with the least mean squared quantization error on frames of the clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from ..ort import Feed, extract_subgraph, make_session
from ..passes.graph_editor import GraphEditor, attributes

STEPS = 255
"""Steps between the ends of a uint8 range."""
# All values at once may not fit into memory.
_VALUES_PER_RUN = 64
_SAMPLES = 32768
"""Numbers per value and frame."""
_BINS = 2048
_CANDIDATES = 64
_ROUNDS = 3


def calibrate(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> TensorsData:
    """Return the range of each of the values `names` over `feeds`.

    The error of a value that only one activation function reads is measured after that function, so that no steps are
    spent where the function is flat.
    """
    samples = _samples(model, names, feeds)
    functions = _consuming_functions(model, names)
    ranges = {}
    for name, values in samples.items():
        low, high = mse_optimal_range(values, functions.get(name, _identity))
        ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    return TensorsData(CalibrationMethod.MinMax, ranges)


def min_max(model: onnx.ModelProto, node: str, feeds: Sequence[Feed]) -> tuple[float, float]:
    """Return the smallest and the largest output of the node called `node` over `feeds`."""
    (name,) = next(each.output for each in model.graph.node if each.name == node)
    values = _samples(model, [name], feeds)[name]
    return float(values.min()), float(values.max())


def _identity(x: np.ndarray) -> np.ndarray:
    return x


def elu(x: np.ndarray) -> np.ndarray:
    """Return x where it is positive, and exp(x) - 1 elsewhere."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


_FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "Elu": elu,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -50, 50))),
    "Tanh": np.tanh,
}


def mse_optimal_range(
    values: np.ndarray, function: Callable[[np.ndarray], np.ndarray] = _identity
) -> tuple[float, float]:
    """Return the range (low <= 0 <= high) in which uint8 rounding has the least mean squared error.

    The error is that of `function(values)`. A histogram stands for the values; the two ends are searched in turns.
    """
    smallest, largest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if smallest == largest:
        return smallest, largest
    counts, edges = np.histogram(values, _BINS, (smallest, largest))
    centers = (edges[:-1] + edges[1:]) / 2
    centers, counts = centers[counts > 0], counts[counts > 0]
    exact = function(centers)

    def error(low: float, high: float) -> float:
        step = (high - low) / STEPS
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(centers / step) + zero, 0, STEPS) - zero) * step
        return float(counts @ (function(rounded) - exact) ** 2)

    low, high = smallest, largest
    shares = np.linspace(1, 0, _CANDIDATES, endpoint=False)
    for _ in range(_ROUNDS):
        if largest > 0:
            high = min((largest * share for share in shares), key=lambda end: error(low, end))
        if smallest < 0:
            low = min((smallest * share for share in shares), key=lambda end: error(end, high))
    return low, high


def _samples(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Return samples of each value: evenly spaced ones from each frame, and the smallest and largest."""
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(names), _VALUES_PER_RUN):
        some = names[start : start + _VALUES_PER_RUN]
        session = make_session(extract_subgraph(model, some))
        for feed in feeds:
            for name, value in zip(some, session.run(list(some), feed), strict=True):
                flat = value.reshape(-1)
                if flat.dtype == np.float32:
                    flat = flat[np.isfinite(flat)]  # masks of attention have -inf
                if flat.dtype != np.float32 or not flat.size:
                    continue
                chosen = flat[np.linspace(0, flat.size - 1, min(flat.size, _SAMPLES)).astype(int)]
                found.setdefault(name, []).append(np.append(chosen, [flat.min(), flat.max()]))
    return {name: np.concatenate(each) for name, each in found.items()}


def _consuming_functions(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return, for each value that is read by one kind of activation function alone, that function."""
    editor = GraphEditor(model)
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for name in names:
        op_types = {(node.op_type, float(attributes(node).get("alpha", 1.0))) for node in editor.consumers(name)}
        if len(op_types) == 1:
            ((op_type, alpha),) = op_types
            if op_type == "LeakyRelu":
                found[name] = partial(_leaky_relu, alpha)
            elif op_type in _FUNCTIONS:
                found[name] = _FUNCTIONS[op_type]
    return found


def _leaky_relu(alpha: float, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, alpha * x)
