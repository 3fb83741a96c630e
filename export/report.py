"""What an export found, as values, as `export_report.json`, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import sfmttr
from sfmttr.evaluation.metrics import DepthMetrics

from . import spec
from .latency import Latency
from .parity import ParityCase
from .spec import ModelMetadata, Tolerance, Variant


@dataclass(frozen=True)
class Attempt:
    """One try at int8."""

    float_layers: tuple[str, ...]
    """Layers that were kept in float, beside those at the two ends that always are."""
    abs_rel_change: float | None


@dataclass(frozen=True)
class FileReport:
    """One file, and how it compares with the torch network."""

    file: str
    sha256: str
    bytes: int
    share_of_fp32_bytes: float
    parity: tuple[ParityCase, ...]
    held_out: DepthMetrics | None = None
    """None without held-out points, and for a core graph, which is not judged at them."""
    abs_rel_change: float | None = None
    """Held-out AbsRel over that of fp32 (of torch, for fp32 itself), less 1."""
    float_layers: tuple[str, ...] = ()
    """Layers of an int8 file that are in float."""
    attempts: tuple[Attempt, ...] = ()
    """At int8, the last of which is in the file."""

    @property
    def max_relative(self) -> float:
        return max(case.max_relative for case in self.parity)

    @property
    def mean_relative(self) -> float:
        """Of the picture where it is largest."""
        return max(case.mean_relative for case in self.parity)


@dataclass(frozen=True)
class HeldOutReport:
    """The torch network at the points that all variants are judged at."""

    protocol: str
    unit: str
    points: int
    torch: DepthMetrics


@dataclass(frozen=True)
class ExportReport:
    """Everything that an export found; the files lie in `folder`."""

    folder: Path
    metadata: ModelMetadata
    """Of the fp32 file."""
    opset: int
    provider: str
    """What onnxruntime really ran on."""
    held_out: HeldOutReport | None
    variants: Mapping[Variant, FileReport]
    core: FileReport | None
    latency: Mapping[str, Latency]
    """By what the pictures are: "frame", as large as the clip's; "working", as large as the network's input."""
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        model = {name: value for name, value in asdict(self.metadata).items() if name not in ("graph", "variant")}
        return {
            "schema": spec.SCHEMA,
            "sfmttr": sfmttr.__version__,
            "opset": self.opset,
            "versions": self.versions,
            "model": model,
            "tolerances": {str(variant): _tolerance(spec.TOLERANCES[variant]) for variant in self.variants},
            "provider": self.provider,
            "held_out": self.held_out,
            "variants": self.variants,
            "core": self.core,
            "latency": self.latency,
        }


def _tolerance(tolerance: Tolerance) -> dict[str, float | None]:
    return {name: None if value == float("inf") else value for name, value in asdict(tolerance).items()}


# ------------------------------------------------------------------------------------------ table


def print_report(report: ExportReport) -> None:
    """A row a file, below the torch network's own."""
    console = Console()
    table = Table(title=f"{report.metadata.network}, on {report.provider}", title_justify="left", box=None)
    table.add_column("")
    for title in ("MB", "of fp32", "largest\ndiff.", "mean\ndiff.", "AbsRel", "change", *_latency_titles(report)):
        table.add_column(title, justify="right")
    torch_error = "-" if report.held_out is None else f"{report.held_out.torch.abs_rel:.4f}"
    for name in ("torch", "torch_channels_last"):
        if all(name in latency.median_ms for latency in report.latency.values()):
            table.add_row(name.replace("_", " "), "", "", "", "", torch_error, "", *_latency_cells(report, name))
    for variant, file in report.variants.items():
        table.add_row(str(variant), *_file_cells(file), *_latency_cells(report, variant))
    if report.core is not None:
        table.add_row("core", *_file_cells(report.core), *("" for _ in report.latency))
    console.print(table)
    if report.held_out is not None:
        console.print(f"AbsRel: {report.held_out.protocol}", highlight=False)
    int8 = report.variants.get(Variant.INT8)
    if int8 is not None:
        console.print(f"In float in int8: {', '.join(int8.float_layers)}", highlight=False)
    console.print(f"Written to {escape(str(report.folder))}", highlight=False, soft_wrap=True)


def _latency_titles(report: ExportReport) -> list[str]:
    return [f"ms at\n{latency.hw[0]}x{latency.hw[1]}" for latency in report.latency.values()]


def _latency_cells(report: ExportReport, name: str) -> list[str]:
    return [f"{latency.median_ms[name]:.1f}" for latency in report.latency.values()]


def _file_cells(file: FileReport) -> list[str]:
    error = "" if file.held_out is None else f"{file.held_out.abs_rel:.4f}"
    change = "" if file.abs_rel_change is None else f"{file.abs_rel_change:+.2%}"
    differences = [f"{file.max_relative:.1e}", f"{file.mean_relative:.1e}"]
    return [f"{file.bytes / 1e6:.2f}", f"{file.share_of_fp32_bytes:.0%}", *differences, error, change]
