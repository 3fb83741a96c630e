"""The queue for the machine: one heavy job at a time, first come first served, and everyone knows their position.

Gradio's own queue would do the first. It does not tell API clients their position, and it does not let the page's own
work (computing the examples) step back for visitors.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfmttr.errors import SfmttrError

_POLL_S = 0.2


class QueueFullError(SfmttrError):
    """Too many jobs are waiting."""


class WorkQueue:
    """The job that holds the machine and those that wait for it."""

    def __init__(self, length: int) -> None:
        """`length`: how many jobs may wait."""
        self._length = length
        self._tickets: list[int] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for the one that holds the machine."""
        return max(0, len(self._tickets) - 1)

    @property
    def idle(self) -> bool:
        """True if no job holds the machine."""
        return not self._tickets

    @contextmanager
    def acquire(self, on_position: Callable[[int], None]) -> Iterator[None]:
        """Wait for the machine and hold it.

        `on_position` is called a few times a second with the number of jobs ahead (0: it is our turn); what it raises
        ends the waiting. Raises `QueueFullError`.
        """
        ticket = self._join()
        try:
            while position := self._position(ticket):
                on_position(position)
                with self._changed:
                    self._changed.wait(_POLL_S)
            on_position(0)
            yield
        finally:
            self._leave(ticket)

    def _join(self) -> int:
        with self._changed:
            if len(self._tickets) > self._length:
                raise QueueFullError(f"The queue is full ({self.waiting} waiting): please come back in a few minutes.")
            ticket = next(self._numbers)
            self._tickets.append(ticket)
            return ticket

    def _position(self, ticket: int) -> int:
        with self._changed:
            return self._tickets.index(ticket)

    def _leave(self, ticket: int) -> None:
        with self._changed:
            self._tickets.remove(ticket)
            self._changed.notify_all()
