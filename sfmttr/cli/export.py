"""`sfmttr export RUN`: hand over to the export package. It is imported only here, and only when this command runs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import sfmttr
from sfmttr.cli.companions import require

_REQUIRED = ("onnx", "onnxscript", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the command take any arguments: they are those of `python -m export`."""
    parser.set_defaults(command=run, forwarded=[])


def run(options: argparse.Namespace) -> int:
    """Run the export's own command line with the forwarded arguments."""
    package = require_export("`sfmttr export`")
    return int(import_module(f"{package}.__main__").main(options.forwarded, "sfmttr export"))


def require_export(needed_by: str) -> str:
    """Return the name of the export package. Raises `ConfigError` when it or something it needs is not installed."""
    return require("export", _REQUIRED, extra="export", needed_by=needed_by)


def export_in_subprocess(package: str, run_folder: Path) -> int:
    """Run `python -m PACKAGE RUN_FOLDER` and return its exit code.

    Tracing holds memory that `refine` has in use itself, so it gets a process of its own.
    """
    root = str(Path(sfmttr.__file__).resolve().parents[1])  # a clone that is run from another folder
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", package, str(run_folder)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
