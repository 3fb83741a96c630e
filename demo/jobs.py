"""Work in a thread of its own that can be watched and stopped.

The thread runs in the context of whoever started it: on ZeroGPU that context decides whose GPU quota is used.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sfmttr.errors import Cancelled, SfmttrError

_log = logging.getLogger(__name__)
T = TypeVar("T")

INTERNAL_ERROR = "Something went wrong on our side and was logged: please try again, or try another clip."

OnEvent = Callable[[object], None]
"""Called with the events of a job. It raises `Cancelled` once the job was stopped."""


@dataclass(frozen=True)
class JobResult(Generic[T]):
    """End of a job: with a value, with a problem, or stopped (neither)."""

    value: T | None = None
    problem: str = ""
    """One sentence for the visitor."""

    @property
    def stopped(self) -> bool:
        """True if the job was stopped before it had a value."""
        return self.value is None and not self.problem


class Job(Generic[T]):
    """One piece of work."""

    def __init__(self, work: Callable[[OnEvent], T]) -> None:
        """`work` is given the function to report events with."""
        self.id = secrets.token_urlsafe(16)
        self._work = work
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.result: JobResult[T] | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"job-{self.id}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the job to end; it does so at its next event."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """True if the job was asked to end."""
        return self._stop.is_set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def events(self, timeout_s: float) -> Iterator[object]:
        """Yield the events since the last call, waiting at most `timeout_s` for the first. None marks the end."""
        try:
            yield self._events.get(timeout=timeout_s)
            while True:
                yield self._events.get_nowait()
        except queue.Empty:
            return

    def check(self) -> None:
        """Raise `Cancelled` once the job was stopped."""
        if self._stop.is_set():
            raise Cancelled("The run was stopped.")

    def _on_event(self, event: object) -> None:
        self.check()
        self._events.put(event)

    def _run(self) -> None:
        try:
            self.result = JobResult(value=self._work(self._on_event))
        except Cancelled:
            self.result = JobResult()
        except SfmttrError as error:
            self.result = JobResult(problem=str(error))
        except Exception:  # noqa: BLE001
            # Whatever it is, the visitor gets a sentence and the log the rest.
            _log.exception("a job failed")
            self.result = JobResult(problem=INTERNAL_ERROR)
        finally:
            self._events.put(None)  # wakes up whoever waits


class Jobs:
    """The running jobs, so that they can be stopped by id or with their visitor."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[Job[object], str]] = {}
        self._lock = threading.Lock()

    def start(self, job: Job[T], visitor: str) -> None:
        """Start a job for a visitor."""
        with self._lock:
            self._jobs[job.id] = (job, visitor)  # type: ignore[assignment]
        job.start()

    def stop(self, id: str) -> bool:
        """Stop the job with this id; return whether there was one."""
        with self._lock:
            found = self._jobs.get(id)
        if found:
            found[0].stop()
        return found is not None

    def stop_visitor(self, visitor: str) -> None:
        """Stop all jobs of a visitor who left."""
        with self._lock:
            jobs = [job for job, owner in self._jobs.values() if owner == visitor]
        for job in jobs:
            job.stop()

    def forget(self, id: str) -> None:
        """Remove a job that ended."""
        with self._lock:
            self._jobs.pop(id, None)

    @property
    def running(self) -> int:
        """Number of jobs that were started and not forgotten."""
        with self._lock:
            return len(self._jobs)
