"""Export of a run in a child process: python -m demo.export_worker RUN '{"bundle_runtime": true}'

Tracing blocks the interpreter for seconds and never frees its memory; a child process can be killed at any moment,
which frees everything. The child writes JSON lines to stdout: progress as `[stage, done, total, note, phase]` and
finally `{"problem": ...}` or `{}`.
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
    """The export failed, for the reason in the message."""


@dataclass(frozen=True)
class ExportRequest:
    """Options of an export. At most one of the two ways to get depth in meters is given."""

    known_depth: tuple[int, int, int, float] | None = None
    """Frame, row, column, meters."""
    camera_height_m: float | None = None
    """Height above the ground."""
    bundle_runtime: bool = False
    """Include the browser runtime."""


def command(run: Path, request: ExportRequest) -> list[str]:
    """Return the child's command line (tests replace it)."""
    return [sys.executable, "-m", f"{__package__}.export_worker", str(run), json.dumps(asdict(request))]


def export(run: Path, request: ExportRequest, on_progress: OnProgress) -> None:
    """Export the run folder `run` and pack its kit.

    `on_progress` is called a few times a second; what it raises (a cancel) ends the child and passes through, and no
    half-written file stays. Raises `ExportFailedError`.
    """
    child = child_process.start(command(run, request), subprocess.PIPE)
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
        raise ExportFailedError("The export ended unexpectedly: please try again.")
    if last.get("problem"):
        raise ExportFailedError(str(last["problem"]))


def _follow(child: subprocess.Popen[bytes], on_progress: OnProgress) -> dict[str, Any] | None:
    """Report progress until the child ends; return its final message, if there was one."""
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
            message = json.loads(line)
            if isinstance(message, dict):
                last = message
            else:
                stage, done, total, note, phase = message
                now = Progress(str(stage), int(done), int(total), str(note), str(phase))
    if child.wait() != 0 or last is None:
        text = b""
        with contextlib.suppress(queue.Empty):  # do not wait for whatever may still hold the pipe open
            while (chunk := errors.get(timeout=1.0)) is not None:
                text += chunk
        _log.error("an export ended with %s: %s", child.returncode, text[-4000:].decode(errors="replace"))
    return last


# ------------------------------------------------------------------------------------------- child


def main(arguments: list[str]) -> int:
    stdout = child_process.take_stdout()
    child_process.die_with_parent(os.getppid())

    def send(message: object) -> None:
        stdout.write(json.dumps(message) + "\n")

    run, request = Path(arguments[0]), ExportRequest(**json.loads(arguments[1]))
    try:
        _export(run, request, lambda now: send([now.stage, now.done, now.total, now.note, now.phase]))
    except SfmttrError as error:
        send({"problem": str(error)})
        return 1
    send({})
    return 0


def _export(run: Path, request: ExportRequest, on_progress: OnProgress) -> None:
    exporter = import_export("exporter")
    known = None if request.known_depth is None else exporter.KnownDepth(*request.known_depth)
    config = exporter.ExportConfig(known_depth=known, camera_height_m=request.camera_height_m)
    exporter.export_run(run, None, config, on_progress)
    on_progress(Progress("kit", 0, 1, "kit", phase="kit"))
    exporter.pack(run, bundle_runtime=request.bundle_runtime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
