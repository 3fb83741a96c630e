"""Where tests find what is not in the repository, and the reason they skip with when it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[3] / "shared"
# Read once: tests set the variable to folders of their own.
_WEIGHTS = Path(os.environ.get("SFMTTR_WEIGHTS", _SHARED / "weights"))


def data_root() -> Path:
    return Path(os.environ.get("SFMTTR_DATA", _SHARED / "data"))


def weights_root() -> Path:
    return _WEIGHTS


def parity_root() -> Path:
    return Path(os.environ.get("SFMTTR_PARITY", _SHARED / "parity"))


def existing(path: Path) -> Path:
    """`path`, or skip the test and say what is missing."""
    if not path.exists():
        pytest.skip(f"needs {path}, which is not here (SFMTTR_DATA, SFMTTR_WEIGHTS, SFMTTR_PARITY say where to look)")
    return path
