"""Graphs in memory, run as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime

Feed = Mapping[str, np.ndarray]
"""What goes in, by the input's name, with an axis for the batch."""


def make_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: what else it says concerns its own choices
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def extract_subgraph(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """`model` that gives the values `names`, and computes no more than these take."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result
