"""A page of its own for a test, in this process: real server, and either real parts or stand-ins that take a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.config import PageConfig
from demo.service import Service
from demo.ui import build_page, launch
from sfmttr.backend import LocalBackend


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
