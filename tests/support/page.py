"""A page of its own for a test, in this process: real server, and either real parts or stand-ins that take a second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.config import PageConfig
from demo.layout import build_page
from demo.server import launch
from demo.service import Service
from sfmttr.refinement.backend import LocalBackend


def page_config(folder: Path, **changes: Any) -> PageConfig:
    return replace(PageConfig(folder=folder, prepare_examples=False, poll_s=0.05, live_every_s=0.2), **changes)


def cpu_service(folder: Path, **changes: Any) -> Service:
    return Service(page_config(folder, **changes), backend=lambda: LocalBackend("cpu"))


@contextmanager
def running(service: Service, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page over `service`."""
    patch.setenv("GRADIO_TEMP_DIR", str(service.config.folder / "gradio"))
    page = build_page(service=service)
    url = launch(page, block=False, quiet=True)
    try:
        yield url
    finally:
        page.blocks.close(verbose=False)


def children() -> list[str]:
    """Command lines of this process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            line = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue
        if parent == os.getpid():
            found.append(line)
    return found
