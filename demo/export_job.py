"""Freezing a run in a child process: python -m demo.export_job RUN '{"device": "cpu"}'

Tracing holds the interpreter for seconds and its memory for good: a child can be ended at any moment and takes all of
that with it. It writes JSON lines to stdout: progress `[step, done, total, note]`, at last `{"problem": ...}` or `{}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sfmttr.errors import SfmttrError
from sfmttr.runs import RunFolder
from sfmttr.types import OnProgress, Progress

_POLL_S = 0.2
_ROOT = Path(__file__).resolve().parents[1]
_log = logging.getLogger(__name__)


class ExportFailedError(SfmttrError):
    """The export ended with a sentence."""


@dataclass(frozen=True)
class ExportWish:
    """What is asked for. Either way of giving metres, or none."""

    known_depth: tuple[int, int, int, float] | None = None
    """Frame, row, column, metres."""
    camera_height_m: float | None = None
    bundle_runtime: bool = False
    """The browser's runtime goes into the kit, too."""


def command(run: Path, wish: ExportWish) -> list[str]:
    """The child's command line (tests replace it)."""
    return [sys.executable, "-m", "demo.export_job", str(run), json.dumps(asdict(wish))]


def export(run: Path, wish: ExportWish, on_progress: OnProgress) -> None:
    """Export the run folder `run` and pack its kit.

    `on_progress` is called a few times a second; what it raises (a cancel) ends the child and passes through, and no
    half-written file stays. Raises `ExportFailedError`.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    child = subprocess.Popen(
        command(run, wish),
        stdin=subprocess.PIPE,  # its end of file tells the child that we are gone
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        last = _follow(child, on_progress)
    except BaseException:
        _kill(child)
        with contextlib.suppress(SfmttrError), RunFolder(run):
            pass  # opening a run folder removes what a killed process was writing
        raise
    finally:
        _kill(child)
    if last is None:
        raise ExportFailedError("The export broke off: please try again.")
    if last.get("problem"):
        raise ExportFailedError(str(last["problem"]))


def _follow(child: subprocess.Popen[bytes], on_progress: OnProgress) -> dict[str, Any] | None:
    """Pass progress on until the child ends; its last word, if it had one."""
    assert child.stdout is not None
    assert child.stderr is not None
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(child.stdout, lines.put), daemon=True).start()
    errors: list[bytes] = []
    stderr = threading.Thread(target=_pump, args=(child.stderr, lambda line: errors.append(line or b"")), daemon=True)
    stderr.start()
    now, last = Progress("export", 0, 0, "starting"), None
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
                now = Progress(str(word[0]), int(word[1]), int(word[2]), str(word[3]))
    if child.wait() != 0 or last is None:
        stderr.join(1.0)
        _log.error("an export ended with %s: %s", child.returncode, b"".join(errors)[-4000:].decode(errors="replace"))
    return last


def _pump(stream: IO[bytes], put: Callable[[bytes | None], object]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed under us when the child is killed
        for line in stream:
            put(line)
    put(None)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child's process group and close the pipes. Safe to call when it has ended already."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


# ------------------------------------------------------------------------------------------- child


def main(arguments: list[str]) -> int:
    from sfmttr._sfm.worker import die_with_parent, take_stdout

    words = take_stdout()
    die_with_parent(os.getppid())

    def say(word: object) -> None:
        words.write(json.dumps(word) + "\n")

    run, wish = Path(arguments[0]), ExportWish(**json.loads(arguments[1]))
    try:
        _export(run, wish, lambda progress: say([progress.stage, progress.done, progress.total, progress.note]))
    except SfmttrError as error:
        say({"problem": str(error)})
        return 1
    say({})
    return 0


def _export(run: Path, wish: ExportWish, on_progress: OnProgress) -> None:
    from export.pipeline import ExportConfig, KnownDepth, export_run, pack

    known = None if wish.known_depth is None else KnownDepth(*wish.known_depth)
    export_run(run, None, ExportConfig(known_depth=known, camera_height_m=wish.camera_height_m), on_progress)
    on_progress(Progress("kit", 0, 1, "kit"))
    pack(run, bundle_runtime=wish.bundle_runtime)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
