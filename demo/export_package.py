"""Access to the export package: `export` beside this package in a clone, `sfmttr.export` in a wheel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PACKAGE = "sfmttr.export" if __name__.startswith("sfmttr.") else "export"


def import_export(module: str) -> Any:
    """Import one module of the export package, such as "runtime"; onnx and torch are loaded only when it is used."""
    return import_module(f"{_PACKAGE}.{module}")
