"""Background task during a wait."""

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


def test_result_waits_for_a_started_task() -> None:
    go = threading.Event()

    def work(report: OnProgress) -> int:
        report(Progress("before", 1, 2))
        assert go.wait(10)
        return 7

    reported: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        reported.append(progress)
        go.set()

    with BackgroundTask(work) as task:
        task.start()
        task.start()  # once is enough
        assert task.result(on_progress) == 7
    assert reported[0] == Progress("before", 1, 2)


def test_a_task_that_was_not_started_has_no_result() -> None:
    with BackgroundTask(lambda report: 7) as task:
        assert task.result(ignore) is None


def test_it_computes_on_one_thread_and_other_threads_keep_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with BackgroundTask(lambda report: torch.get_num_threads()) as task:
            task.start()
            assert task.result(ignore) == 1
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_errors_of_the_task_propagate() -> None:
    def work(report: OnProgress) -> NoReturn:
        raise ZeroDivisionError

    with BackgroundTask(work) as task:
        task.start()
        with pytest.raises(ZeroDivisionError):
            task.result(ignore)


def test_leaving_the_context_stops_the_task() -> None:
    running, ended = threading.Event(), threading.Event()

    def work(report: OnProgress) -> None:
        try:
            while True:
                report(Progress("before", 0, 1))
                running.set()
        except Cancelled:
            ended.set()
            raise

    def leave() -> None:
        with BackgroundTask(work) as task:
            task.start()
            assert running.wait(10)
            raise KeyError

    before = threading.active_count()
    with pytest.raises(KeyError):
        leave()
    assert ended.is_set()
    assert threading.active_count() == before
