"""Results of an export: as values, as `export_report.json`, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.io.json_files import read_model

from . import spec
from .errors import ExportError
from .latency import Latency
from .parity import ParityCase
from .spec import NetworkDescription, Tolerance, Variant


@dataclass(frozen=True)
class Attempt:
    """One attempt at int8."""

    float_layers: tuple[str, ...]
    """Layers kept in float, in addition to those at the two ends that always are."""
    abs_rel_change: float | None


@dataclass(frozen=True)
class FileReport:
    """One file and its comparison with the torch network."""

    file: str
    sha256: str
    bytes: int
    share_of_fp32_bytes: float
    parity: tuple[ParityCase, ...]
    held_out: DepthMetrics | None = None
    """None without held-out points, and for a core graph."""
    abs_rel_change: float | None = None
    """Held-out AbsRel over that of fp32 (of torch, for fp32 itself), less 1."""
    float_layers: tuple[str, ...] = ()
    """Layers of an int8 file that are in float."""
    attempts: tuple[Attempt, ...] = ()
    """Attempts at int8; the file holds the last."""

    @property
    def max_relative(self) -> float:
        return max(case.max_relative for case in self.parity)

    @property
    def mean_relative(self) -> float:
        """Largest mean relative difference of all images."""
        return max(case.mean_relative for case in self.parity)


@dataclass(frozen=True)
class HeldOutReport:
    """Errors of the torch network at the held-out points."""

    protocol: str
    unit: str
    points: int
    torch: DepthMetrics


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Everything that an export found."""

    schema: int = spec.SCHEMA
    sfmttr: str
    """Version of this package."""
    opset: int
    versions: Mapping[str, str]
    """Versions of the libraries that the files were made with."""
    model: NetworkDescription
    tolerances: Mapping[Variant, Tolerance]
    """Limits that the variants were checked against."""
    provider: str
    """Execution provider that onnxruntime really ran on."""
    held_out: HeldOutReport | None
    variants: Mapping[Variant, FileReport]
    core: FileReport | None
    latency: Mapping[str, Latency]
    """By image size: "frame", the size of the clip's frames; "working", the size of the network's input."""


def read_export_report(folder: Path) -> ExportReport:
    """Return the report of the export in `folder`.

    Raises `RunFolderError` when there is none, or it is from a newer version, `ExportError` when it is damaged.
    """
    advice = "export again"
    return read_model(
        folder / spec.REPORT, ExportReport, newest_schema=spec.SCHEMA, advice=advice, error_type=ExportError
    )


# ------------------------------------------------------------------------------------------ table


def print_report(report: ExportReport, folder: Path) -> None:
    """Print one row a file, below those of the torch network. `folder` holds the files."""
    console = Console()
    table = Table(title=f"{report.model.network}, on {report.provider}", title_justify="left", box=None)
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
        console.print(f"Layers in float in the int8 file: {', '.join(int8.float_layers)}", highlight=False)
    console.print(f"Written to {escape(str(folder))}", highlight=False, soft_wrap=True)


def _latency_titles(report: ExportReport) -> list[str]:
    return [f"ms at\n{latency.hw[0]}x{latency.hw[1]}" for latency in report.latency.values()]


def _latency_cells(report: ExportReport, name: str) -> list[str]:
    return [f"{latency.median_ms[name]:.1f}" for latency in report.latency.values()]


def _file_cells(file: FileReport) -> list[str]:
    error = "" if file.held_out is None else f"{file.held_out.abs_rel:.4f}"
    change = "" if file.abs_rel_change is None else f"{file.abs_rel_change:+.2%}"
    differences = [f"{file.max_relative:.1e}", f"{file.mean_relative:.1e}"]
    return [f"{file.bytes / 1e6:.2f}", f"{file.share_of_fp32_bytes:.0%}", *differences, error, change]
