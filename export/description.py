"""The network of a finished export, read without torch and onnx, which `report` imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfmttr.io.json_files import read_model

from .spec import REPORT, SCHEMA, NetworkDescription


@dataclass(frozen=True)
class _Report:
    """The part of `export_report.json` that is read here."""

    model: NetworkDescription


def read_network_description(folder: Path) -> NetworkDescription:
    """Return the description of the network that was exported to `folder`.

    Raises `RunFolderError` when there is no report, or it is damaged or from a newer version.
    """
    return read_model(folder / REPORT, _Report, newest_schema=SCHEMA, advice="export again").model
