"""A graph in the middle of being rewritten: its nodes in order, its constants, who makes a value and who reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


class GraphEditor:
    """A copy of a model, whose nodes can be exchanged for others. Constants that nothing reads any more are dropped."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self.constants = {each.name: each for each in self._model.graph.initializer}
        self._nodes = list(self._model.graph.node)
        self._ends = {value.name for value in self._model.graph.output}
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
        """The nodes as they are now; they may be exchanged meanwhile."""
        return iter(tuple(self._nodes))

    def producer(self, name: str) -> NodeProto | None:
        """The node whose output is called `name`; None for what goes in, and for constants."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[NodeProto]:
        """The nodes that take `name`, once for every time that they do."""
        return self._consumers.get(name, [])

    def sole_consumer(self, node: NodeProto) -> NodeProto | None:
        """The one node that reads what `node` gives; None where there are others, or it comes out of the graph."""
        (output, *more) = node.output
        readers = self.consumers(output)
        return readers[0] if len(readers) == 1 and not more and output not in self._ends else None

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant of that name; None for anything else."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def add_constant(self, name: str, value: np.ndarray | np.generic) -> str:
        """A new constant, whose name is `name` or like it."""
        name = self.unique_name(name)
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def unique_name(self, name: str) -> str:
        """`name`, or that with a number where it is taken; taken from now on."""
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free

    def replace(self, old: Iterable[NodeProto], new: Iterable[NodeProto]) -> None:
        """Put nodes `new` where the last of `old` was. Values that `old` made and others read have to be among theirs.

        Raises `ValueError` when they are not.
        """
        gone = {id(node) for node in old}
        new = tuple(new)
        last = max(i for i, node in enumerate(self._nodes) if id(node) in gone)
        before = [node for node in self._nodes[: last + 1] if id(node) not in gone]
        self._nodes = [*before, *new, *self._nodes[last + 1 :]]
        self._index()
        known = {*self._producers, *self.constants, *(value.name for value in self._model.graph.input)}
        missing = (set(self._consumers) | self._ends) - known
        if missing:
            raise ValueError(f"nothing gives {', '.join(sorted(missing))} any more")

    def model(self) -> onnx.ModelProto:
        """What became of it."""
        graph = self._model.graph
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [each for name, each in self.constants.items() if name in self._consumers]
        kept = [onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self._model


def attributes(node: NodeProto) -> dict[str, Any]:
    """By name; texts are bytes."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
