"""Find the first module whose output in the exported graph differs from torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor, nn

from sfmttr.networks.base import DepthNetwork

from . import to_onnx
from .spec import input_names
from .to_onnx import NETWORK

# Rounding stays far below.
_TOLERANCE = 1e-3
"""Largest difference, relative to the output's largest value, that counts as equal."""


@torch.inference_mode()
def locate_mismatch(network: DepthNetwork, image: Tensor, opset: int) -> str:
    """Return a sentence on the first module, in order of completion, whose output in onnxruntime differs from torch.

    `image` is (1, 3 + 3 K, h, w) in [0, 1], with its K source frames. Empty when the comparison itself fails.
    """
    part = network.crop(image)
    with _outputs(network) as exact:
        network(part)
    try:
        model = to_onnx.plain_core_graph(network, (part.shape[2], part.shape[3]), opset)
        found = _run(
            model, list(exact), dict(zip(input_names(network.source_offsets), part.split(3, dim=1), strict=True))
        )
    except Exception:  # noqa: BLE001 - a failing diagnosis must not hide the error that it explains
        return ""
    for name, expected in exact.items():
        if name not in found:
            continue
        if found[name].shape != expected.shape:
            return f"The first module that differs is {name}: its output is {found[name].shape}, not {expected.shape}."
        difference = float(np.abs(found[name] - expected).max() / max(np.abs(expected).max(), 1e-12))
        if difference > _TOLERANCE:
            return (
                f"The first module that differs is {name}: its output is off by {difference:.2%} of its largest value."
            )
    return "Every module gives what it should at this size: the difference is in how they are joined, or in the sizes."


@contextmanager
def _outputs(network: nn.Module) -> Iterator[dict[str, np.ndarray]]:
    """Record the last output of every module, by name, in order of completion."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str, output: object) -> None:
        outputs.pop(name, None)
        if isinstance(output, Tensor):
            outputs[name] = output.detach().cpu().numpy().copy()  # later modules may change it in place

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _run(model: onnx.ModelProto, names: list[str], images: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the outputs of those modules in `names` that still have a node in the graph."""
    last: dict[str, str] = {}
    for node in model.graph.node:
        scope = node.name.split("/")[0].split(".")
        if scope[0] == NETWORK:  # the last node of a module gives its output, and that of the modules around it
            last |= {".".join(scope[1:end]): node.output[0] for end in range(2, len(scope) + 1)}
    wanted = {name: last[name] for name in names if name in last}
    present = {output.name for output in model.graph.output}
    for value in dict.fromkeys(wanted.values()):
        if value not in present:
            model.graph.output.append(onnx.helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: image.numpy() for name, image in images.items()}
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    return {name: values[value] for name, value in wanted.items()}
