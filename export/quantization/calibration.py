"""Ranges of activations for 8 bits: those that lose least on frames of a clip, not the widest."""

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
_AT_A_TIME = 64
"""Values that are read out in one go: all of them at once may not fit into memory."""
_SAMPLES = 32768
"""Of each value, from each frame."""
_BINS = 2048
_CANDIDATES = 64
_ROUNDS = 3


def calibrate(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> TensorsData:
    """The range of each of the values `names` over `feeds`.

    What an activation function alone reads counts as that makes it: no steps are spent on where it is flat.
    """
    samples = _samples(model, names, feeds)
    functions = _read_through(model, names)
    ranges = {}
    for name, values in samples.items():
        low, high = mse_optimal_range(values, functions.get(name, _as_is))
        ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    return TensorsData(CalibrationMethod.MinMax, ranges)


def min_max(model: onnx.ModelProto, node: str, feeds: Sequence[Feed]) -> tuple[float, float]:
    """The smallest and the largest number that the node of this name gives over `feeds`."""
    (name,) = next(each.output for each in model.graph.node if each.name == node)
    values = _samples(model, [name], feeds)[name]
    return float(values.min()), float(values.max())


def _as_is(x: np.ndarray) -> np.ndarray:
    return x


def elu(x: np.ndarray) -> np.ndarray:
    """x where it is positive, exp(x) - 1 elsewhere."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


_FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "Elu": elu,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -50, 50))),
    "Tanh": np.tanh,
}


def mse_optimal_range(values: np.ndarray, function: Callable[[np.ndarray], np.ndarray] = _as_is) -> tuple[float, float]:
    """Ends (low <= 0 <= high) between which 256 steps give `function` of `values` with the least mean square error."""
    smallest, largest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if smallest == largest:
        return smallest, largest
    counts, edges = np.histogram(values, _BINS, (smallest, largest))
    centres = (edges[:-1] + edges[1:]) / 2
    centres, counts = centres[counts > 0], counts[counts > 0]
    exact = function(centres)

    def error(low: float, high: float) -> float:
        step = (high - low) / STEPS
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(centres / step) + zero, 0, STEPS) - zero) * step
        return float(counts @ (function(rounded) - exact) ** 2)

    low, high = smallest, largest
    shares = np.linspace(1, 0, _CANDIDATES, endpoint=False)
    for _ in range(_ROUNDS):  # one end after the other
        if largest > 0:
            high = min((largest * share for share in shares), key=lambda end: error(low, end))
        if smallest < 0:
            low = min((smallest * share for share in shares), key=lambda end: error(end, high))
    return low, high


def _samples(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Numbers of each value, evenly from all that it has in each frame, and the smallest and largest."""
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(names), _AT_A_TIME):
        some = names[start : start + _AT_A_TIME]
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


def _read_through(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The function that is all that a value is read for, where there is one."""
    editor = GraphEditor(model)
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for name in names:
        kinds = {(node.op_type, float(attributes(node).get("alpha", 1.0))) for node in editor.consumers(name)}
        if len(kinds) == 1:
            ((kind, alpha),) = kinds
            if kind == "LeakyRelu":
                found[name] = partial(_leaky_relu, alpha)
            elif kind in _FUNCTIONS:
                found[name] = _FUNCTIONS[kind]
    return found


def _leaky_relu(alpha: float, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, alpha * x)
