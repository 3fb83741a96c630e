"""Convert a torch network to ONNX, without traces of the machine that it was made on."""

from __future__ import annotations

import ast
import io
import logging
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import sfmttr
from sfmttr.networks.base import DepthNetwork, antialiased_resize, resize_depth
from sfmttr.types import HW

from . import spec
from .errors import ExportError
from .spec import OUTPUT, ModelMetadata

TRACED_IMAGE_HW = (61, 83)
"""Size that the image graph is traced at: odd, not square, and none that parity is checked at."""
TRACED_CORE_BATCH = 2
"""Batch that the core graph is traced at; one would become a constant."""
NETWORK = "network"
"""Nodes of the network itself are named `network.<module>/<operator>`, others `image_in/...` and `depth_out/...`."""
_WEIGHT = ".weight"


class _ImageIn(nn.Module):
    """Preprocess images of any size as `DepthNetwork.prepare` does."""

    def __init__(self, working_hw: HW) -> None:
        super().__init__()
        self.working_hw = working_hw

    def forward(self, image: Tensor) -> Tensor:
        # Dividing after resizing is the same up to rounding, and cheaper.
        return antialiased_resize(image.permute(0, 3, 1, 2).float(), self.working_hw, 255.0) / 255.0


class _DepthOut(nn.Module):
    """Resize the network's output to the image's size, in the unit of the export."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, depth: Tensor, image: Tensor) -> Tensor:
        resized = resize_depth(depth, image.shape[1:3]).squeeze(1)  # type: ignore[arg-type]  # sizes are symbolic
        return resized if self.scale == 1.0 else resized * self.scale


class ImageGraph(nn.Module):
    """Image graph: uint8 (1, H, W, 3) -> float32 (1, H, W), as `TorchPredictor(network, working_hw)`, times `scale`.

    A multi-frame network has one more input of the same size for each source frame.
    """

    def __init__(self, network: DepthNetwork, working_hw: HW, scale: float) -> None:
        super().__init__()
        self.image_in = _ImageIn(working_hw)
        self.network = network
        self.depth_out = _DepthOut(scale)

    def forward(self, image: Tensor, *sources: Tensor) -> Tensor:
        resized = [self.image_in(each) for each in (image, *sources)]
        part = self.network.crop(torch.cat(resized, dim=1) if sources else resized[0])
        return self.depth_out(self.network.pad_to_full(self.network(part), self.image_in.working_hw), image)


class CoreGraph(nn.Module):
    """Core graph: float32 (N, 3, h, w) in [0, 1] -> float32 (N, h', w'): the network, times `scale`.

    Inputs are what `DepthNetwork.crop` leaves of the image, and of each source frame.
    """

    def __init__(self, network: DepthNetwork, scale: float) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, image: Tensor, *sources: Tensor) -> Tensor:
        depth = self.network(torch.cat((image, *sources), dim=1) if sources else image)[:, 0]
        return depth if self.scale == 1.0 else depth * self.scale


def image_graph(network: DepthNetwork, working_hw: HW, scale: float, opset: int) -> onnx.ModelProto:
    """Export `ImageGraph` with dynamic height and width. Raises `ExportError` when torch cannot export the network."""
    example = torch.randint(0, 256, (1, *TRACED_IMAGE_HW, 3), dtype=torch.uint8)
    return _export(ImageGraph(network, working_hw, scale), example, {1: "height", 2: "width"}, opset)


def core_graph(network: DepthNetwork, traced_hw: HW, scale: float, opset: int) -> onnx.ModelProto:
    """Export `CoreGraph` with dynamic batch, height and width. Raises `ExportError` as `image_graph` does."""
    example = torch.rand((TRACED_CORE_BATCH, 3, *traced_hw))
    return _export(CoreGraph(network, scale), example, {0: "batch", 2: "height", 3: "width"}, opset)


def plain_core_graph(network: DepthNetwork, hw: HW, opset: int) -> onnx.ModelProto:
    """Export `CoreGraph` at the static size `hw`, without optimization, so that each module keeps its own nodes."""
    return _export(CoreGraph(network, 1.0), torch.rand((1, 3, *hw)), {}, opset, optimize=False)


def with_metadata(model: onnx.ModelProto, metadata: ModelMetadata) -> onnx.ModelProto:
    """Return `model` with `metadata` as its only metadata, and with descriptions of its inputs and output."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    onnx.helper.set_model_props(result, metadata.to_props())
    result.producer_name, result.producer_version = "sfmttr", sfmttr.__version__
    result.doc_string = (
        f"Depth of one place: {metadata.network}, refined on a clip. Weights: {metadata.network_licence}."
    )
    (image, *sources), (depth,) = result.graph.input, result.graph.output
    core = metadata.graph == spec.Graph.CORE
    image.doc_string = "RGB in [0, 1], NCHW" if core else "one picture of any size, RGB"
    for source, offset in zip(sources, metadata.neighbours, strict=True):
        source.doc_string = f"as image, of the frame {offset:+d} from it; without one, the image again"
    depth.doc_string = f"camera z in {metadata.unit}"
    return result


