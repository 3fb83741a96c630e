"""Work in a thread of its own that can be watched and stopped.

The thread runs in the context of who started it: on ZeroGPU that says whose quota a GPU is asked for with.
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

INTERNAL_ERROR = "Something went wrong on our side, and it was noted: please try again, or try another clip."


@dataclass(frozen=True)
class JobResult(Generic[T]):
    """How a job ended: with a value, with a sentence, or stopped (neither)."""

    value: T | None = None
    problem: str = ""

    @property
    def stopped(self) -> bool:
        return self.value is None and not self.problem


class Job(Generic[T]):
    """One piece of work. `work` gets a function to report events with, which raises `Cancelled` once it was stopped."""

    def __init__(self, work: Callable[[Callable[[object], None]], T]) -> None:
        self.id = secrets.token_urlsafe(16)
        self._work = work
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.result: JobResult[T] | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"job-{self.id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it does so at its next event."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def events(self, timeout_s: float) -> Iterator[object]:
        """What was reported since the last call; waits for the first at most so long."""
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

    def _tell(self, event: object) -> None:
        self.check()
        self._events.put(event)

    def _run(self) -> None:
        try:
            self.result = JobResult(value=self._work(self._tell))
        except Cancelled:
            self.result = JobResult()
        except SfmttrError as error:
            self.result = JobResult(problem=str(error))
        except Exception:  # noqa: BLE001
            # Whatever it is, the visitor gets a sentence and the log the rest.
            _log.exception("a job failed")
            self.result = JobResult(problem=INTERNAL_ERROR)
        finally:
            self._events.put(None)  # wakes who waits


class Jobs:
    """The jobs that are running, so that they can be stopped by id or with their visitor."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[Job[object], str]] = {}
        self._lock = threading.Lock()

    def start(self, job: Job[T], visitor: str) -> None:
        with self._lock:
            self._jobs[job.id] = (job, visitor)  # type: ignore[assignment]
        job.start()

    def stop(self, id: str) -> bool:
        """Stop the job with this id; whether there was one."""
        with self._lock:
            found = self._jobs.get(id)
        if found:
            found[0].stop()
        return found is not None

    def stop_visitor(self, visitor: str) -> None:
        """Somebody left: whatever is being done for them ends."""
        with self._lock:
            theirs = [job for job, whose in self._jobs.values() if whose == visitor]
        for job in theirs:
            job.stop()

    def forget(self, id: str) -> None:
        with self._lock:
            self._jobs.pop(id, None)

    @property
    def running(self) -> int:
        with self._lock:
            return len(self._jobs)
