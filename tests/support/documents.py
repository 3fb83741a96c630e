"""The fenced code blocks of README and docs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    language: str
    code: str
    marks: str
    """The comments on the line above it."""

    @property
    def runs(self) -> bool:
        return "not run:" not in self.marks

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a bash block, comments removed."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"((?:<!--[^\n]*-->\n)*)```(\w+)\n(.*?)```", text, re.DOTALL)
    return [Block(page, each[2], each[3], each[1]) for each in found]


def marked_block(page: str, name: str) -> str:
    """The code between the comments `name:begin` and `name:end` of a page."""
    (block,) = (block for block in blocks(page) if f"{name}:begin" in block.marks)
    return block.code