def in_network(node: onnx.NodeProto) -> bool:
    """Return whether a node of an image graph belongs to the network, not to pre- or postprocessing."""
    return node.name.split("/")[0].split(".")[0] == NETWORK


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write one self-contained file. Raises `ExportError` when the graph is not valid ONNX."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} would not be valid ONNX: {str(error).strip().splitlines()[0]}") from error
    onnx.save(model, path)


# ----------------------------------------------------------------------------------------- export


def _export(
    module: ImageGraph | CoreGraph, example: Tensor, dynamic: dict[int, str], opset: int, *, optimize: bool = True
) -> onnx.ModelProto:
    """Export `module`. All its inputs have the shape of `example`; `dynamic` names the dynamic axes."""
    if opset not in spec.OPSETS:
        raise ExportError(f"opset {opset} is not supported; choose {spec.OPSETS[0]} to {spec.OPSETS[-1]}")
    module.eval()
    offsets = module.network.source_offsets
    sizes: dict[str, Any] = {"image": dynamic} | ({"sources": (dynamic,) * len(offsets)} if offsets else {})
    try:
        with _quiet(), torch.no_grad(), module.network.dynamic_shape_tracing():
            program = torch.onnx.export(
                module,
                # Separate tensors: the same one given twice would become a single input.
                tuple(example.clone() for _ in range(1 + len(offsets))),
                dynamo=True,
                verbose=False,
                input_names=list(spec.input_names(offsets)),
                output_names=[OUTPUT],
                dynamic_shapes=sizes,
                opset_version=opset,
                optimize=optimize,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {_name(module)}: {_cause(error)}") from error
    assert program is not None
    model = program.model_proto
    model.ir_version = spec.IR_VERSION
    _check_dynamic_axes(model, example, dynamic)
    return _strip_metadata(model)


def _name(module: ImageGraph | CoreGraph) -> str:
    return module.network.info.name


def _cause(error: BaseException) -> str:
    """Return the message of the root cause: which sizes became constants, else its beginning."""
    while error.__cause__ is not None:
        error = error.__cause__
    fixed = re.findall(r"inferred a static shape of (\d+) for dimension \S*shape\[(\d)\]", str(error))
    if fixed:
        sizes = ", ".join(f"axis {axis} of its input at {size}" for size, axis in fixed)
        return f"a size became a constant, which fixes {sizes}"
    return textwrap.shorten(str(error) or type(error).__name__, 300)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence logs, warnings and stderr of the exporter and of torch."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints graphs when it fails
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_dynamic_axes(model: onnx.ModelProto, example: Tensor, dynamic: dict[int, str]) -> None:
    """Raise `ExportError` when a dynamic axis became a constant."""
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    fixed = [name for axis, name in dynamic.items() if any(dims[axis].HasField("dim_value") for dims in shapes)]
    if fixed:
        raise ExportError(f"the network fixes {' and '.join(fixed)} at {tuple(example.shape)}")


# --------------------------------------------------------------------------------------- clean-up


def _strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name nodes after their modules, and drop the exporter's annotations: stack traces and paths."""
    _name_nodes(model.graph)
    graph = model.graph
    graph.name = "depth"
    for item in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        _clear_annotations(item)
    del graph.value_info[:]
    return model


def _clear_annotations(item: Any) -> None:
    del item.metadata_props[:]
    item.doc_string = ""


def _name_nodes(graph: onnx.GraphProto) -> None:
    taken: Counter[str] = Counter()
    for node in graph.node:
        name = f"{_scope(node)}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _scope(node: onnx.NodeProto) -> str:
    """Return the module of the node's weight, else the innermost module that it was traced in; "" if there is none."""
    # The exporter assigns a Conv that it fused with a norm to the norm; the weight's name is right.
    weight = next((name for name in node.input if name.endswith(_WEIGHT)), None)
    if weight is not None:
        return weight.removesuffix(_WEIGHT)
    annotations = {prop.key: prop.value for prop in node.metadata_props}
    try:
        *modules, _ = ast.literal_eval(annotations["pkg.torch.onnx.name_scopes"])
    except (KeyError, ValueError, SyntaxError):
        return ""
    return str(modules[-1]) if modules and not modules[-1].startswith("_") else ""
