"""Work in a thread of its own beside a wait."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest
import torch

from sfmttr.errors import Cancelled
from sfmttr.types import OnProgress, Progress
from sfmttr.utils.background import BackgroundTask


def ignore(progress: Progress) -> None:
    pass


def test_what_was_begun_is_waited_for() -> None:
    go = threading.Event()

    def work(tell: OnProgress) -> int:
        tell(Progress("before", 1, 2))
        assert go.wait(10)
        return 7

    heard: list[Progress] = []

    def hear(progress: Progress) -> None:
        heard.append(progress)
        go.set()

    with BackgroundTask(work) as beside:
        beside.start()
        beside.start()  # once is enough
        assert beside.result(hear) == 7
    assert heard[0] == Progress("before", 1, 2)


def test_what_was_not_begun_has_no_result() -> None:
    with BackgroundTask(lambda tell: 7) as beside:
        assert beside.result(ignore) is None


def test_it_is_on_one_thread_and_leaves_the_others_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with BackgroundTask(lambda tell: torch.get_num_threads()) as beside:
            beside.start()
            assert beside.result(ignore) == 1
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_errors_of_the_work_pass_through() -> None:
    def work(tell: OnProgress) -> NoReturn:
        raise ZeroDivisionError

    with BackgroundTask(work) as beside:
        beside.start()
        with pytest.raises(ZeroDivisionError):
            beside.result(ignore)


def test_who_leaves_early_stops_the_work() -> None:
    running, ended = threading.Event(), threading.Event()

    def work(tell: OnProgress) -> None:
        try:
            while True:
                tell(Progress("before", 0, 1))
                running.set()
        except Cancelled:
            ended.set()
            raise

    def leave() -> None:
        with BackgroundTask(work) as beside:
            beside.start()
            assert running.wait(10)
            raise KeyError

    before = threading.active_count()
    with pytest.raises(KeyError):
        leave()
    assert ended.is_set()
    assert threading.active_count() == before
