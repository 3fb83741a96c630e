"""Stages of a run folder: each is read when its stored result is valid, else made and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sfmttr.run.evaluate import EVALUATION
from sfmttr.run.folder import RunFolder
from sfmttr.run.stages import REFINED_STAGES, StageName, dependents
from sfmttr.types import OnProgress, Progress, ResultOrigin

T = TypeVar("T")


class StageRunner:
    """Runs stages in one run folder and notes how long each took."""

    def __init__(self, folder: RunFolder, on_progress: OnProgress) -> None:
        self._folder, self._on_progress = folder, on_progress
        self.path = folder.path
        self.timings_s: dict[str, float] = {}
        """Seconds by stage, in the order in which they ended; of stored results, what they took when they were made."""

    def run(
        self,
        name: StageName,
        key: str,
        files: Callable[[], list[Path]],
        make: Callable[[], T],
        read: Callable[[], T],
        *,
        atomic: bool = False,
        is_final: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """Return `read()` when the stage is stored with this `cache_key`, else `make()`, and record `files()`.

        Before `make`, the old result and all that was made from it are deleted. With `atomic`, `make` itself replaces
        the old result in one step, so everything stays until it has succeeded. A result for which `is_final` is false
        is returned, but not recorded: the next run makes it again.
        """
        if self.is_stored(name, key):
            record = self._folder.manifest.stage(name)
            self.timings_s[name] = record.seconds if record else 0.0
            self._on_progress(Progress(name, 1, 1, "already done", origin=ResultOrigin.RUN_FOLDER))
            return read()
        if not atomic:
            self._delete_outdated(name)
        started = time.perf_counter()
        value = make()
        self.timings_s[name] = time.perf_counter() - started
        if atomic:
            self._delete_evaluation()
        if is_final(value):
            self._folder.record(name, key, files(), self.timings_s[name], invalidates=dependents(name))
        return value

    def is_stored(self, name: StageName, key: str) -> bool:
        """Return whether the stage is complete in the run folder, made with this `cache_key`."""
        return self._folder.is_fresh(name, key)

    def key(self, name: StageName) -> str:
        """Return the `cache_key` that the stage is recorded with; empty when it is not recorded."""
        record = self._folder.manifest.stage(name)
        return record.key if record else ""

    @contextmanager
    def timed(self, name: StageName) -> Iterator[None]:
        """Context whose duration is noted as that of a stage."""
        started = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - started

    def delete_refinement(self) -> None:
        """Delete what an earlier run refined, and all that was made from it."""
        if self._folder.manifest.stage(StageName.REFINE):
            self._delete_evaluation()
        self._folder.invalidate(REFINED_STAGES)

    def _delete_outdated(self, name: StageName) -> None:
        if name is not StageName.OUTPUTS:  # they show the same depth in another way
            self._delete_evaluation()
        self._folder.invalidate((name, *dependents(name)))

    def _delete_evaluation(self) -> None:
        """Delete what the command `evaluate` found about results that are about to change."""
        (self.path / EVALUATION).unlink(missing_ok=True)
