"""Where an export that is not faithful parts from the network: the first module whose output differs."""

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

_DIFFERS = 1e-3
"""Of an output's largest value. Rounding stays far below."""


@torch.inference_mode()
def locate_mismatch(network: DepthNetwork, image: Tensor, opset: int) -> str:
    """One sentence on the first module, in the order in which they end, whose output in onnxruntime is not torch's.

    `image` is (1, 3 + 3 K, h, w) in [0, 1], with its K neighbours. Empty when nothing can be said.
    """
    part = network.crop(image)
    with _outputs(network) as exact:
        network(part)
    try:
        model = to_onnx.plain_core_graph(network, (part.shape[2], part.shape[3]), opset)
        got = _run(
            model, list(exact), dict(zip(input_names(network.source_offsets), part.split(3, dim=1), strict=True))
        )
    except Exception:  # noqa: BLE001 - a diagnosis that fails must not hide what it is about
        return ""
    for name, expected in exact.items():
        if name not in got:
            continue
        if got[name].shape != expected.shape:
            return f"The first module that differs is {name}: its output is {got[name].shape}, not {expected.shape}."
        apart = float(np.abs(got[name] - expected).max() / max(np.abs(expected).max(), 1e-12))
        if apart > _DIFFERS:
            return f"The first module that differs is {name}: its output is off by {apart:.2%} of its largest value."
    return "Every module gives what it should at this size: the difference is in how they are joined, or in the sizes."


@contextmanager
def _outputs(network: nn.Module) -> Iterator[dict[str, np.ndarray]]:
    """What every module gave the last time it was called, by name, in the order in which they ended."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str, output: object) -> None:
        outputs.pop(name, None)
        if isinstance(output, Tensor):
            outputs[name] = output.detach().cpu().numpy().copy()  # what follows may change it in place

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


def _run(model: onnx.ModelProto, names: list[str], pictures: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The outputs of those modules that the graph still has a node of."""
    last: dict[str, str] = {}
    for node in model.graph.node:
        scope = node.name.split("/")[0].split(".")
        if scope[0] == NETWORK:  # a node ends the module that it is in, and so far all modules around that
            last |= {".".join(scope[1:end]): node.output[0] for end in range(2, len(scope) + 1)}
    wanted = {name: last[name] for name in names if name in last}
    present = {output.name for output in model.graph.output}
    for value in dict.fromkeys(wanted.values()):
        if value not in present:
            model.graph.output.append(onnx.helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: picture.numpy() for name, picture in pictures.items()}
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    return {name: values[value] for name, value in wanted.items()}
