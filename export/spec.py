"""Specification of exported files: names, formats, metadata, and tolerances.

Imports the standard library only, so that it can be read without torch and onnxruntime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

SCHEMA = 1
"""Schema version of the metadata and of `export_report.json`."""
METADATA_PREFIX = "sfmttr."
INPUT, OUTPUT = "image", "depth"
_NEIGHBOUR_NAMES = {-1: "previous", 1: "next"}
REPORT = "export_report.json"
KIT = "kit.zip"
CORE_FILE = "depth-core.onnx"

DEFAULT_OPSET = 18
"""The first opset whose Resize supports antialiasing; most runtimes read it."""
OPSETS = range(18, 24)
"""Supported opsets; onnxruntime-web does not read later ones."""
IR_VERSION = 10


def input_names(neighbours: Sequence[int]) -> tuple[str, ...]:
    """Return the names of a graph's inputs: the image, then its source frames, given by their offsets from it."""
    return (INPUT, *(_NEIGHBOUR_NAMES.get(offset, f"frame{offset:+d}") for offset in neighbours))


class Variant(StrEnum):
    """Number formats of the same network."""

    FP32 = "fp32"
    FP16 = "fp16"
    """Half the size; faster only on hardware with fp16 arithmetic, which most CPUs lack."""
    INT8 = "int8"
    """A quarter to a third of the size, and faster on a CPU; how much depends on the network."""


def file_name(variant: Variant) -> str:
    """Return the file name of the image graph in this format."""
    return f"depth-{variant}.onnx"


class Graph(StrEnum):
    """Inputs and outputs of a file."""

    IMAGE = "image"
    """uint8 (1, H, W, 3) RGB of any size -> float32 (1, H, W) depth at that size, pre- and postprocessing included."""
    CORE = "core"
    """float32 (N, 3, h, w) RGB in [0, 1] -> float32 (N, h', w') depth: the network alone, for converters."""


@dataclass(frozen=True)
class Tolerance:
    """Largest difference from the torch network before a file is refused."""

    max_relative: float
    """|onnx - torch| / torch at any pixel."""
    mean_relative: float
    """Mean of |onnx - torch| / torch over the pixels of an image."""
    abs_rel_increase: float
    """Held-out AbsRel over that of fp32 (of torch, for fp32 itself), less 1."""


TOLERANCES: Mapping[Variant, Tolerance] = {
    Variant.FP32: Tolerance(max_relative=1e-4, mean_relative=1e-5, abs_rel_increase=1e-3),
    Variant.FP16: Tolerance(max_relative=0.1, mean_relative=5e-3, abs_rel_increase=0.01),
    # Single pixels at edges may be far off; the error at held-out points decides.
    Variant.INT8: Tolerance(max_relative=float("inf"), mean_relative=0.1, abs_rel_increase=0.05),
}


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """A refined network and the clip it was refined on, as all files of an export have it."""

    schema: int
    version: str
    """Version of sfmttr."""
    network: str
    network_source: str
    network_licence: str
    """License of the weights that were refined."""
    kind: str
    """"metric" or "scale_invariant"."""
    unit: str
    """Unit of the output: "metres" or "network units"."""
    scale: float
    """Output = scale x prediction of the network; 1 unless a known distance converts it to meters."""
    refined: bool
    """False: no step beat the unrefined weights, which the file therefore holds."""
    preset: str
    weights_sha256: str
    """Hash of names and values of the refined weights."""
    clip_sha256: str
    """Hash of the frames' pixels."""
    clip_frames: int
    frame_hw: tuple[int, int]
    working_hw: tuple[int, int]
    """Size that every image is resized to inside the graph."""
    held_out_abs_rel_before: float | None
    """AbsRel at SfM points held out from training; None without any."""
    held_out_abs_rel_after: float | None
    held_out_points: int
    neighbours: tuple[int, ...] = ()
    """Offsets of the source frames from the image; absent from files of single-frame networks."""


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
        """Return the metadata entries of an ONNX file."""
        given = [field.name for field in fields(self) if field.name != "neighbours" or self.neighbours]
        return {METADATA_PREFIX + name: _text(getattr(self, name)) for name in given}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> ModelMetadata:
        """Read what `to_props` wrote; other entries are ignored. Raises ValueError when one is missing."""
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
    """Parse `text` as the declared type of a field (annotations are strings in this module)."""
    if declared == "str":
        return text
    if text == "":
        return None
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else value
