"""The line before the machine: one heavy piece of work at a time, first come first served, and everybody knows where
they stand.

Gradio's own queue would do the first; it does not tell clients of the API their position, nor let the page's own work
(preparing examples) step back for visitors.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sfmttr.errors import SfmttrError

_POLL_S = 0.2


class QueueFullError(SfmttrError):
    """Too many are waiting."""


class WorkQueue:
    """Who has the machine, and who waits for it."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._tickets: list[int] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for who is at it."""
        return max(0, len(self._tickets) - 1)

    @property
    def idle(self) -> bool:
        return not self._tickets

    @contextmanager
    def acquire(self, on_position: Callable[[int], None]) -> Iterator[None]:
        """Wait for the machine and hold it.

        `on_position` hears a few times a second how many are before us (0: it is our turn); what it raises ends the
        waiting. Raises `QueueFullError`.
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
                raise QueueFullError(f"{self.waiting} people are waiting already: please come back in a few minutes.")
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
