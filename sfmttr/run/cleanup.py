"""Folders that a failed run leaves behind."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path

from sfmttr.errors import Cancelled


def missing_folders(out: Path) -> list[Path]:
    """Return `out` and the folders above it that do not exist yet, innermost first."""
    return list(itertools.takewhile(lambda folder: not folder.exists(), (out, *out.parents)))


def delete_failed_run(out: Path, created: list[Path], error: BaseException) -> None:
    """Delete the run folder `out`, and the folders `created` for it, unless it holds something worth keeping.

    That is a reconstruction, or depth. After a run that was stopped, chosen frames are kept as well: it will go on from
    there, while an error often means that the input was wrong.
    """
    stopped = isinstance(error, Cancelled | KeyboardInterrupt)
    worth_keeping = ("frames", "sfm", "depth") if stopped else ("sfm", "depth")
    if not created or any((out / name).exists() for name in worth_keeping):
        return
    shutil.rmtree(out, ignore_errors=True)
    with contextlib.suppress(OSError):  # another run uses one of them by now
        for folder in created[1:]:
            folder.rmdir()
