"""Imports follow the flow of data (docs/architecture.md), without cycles; each heavy library has one home."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each layer may import those before it, and its own modules.
FLOW = (
    {"sfmttr", *(f"sfmttr.{name}" for name in ("types", "errors", "config", "geometry", "utils", "io", "viz"))},
    *({f"sfmttr.{name}"} for name in ("frames", "sfm", "networks", "refinement", "evaluation", "run")),
    {"sfmttr.kitti", "sfmttr.batch", "sfmttr.api"},
    {"sfmttr.cli", "sfmttr.__main__"},
    *({name} for name in ("export", "demo", "tools", "benchmarks", "tests")),
)
LAYER = {name: i for i, names in enumerate(FLOW) for name in names}
HOMES = {
    "av": ("sfmttr.frames", "sfmttr.io.video_writer", "tools", "tests"),
    "pycolmap": ("sfmttr.sfm", "benchmarks", "tests"),
    "gradio": ("demo", "tests"),
    "pydantic": ("sfmttr.io.json_files", "tests"),
    "pydantic_core": ("sfmttr.io.json_files", "tests"),
    "onnx": ("export", "benchmarks", "tests"),
    "transformers": ("sfmttr.networks.huggingface", "benchmarks", "tests"),
}

# Docstrings and strings under fields begin with a verb or a noun.
RIDDLES = re.compile(r"(Of|What|The same|How|Whether)\b")


@cache
def modules() -> dict[str, Path]:
    """All modules of the repository by name; `export/kit/static` is data that ships with a kit."""
    files = (
        path
        for top in ("sfmttr", "export", "demo", "tools", "benchmarks", "tests")
        for path in ROOT.glob(f"{top}/**/*.py")
    )
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {name: path for name, path in names.items() if not name.startswith("export.kit.static")}


def imports(name: str, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Modules that a module imports, and the line; with `top_level` only what is executed on import."""
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    package = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield (submodule if submodule in modules() else source), node.lineno


def layer(name: str) -> int | None:
    """Position in the flow; None for other people's libraries."""
    parts = name.split(".")
    return LAYER.get(".".join(parts[:2]), LAYER.get(parts[0]) if parts[0] != "sfmttr" or len(parts) == 1 else None)


def test_every_module_has_a_layer() -> None:
    assert [name for name in modules() if layer(name) is None] == []


def test_nothing_imports_against_the_flow() -> None:
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line} imports {other}"
        for name in modules()
        if name != "sfmttr"  # imports its public names when they are used
        for other, line in imports(name)
        if (layer(other) or 0) > (layer(name) or 0)
    ]
    assert wrong == []


def test_no_import_cycles() -> None:
    graph = {name: {other for other, _ in imports(name, top_level=True) if other in modules()} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_heavy_libraries_stay_in_their_packages() -> None:
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line} imports {other}"
        for name in modules()
        for other, line in imports(name)
        if other.split(".")[0] in HOMES
        and not f"{name}.".startswith(tuple(f"{h}." for h in HOMES[other.split(".")[0]]))
    ]
    assert wrong == []


def strings(name: str) -> Iterator[tuple[str, int]]:
    """Docstrings and the strings under constants and fields of a module, and the line."""
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield text.strip(), statement.lineno


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line}: {text[:60]}"
        for name in modules()
        for text, line in strings(name)
        if RIDDLES.match(text)
    ]
    assert wrong == []
