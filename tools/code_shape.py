"""Print the length of files and functions, by package: median, 90th percentile and maximum.

    python -m tools.code_shape [FOLDER ...]

Lines of a file are all its lines; lines of a function are those from `def` to its last statement.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("sfmttr", "export", "demo", "tools", "benchmarks", "tests")


def packages(folder: Path) -> Iterator[Path]:
    """Yield `folder` and the packages directly below it that hold Python files."""
    yield folder
    yield from (path for path in sorted(folder.iterdir()) if path.is_dir() and any(path.rglob("*.py")))


def function_lengths(source: str) -> list[int]:
    """Return the lines of every function and method, nested ones included."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]


def summary(lengths: Iterable[int]) -> str:
    """Return "median / 90th percentile / maximum"."""
    values = np.array(list(lengths) or [0])
    median, p90 = np.percentile(values, (50, 90), method="closest_observation")
    return f"{median:>5} /{p90:>5} /{values.max():>5}"


def main() -> None:
    """Print one row per package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="(default: all of this repository)")
    folders: list[Path] = parser.parse_args().folders or [ROOT / name for name in FOLDERS]
    print(f"{'package':<24}{'files':>6}{'lines':>8}   {'file: median/p90/max':<22}{'function: median/p90/max':<26}")
    for folder in folders:
        for package in packages(folder):
            sources = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
            files = [len(source.splitlines()) for source in sources]
            functions = [length for source in sources for length in function_lengths(source)]
            name = str(package.relative_to(folder.parent))
            print(f"{name:<24}{len(files):>6}{sum(files):>8}   {summary(files):<22}{summary(functions):<26}")


if __name__ == "__main__":
    main()
