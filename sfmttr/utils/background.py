"""Work in a thread of its own while the main one waits for something that leaves cores idle."""

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
_TICK_S = 0.2


class BackgroundTask(Generic[T]):
    """One piece of work, on one thread of the CPU, that is begun when its time has come and is over with the context.

        with BackgroundTask(work) as beside:
            wait_for_something(tell=beside.start)
            value = beside.result(on_progress)  # waits; None when it was never begun

    `work` is given an `OnProgress` to call now and then, which raises `Cancelled` once the context is left.
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
        """Begin, if that was not done yet."""
        if self._future is None:
            self._future = self._pool.submit(self._run)

    def result(self, on_progress: OnProgress) -> T | None:
        """What the work came to, which is waited for, or what it raised; None when it was not begun.

        `on_progress` hears how far it is, and may raise.
        """
        if self._future is None:
            return None
        while not wait([self._future], _TICK_S).done:
            if self._latest is not None:
                on_progress(self._latest)
        return self._future.result()

    def _run(self) -> T:
        with one_cpu_thread():
            return self._work(self._tell)

    def _tell(self, progress: Progress) -> None:
        if self._stopped.is_set():
            raise Cancelled("stopped")
        self._latest = progress
