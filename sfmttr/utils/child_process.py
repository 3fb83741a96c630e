"""Child processes with progress and reliable termination: functions for the parent and for the child.

The child writes progress lines to its original stdout; its stdin stays open as long as the parent lives. Imports the
standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------- parent


def start(command: list[str], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `command` in a new session, so that one signal reaches its whole process group.

    PYTHONPATH is extended so that the child can import this package. Always pass the result to `kill`.
    """
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # end of file tells the child that the parent has ended
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        start_new_session=True,
    )


def lines_of(stream: IO[bytes] | None) -> queue.SimpleQueue[bytes | None]:
    """Return a queue of the lines of a child's pipe, filled by a thread; None marks the end of file."""
    assert stream is not None, "the child was started with this pipe"
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read_lines() -> None:
        with contextlib.suppress(ValueError, OSError):  # the stream is closed when the child is killed
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read_lines, daemon=True).start()
    return lines


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's process group and close its stdin. Safe to call when the child has already ended."""
    if child.poll() is None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


# -------------------------------------------------------------------------------------------- child


def take_stdout() -> IO[str]:
    """Return the original stdout, for progress; everything else that is printed goes to stderr."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return events


def die_with_parent(parent: int) -> None:
    """End this process when process `parent` ends: by the kernel on Linux, and by a thread that watches stdin.

    The thread alone is not enough, because some calls of native libraries hold the GIL for as long as they run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            ready, _, _ = select.select([0], [], [], 1.0)
            if ready and not os.read(0, 1):
                break
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
