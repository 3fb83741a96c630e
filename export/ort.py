"""onnxruntime sessions for graphs in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime

Feed = Mapping[str, np.ndarray]
"""Inputs by name, with a batch axis."""


def make_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a CPU session for `model` that logs errors alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def extract_subgraph(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return `model` with the values `names` as its outputs; onnxruntime drops the nodes that they do not need."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result
