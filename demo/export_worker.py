"""Freezing a run in a child process: python -m demo.export_worker RUN '{"device": "cpu"}'

Tracing holds the interpreter for seconds and its memory for good: a child can be ended at any moment and takes all of
that with it. It writes JSON lines to stdout: progress `[step, done, total, note]`, at last `{"problem": ...}` or `{}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfmttr.errors import SfmttrError
from sfmttr.run.folder import RunFolder
from sfmttr.types import OnProgress, Progress
from sfmttr.utils import child_process

from .export_package import import_export

_POLL_S = 0.2
_log = logging.getLogger(__name__)


class ExportFailedError(SfmttrError):
    """The export ended with a sentence."""


@dataclass(frozen=True)
class ExportRequest:
    """What is asked for. Either way of giving metres, or none."""

    known_depth: tuple[int, int, int, float] | None = None
    """Frame, row, column, metres."""
    camera_height_m: float | None = None
    bundle_runtime: bool = False
    """The browser's runtime goes into the kit, too."""


def command(run: Path, wish: ExportRequest) -> list[str]:
    """The child's command line (tests replace it)."""
    return [sys.executable, "-m", f"{__package__}.export_worker", str(run), json.dumps(asdict(wish))]


def export(run: Path, wish: ExportRequest, on_progress: OnProgress) -> None:
    """Export the run folder `run` and pack its kit.

    `on_progress` is called a few times a second; what it raises (a cancel) ends the child and passes through, and no
    half-written file stays. Raises `ExportFailedError`.
    """
    child = child_process.start(command(run, wish), subprocess.PIPE)
    try:
        last = _follow(child, on_progress)
    except BaseException:
        child_process.kill(child)
        with contextlib.suppress(SfmttrError), RunFolder(run):
            pass  # opening a run folder removes what a killed process was writing
        raise
    finally:
        child_process.kill(child)
    if last is None:
        raise ExportFailedError("The export broke off: please try again.")
    if last.get("problem"):
        raise ExportFailedError(str(last["problem"]))


def _follow(child: subprocess.Popen[bytes], on_progress: OnProgress) -> dict[str, Any] | None:
    """Pass progress on until the child ends; its last word, if it had one."""
    lines, errors = child_process.lines_of(child.stdout), child_process.lines_of(child.stderr)
    now, last = Progress("export", 0, 0, "starting", phase="starting"), None
    while True:
        on_progress(now)
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if line is None:
            break
        with contextlib.suppress(ValueError, TypeError):
            word = json.loads(line)
            if isinstance(word, dict):
                last = word
            else:
                stage, done, total, note, phase = word
                now = Progress(str(stage), int(done), int(total), str(note), str(phase))
    if child.wait() != 0 or last is None:
        text = b""
        with contextlib.suppress(queue.Empty):  # whatever may still hold the pipe open is not waited for
            while (said := errors.get(timeout=1.0)) is not None:
                text += said
        _log.error("an export ended with %s: %s", child.returncode, text[-4000:].decode(errors="replace"))
    return last


# ------------------------------------------------------------------------------------------- child


def main(arguments: list[str]) -> int:
    words = child_process.take_stdout()
    child_process.die_with_parent(os.getppid())

    def say(word: object) -> None:
        words.write(json.dumps(word) + "\n")

    run, wish = Path(arguments[0]), ExportRequest(**json.loads(arguments[1]))
    try:
        _export(run, wish, lambda now: say([now.stage, now.done, now.total, now.note, now.phase]))
    except SfmttrError as error:
        say({"problem": str(error)})
        return 1
    say({})
    return 0


def _export(run: Path, wish: ExportRequest, on_progress: OnProgress) -> None:
    exporter = import_export("exporter")
    known = None if wish.known_depth is None else exporter.KnownDepth(*wish.known_depth)
    config = exporter.ExportConfig(known_depth=known, camera_height_m=wish.camera_height_m)
    exporter.export_run(run, None, config, on_progress)
    on_progress(Progress("kit", 0, 1, "kit", phase="kit"))
    exporter.pack(run, bundle_runtime=wish.bundle_runtime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
