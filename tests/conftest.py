"""Fixtures of all tests: one thread, fixed seeds, a cache of its own; and small clips rendered once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: on one thread results repeat bit for bit
# Before torch is imported, too. A forked child (tests/demo/test_zerogpu.py) can spin for ever in the lists that MKL's
# memory manager keeps by thread, when threads of its parent computed before the fork.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")

import pytest

from tools.synthetic import RenderedClip, render_room, write_frames

if TYPE_CHECKING:
    from tests.support.exported import Exported


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFMTTR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Networks are built with torch's global generator; nothing else may use a global one."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def room() -> RenderedClip:
    """A rendered clip with exact depth, small enough to train on in a test."""
    return render_room(12, (96, 128))


@pytest.fixture(scope="session")
def room_frames(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """`room` as a `FrameSet`."""
    return write_frames(room, Path(tmp_path_factory.mktemp("room")) / "frames")


@pytest.fixture(scope="session")
def room_model(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model of the Hub's layout, which gives inverse depth and half fits `room`."""
    from tests.support.folder_models import write_fitted

    return write_fitted(Path(tmp_path_factory.mktemp("models")) / "tiny-depth", room.rgb, room.depth)


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A refined and exported network; it is not known by name any more."""
    from tests.support.exported import export_tiny

    with pytest.MonkeyPatch.context() as patch:
        return export_tiny(tmp_path_factory.mktemp("exported"), patch)


@pytest.fixture(scope="module")
def exported(exported_once: Exported) -> Iterator[Exported]:
    """`exported_once`, with its network registered again."""
    from tests.support.exported import register_again

    with pytest.MonkeyPatch.context() as patch:
        register_again(exported_once, patch)
        yield exported_once
