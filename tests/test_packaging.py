"""The wheel: what it contains, what it depends on, and that it works away from the repository."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGED = ("sfmttr", "export", "demo", "examples")
MAX_BYTES = 25_000_000


def requirements(file: str) -> set[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {normalized(line) for line in lines if line and not line.startswith(("-r", "#"))}


def normalized(requirement: str) -> str:
    return requirement.replace(" ", "").replace('"', "'").lower()


def extra(name: str) -> set[str]:
    """The requirements of an extra, without those that it takes from other extras."""
    listed = PYPROJECT["project"]["optional-dependencies"][name]
    return {normalized(each) for each in listed if not each.startswith("sfmttr[")}


def test_ranges_agree_with_the_requirements_files() -> None:
    base = {normalized(each) for each in PYPROJECT["project"]["dependencies"]}
    assert base | extra("export") | extra("page") == requirements("requirements.txt")
    assert extra("dev") | extra("exr") == requirements("requirements-dev.txt")


def test_every_package_is_listed() -> None:
    found = {"sfmttr.examples"}
    for top, name in (("sfmttr", "sfmttr"), ("export", "sfmttr.export"), ("demo", "sfmttr.demo")):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(ROOT / top).parts)))
    assert sorted(found) == sorted(PYPROJECT["tool"]["setuptools"]["packages"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: `build/` of earlier builds must not leak into it."""
    version = importlib.metadata.version("setuptools") if importlib.util.find_spec("setuptools") else "0"
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 or newer to build without a network connection; here is {version}")
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


def test_wheel_contains_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sfmttr"}, "no other top-level package"
    needed = ("py.typed", "examples/bundled.safetensors", "examples/bundled.md", "examples/street.mp4")
    needed += ("export/kit/static/index.html", "export/kit/static/infer.py", "export/kit/static/LICENSES/MIT.txt")
    needed += ("demo/static/page.css", "examples/room.mp4", "examples/street.depth/000000.png", "export/runtime.py")
    assert {f"sfmttr/{name}" for name in needed} <= names
    unwanted = re.compile(r"(^|/)(tests?|tools|benchmarks|docs|shared|conftest\.py|__pycache__)(/|$)")
    assert not [name for name in names if unwanted.search(name)]
    for top in ("sfmttr", "export", "demo"):
        prefix = "" if top == "sfmttr" else "sfmttr/"
        assert {f"{prefix}{path.relative_to(ROOT)}" for path in (ROOT / top).rglob("*.py")} <= names
    assert wheel.stat().st_size < MAX_BYTES


def test_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "export").mkdir()  # a folder of that name is not taken for the package
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "usage: sfmttr" in run("-m", "sfmttr", "--help")
    assert re.search(r"bundled .* weights found", run("-m", "sfmttr", "networks"))
    assert "usage: sfmttr export" in run("-m", "sfmttr", "export", "--help")
    code = """
import sfmttr.demo.layout, sfmttr.demo.export_package, sfmttr.export.exporter, sfmttr.export.kit.builder
from sfmttr.demo.config import EXAMPLES
from sfmttr.networks import load
assert all(example.clip.is_file() for example in EXAMPLES), EXAMPLES
assert sfmttr.demo.export_package.import_export("exporter") is sfmttr.export.exporter
load("bundled")
print(sfmttr.__file__)
"""
    assert str(tmp_path / "site") in run("-c", code)
