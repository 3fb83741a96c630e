"""What the README promises is what happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(name: str) -> str:
    """The code between two marks of the README."""
    block = re.search(rf"<!-- {name}:begin -->\n```\w+\n(.*?)```\n<!-- {name}:end -->", README, re.DOTALL)
    assert block, f"the README has no block {name}"
    return block.group(1)


def test_example_is_short() -> None:
    lines = [line for line in between("example").splitlines() if line.strip()]
    assert len(lines) <= 12


@pytest.mark.slow
def test_python_example_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = os.environ | {"SFMTTR_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", between("example")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "frames" in result.stdout
    assert (tmp_path / "run" / "report.json").is_file()
