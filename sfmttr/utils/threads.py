"""Ordered map over frames in two threads: decoding, filtering and compressing release the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def map_in_order(function: Callable[[int], T], count: int, max_ahead: int = 6) -> Iterator[Iterator[T]]:
    """Return a context with an iterator over `function(0)`, ..., `function(count - 1)`.

    At most `max_ahead` results are computed ahead of the consumer. Leaving the context early waits for calls that are
    running, and cancels the others.
    """
    with closing(_ahead(function, count, max_ahead)) as results:
        yield results


def _ahead(function: Callable[[int], T], count: int, max_ahead: int) -> Generator[T, None, None]:
    pool = ThreadPoolExecutor(max_workers=2)
    try:
        pending = deque(pool.submit(function, i) for i in range(min(max_ahead, count)))
        for following in range(max_ahead, count + max_ahead):
            if not pending:
                return
            yield pending.popleft().result()
            if following < count:
                pending.append(pool.submit(function, following))
    finally:
        pool.shutdown(cancel_futures=True)
