"""Work in two threads, in order."""

from __future__ import annotations

import threading

import pytest

from sfmttr.utils.threads import map_in_order


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 40])
def test_results_come_in_order(count: int) -> None:
    with map_in_order(lambda i: i * i, count) as results:
        assert list(results) == [i * i for i in range(count)]


def test_whoever_leaves_early_stops_the_rest() -> None:
    begun: list[int] = []

    def make(i: int) -> int:
        begun.append(i)
        return i

    def leave() -> None:
        with map_in_order(make, 1000) as results:
            assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert len(begun) < 20


def test_errors_pass_through_and_no_thread_stays() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), map_in_order(lambda i: 1 // (i - 2), 10) as results:
        list(results)
    assert threading.active_count() == before
