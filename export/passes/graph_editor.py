"""Edit an ONNX graph: nodes in order, constants, and who produces and consumes a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


class GraphEditor:
    """A copy of a model whose nodes can be replaced. Constants that nothing reads any more are dropped."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self.constants = {each.name: each for each in self._model.graph.initializer}
        self._nodes = list(self._model.graph.node)
        self._graph_outputs = {value.name for value in self._model.graph.output}
        self._names = {name for node in self._nodes for name in (node.name, *node.input, *node.output)}
        self._names |= set(self.constants)
        self._index()

    def _index(self) -> None:
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self._nodes:
            for name in filter(None, node.input):
                self._consumers.setdefault(name, []).append(node)

    def __iter__(self) -> Iterator[NodeProto]:
        """Iterate over the nodes as they are now; they may be replaced meanwhile."""
        return iter(tuple(self._nodes))

    def producer(self, name: str) -> NodeProto | None:
        """Return the node with output `name`; None for graph inputs and constants."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read `name`, once per use."""
        return self._consumers.get(name, [])

    def sole_consumer(self, node: NodeProto) -> NodeProto | None:
        """Return the only node that reads the output of `node`; None if there are others or it is a graph output."""
        (output, *more) = node.output
        consumers = self.consumers(output)
        return consumers[0] if len(consumers) == 1 and not more and output not in self._graph_outputs else None

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of the constant `name`; None for any other value."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def add_constant(self, name: str, value: np.ndarray | np.generic) -> str:
        """Add a constant and return its name: `name`, with a number appended where that is taken."""
        name = self.unique_name(name)
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def unique_name(self, name: str) -> str:
        """Reserve and return `name`, with a number appended where that is taken."""
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free

    def replace(self, old: Iterable[NodeProto], new: Iterable[NodeProto]) -> None:
        """Replace the nodes `old` by `new`, at the position of the last of `old`.

        Raises `ValueError` when a value is then read that nothing produces.
        """
        removed = {id(node) for node in old}
        new = tuple(new)
        last = max(i for i, node in enumerate(self._nodes) if id(node) in removed)
        before = [node for node in self._nodes[: last + 1] if id(node) not in removed]
        self._nodes = [*before, *new, *self._nodes[last + 1 :]]
        self._index()
        known = {*self._producers, *self.constants, *(value.name for value in self._model.graph.input)}
        missing = (set(self._consumers) | self._graph_outputs) - known
        if missing:
            raise ValueError(f"no node produces {', '.join(sorted(missing))} any more")

    def model(self) -> onnx.ModelProto:
        """Return the edited model."""
        graph = self._model.graph
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [each for name, each in self.constants.items() if name in self._consumers]
        kept = [onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self._model


class NodeBuilder:
    """A list of new nodes, each with a unique name below `name` and one output."""

    def __init__(self, editor: GraphEditor, name: str) -> None:
        self._editor, self._name = editor, name
        self.nodes: list[NodeProto] = []

    def add(self, op_type: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output, which is `output` if that is given."""
        name = self._editor.unique_name(f"{self._name}/{op_type}")
        output = output or self._editor.unique_name(f"{name}_output")
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def add_qdq(self, op_type: str, value: str, scale: float, zero_point: int, output: str = "") -> str:
        """Append a QuantizeLinear or DequantizeLinear to uint8 with one scale and zero point."""
        names = [
            self._editor.add_constant(f"{self._name}/scale", np.float32(scale)),
            self._editor.add_constant(f"{self._name}/zero", np.uint8(zero_point)),
        ]
        return self.add(op_type, [value, *names], output)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of `node` by name; strings are bytes."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
