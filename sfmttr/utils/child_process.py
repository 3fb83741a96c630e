"""A child process that its parent can follow and end: what both sides of one need. Imports nothing heavy.

The child writes lines to its original stdout, and its stdin stays open for as long as the parent lives.
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
    """Run `command` where this package can be imported, in a session of its own: one signal reaches all of it.

    Pass the result to `kill` in any case.
    """
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end of file tells the child that we are gone
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        start_new_session=True,
    )


def lines_of(stream: IO[bytes] | None) -> queue.SimpleQueue[bytes | None]:
    """The lines of a child's pipe as they come, then None."""
    assert stream is not None, "the child was started with this pipe"
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def pump() -> None:
        with contextlib.suppress(ValueError, OSError):  # the stream is closed under us when the child is killed
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    return lines


def kill(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group and close its stdin. Safe to call when it has ended already."""
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
    """Keep the original stdout for progress and send everything else that is printed to stderr."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return events


def die_with_parent(parent: int) -> None:
    """End this process when the parent does: by the kernel where it can, else by a thread that watches stdin.

    The thread alone does not do: some calls of native libraries hold the interpreter's lock for as long as they run.
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
