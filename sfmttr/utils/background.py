"""One background task in a thread, for use while the main thread waits and cores are idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

from sfmttr.errors import Cancelled
from sfmttr.types import OnProgress, Progress
from sfmttr.utils.device import one_cpu_thread

T = TypeVar("T")
_POLL_INTERVAL_S = 0.2


class BackgroundTask(Generic[T]):
    """A task on one CPU thread that is started on demand and ends with its context.

        with BackgroundTask(work) as task:
            wait_for_something(on_idle=task.start)
            value = task.result(on_progress)  # waits; None when it was never started

    `work` gets an `OnProgress` to call repeatedly, which raises `Cancelled` once the context is left.
    """

    def __init__(self, work: Callable[[OnProgress], T]) -> None:
        self._work = work
        self._stopped = threading.Event()
        self._latest: Progress | None = None
        self._future: Future[T] | None = None

    def __enter__(self) -> BackgroundTask[T]:
        self._pool = ThreadPoolExecutor(max_workers=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._pool.shutdown()

    def start(self) -> None:
        """Start the task, unless it was started already."""
        if self._future is None:
            self._future = self._pool.submit(self._run)

    def result(self, on_progress: OnProgress) -> T | None:
        """Wait for the task and return its result; None when it was not started.

        Exceptions of the task are raised here. `on_progress` is called with the task's progress, and may raise.
        """
        if self._future is None:
            return None
        while not wait([self._future], _POLL_INTERVAL_S).done:
            if self._latest is not None:
                on_progress(self._latest)
        return self._future.result()

    def _run(self) -> T:
        with one_cpu_thread():
            return self._work(self._report)

    def _report(self, progress: Progress) -> None:
        if self._stopped.is_set():
            raise Cancelled("stopped")
        self._latest = progress
