"""Work on frames in two threads, in order: decoding, filtering and compressing release the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def map_in_order(make: Callable[[int], T], count: int, most: int = 6) -> Iterator[Iterator[T]]:
    """An iterator over `make(0)`, `make(1)`, ..., made at most `most` ahead of who reads them.

    Whoever leaves early waits for those that are being made, and no others are begun.
    """
    with closing(_ahead(make, count, most)) as results:
        yield results


def _ahead(make: Callable[[int], T], count: int, most: int) -> Generator[T, None, None]:
    pool = ThreadPoolExecutor(max_workers=2)
    try:
        waiting = deque(pool.submit(make, i) for i in range(min(most, count)))
        for following in range(most, count + most):
            if not waiting:
                return
            yield waiting.popleft().result()
            if following < count:
                waiting.append(pool.submit(make, following))
    finally:
        pool.shutdown(cancel_futures=True)
