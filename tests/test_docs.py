"""README and docs: short enough, links that lead somewhere, code blocks that run.

A block that cannot run here has a comment `<!-- not run: reason -->` above it; its commands are then only parsed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sfmttr.cli.main import build_parser
from tests.support.documents import ROOT, blocks

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("command-line", "export", "python", "networks")))
"""In the order in which they run: later pages read the run folder that earlier ones made."""
ALL_PAGES = sorted({*PAGES, "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))})
QUICK = ("--preset", "fast", "--max-frames", "12")


def anchors(path: Path) -> set[str]:
    """The anchors that headings get on GitHub."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", ALL_PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        assert page in PAGES or block.language == "text" or not block.runs or "tests:" in block.marks, block.code


@pytest.mark.parametrize("page", ALL_PAGES)
def test_commands_have_options_that_exist(page: str) -> None:
    for words in (words for block in blocks(page) if block.language == "bash" for words in block.commands):
        if words[0] == "sfmttr" and words[1] not in ("export", "page"):  # those hand their options on
            build_parser().parse_args(
                ["evaluate-kitti", *words[3:]] if words[1:3] == ["evaluate", "kitti"] else words[1:]
            )
        if words[:2] == ["python", "-m"]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists() or (ROOT / words[2] / "__main__.py").exists()


@pytest.mark.parametrize("page", ALL_PAGES)
def test_python_compiles(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, page, "exec")


# ------------------------------------------------------------------------------------------- run


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: the examples, a clip, a photo, and the command `sfmttr`."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "room.mp4", folder / "clip.mp4")
    Image.new("RGB", (160, 120), (90, 120, 60)).save(folder / "photo.jpg")
    command = folder / "bin" / "sfmttr"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sfmttr "$@"\n')
    command.chmod(0o755)
    return folder


def run(words: list[str], scratch: Path) -> None:
    path = os.pathsep.join([str(scratch / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "SFMTTR_CACHE": str(scratch / "cache")}
    ran = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, f"{shlex.join(words)}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, scratch: Path) -> None:
    for block in (block for block in blocks(page) if block.runs):
        if block.language == "python" and "api:" not in block.marks:
            run([sys.executable, "-c", block.code], scratch)
        if block.language == "bash" and "tests:" not in block.marks:
            for words in block.commands:
                run([*words, *QUICK] if words[:2] == ["sfmttr", "refine"] else words, scratch)
