"""What an exported file is: names, formats, the metadata inside, and how exact it has to be.

Needs the standard library alone, so that whatever runs or packs an export may read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

SCHEMA = 1
"""Of the metadata and of `export_report.json`."""
METADATA_PREFIX = "sfmttr."
INPUT, OUTPUT = "image", "depth"
_NEIGHBOUR_NAMES = {-1: "previous", 1: "next"}
REPORT = "export_report.json"
KIT = "kit.zip"
CORE_FILE = "depth-core.onnx"

DEFAULT_OPSET = 18
"""The first whose Resize can antialias, and so the one that most runtimes can read."""
OPSETS = range(18, 24)
"""What can be asked for; later ones are not read by the browser's runtime."""
IR_VERSION = 10


def input_names(neighbours: Sequence[int]) -> tuple[str, ...]:
    """Of a graph's inputs: the picture, then the frames beside it that the network sees, relative to it."""
    return (INPUT, *(_NEIGHBOUR_NAMES.get(offset, f"frame{offset:+d}") for offset in neighbours))


class Variant(StrEnum):
    """Number formats of the same network."""

    FP32 = "fp32"
    FP16 = "fp16"
    """Half the size; as fast as the hardware is with half floats (a CPU gains nothing)."""
    INT8 = "int8"
    """Between a quarter and a third of the size, and quicker on a CPU, by how much depends on the network."""


def file_name(variant: Variant) -> str:
    """Of the image graph in this format, within an export folder."""
    return f"depth-{variant}.onnx"


class Graph(StrEnum):
    """What a file takes in and gives out."""

    IMAGE = "image"
    """uint8 (1, H, W, 3) RGB of any size -> float32 (1, H, W) depth at that size. Everything is inside."""
    CORE = "core"
    """float32 (N, 3, h, w) RGB in [0, 1] -> float32 (N, h', w') depth: the network alone, for converters."""


@dataclass(frozen=True)
class Tolerance:
    """What a file may differ from the torch network by before it is refused."""

    max_relative: float
    """|onnx - torch| / torch at any pixel."""
    mean_relative: float
    """The same, mean over the pixels of an image."""
    abs_rel_increase: float
    """Held-out AbsRel over that of fp32 (of torch, for fp32 itself), less 1."""


TOLERANCES: Mapping[Variant, Tolerance] = {
    Variant.FP32: Tolerance(max_relative=1e-4, mean_relative=1e-5, abs_rel_increase=1e-3),
    Variant.FP16: Tolerance(max_relative=0.1, mean_relative=5e-3, abs_rel_increase=0.01),
    # Single pixels at edges may be far off; what counts is the error at points whose depth is known.
    Variant.INT8: Tolerance(max_relative=float("inf"), mean_relative=0.1, abs_rel_increase=0.05),
}


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """A refined network and the clip it was refined on, as all files of an export have it."""

    schema: int
    version: str
    """Of sfmttr."""
    network: str
    network_source: str
    network_licence: str
    """Of the weights that were refined."""
    kind: str
    """"metric" or "scale_invariant"."""
    unit: str
    """Of the output: "metres" or "network units"."""
    scale: float
    """Output = scale x what the network gives. 1 unless a known depth made metres of it."""
    refined: bool
    """False: no step beat the unrefined weights, so these are in the file."""
    preset: str
    weights_sha256: str
    """Over names and values of the weights as refined."""
    clip_sha256: str
    """Over the frames' pixels."""
    clip_frames: int
    frame_hw: tuple[int, int]
    working_hw: tuple[int, int]
    """What any image is resized to inside."""
    held_out_abs_rel_before: float | None
    """At SfM points of the clip that were not trained on; None without any."""
    held_out_abs_rel_after: float | None
    held_out_points: int
    neighbours: tuple[int, ...] = ()
    """Frames that go in beside the picture, relative to it; absent from files of networks that see one alone."""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata(NetworkDescription):
    """Metadata of one file. Stored as text under `METADATA_PREFIX` + the field's name."""

    graph: str
    """A `Graph`."""
    variant: str
    """A `Variant`."""

    @property
    def description(self) -> NetworkDescription:
        """The part that all files of an export share."""
        return NetworkDescription(**{field.name: getattr(self, field.name) for field in fields(NetworkDescription)})

    def to_props(self) -> dict[str, str]:
        """The metadata entries of an ONNX file."""
        given = [field.name for field in fields(self) if field.name != "neighbours" or self.neighbours]
        return {METADATA_PREFIX + name: _text(getattr(self, name)) for name in given}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> ModelMetadata:
        """What `to_props` made, whatever else is among `props`. Raises ValueError when something is missing."""
        present = [
            field for field in fields(cls) if field.name != "neighbours" or f"{METADATA_PREFIX}neighbours" in props
        ]
        try:
            return cls(**{field.name: _value(props[METADATA_PREFIX + field.name], field.type) for field in present})
        except KeyError as error:
            raise ValueError(f"the metadata lack {error.args[0]}: not a file that sfmttr exported") from error


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str, declared: Any) -> Any:
    """`text` as the type that a field declares (annotations are strings in this module)."""
    if declared == "str":
        return text
    if text == "":
        return None
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value
