"""Locations of what comes with this package: data files, and the packages that are built on top of it.

In a clone of the repository `export/`, `demo/` and `examples/` lie beside `sfmttr/`; in a wheel they lie inside it, as
`sfmttr.export`, `sfmttr.demo` and `sfmttr/examples`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def examples_folder() -> Path:
    """Return the folder with the bundled network and the example clips."""
    installed = _PACKAGE / "examples"
    return installed if installed.is_dir() else _PACKAGE.parent / "examples"


def companion_package(name: str) -> str | None:
    """Return the import name of `export` or `demo`: "sfmttr.export" in a wheel, "export" in a clone; None if absent.

    A folder of that name in the current directory is not mistaken for it.
    """
    if find_spec(f"sfmttr.{name}") is not None:
        return f"sfmttr.{name}"
    return name if (_PACKAGE.parent / name / "__init__.py").is_file() else None
