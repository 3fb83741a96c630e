"""Run one job in a child process: a native abort, a timeout or a cancel ends the child and nothing else."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfmttr.io.json_files import write_json
from sfmttr.sfm.protocol import JOB_FILE, LOG_FILE, MatchStatistics, SfmJob, SfmPhase
from sfmttr.utils import child_process

TICK_S = 0.2
"""The caller hears from us at least this often, so that it can cancel."""

_TAIL_LINES = 3
_COUNT_EVERY_S = 0.6
_COUNTS = {SfmPhase.MATCHING.value: "SELECT count(*) FROM two_view_geometries"}
"""What is counted in the database during stages that the child cannot follow itself."""


@dataclass(frozen=True)
class StageProgress:
    """What the child is doing."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Outcome:
    """How the child ended."""

    ok: bool
    timed_out: bool
    statistics: MatchStatistics
    failure: str
    """One line on why it failed, empty when it did not."""


def worker_command(job_file: Path) -> list[str]:
    """The child's command line (tests replace it by children that misbehave)."""
    return [sys.executable, "-m", "sfmttr.sfm.worker", str(job_file)]


def run_job(job: SfmJob, workspace: Path, report: Callable[[StageProgress], None], hard_limit_s: float) -> Outcome:
    """Run `job` to its end, at most `hard_limit_s`.

    `report` is called at least every `TICK_S` seconds; what it raises (a cancel) ends the child and passes through.
    Files of the job are in `workspace`, its results in `job.output`.
    """
    output = Path(job.output)
    output.mkdir(parents=True, exist_ok=True)
    job_file, log_file = workspace / JOB_FILE, workspace / LOG_FILE
    write_json(job_file, job)
    with log_file.open("wb") as log:
        child = child_process.start(worker_command(job_file), log)
        try:
            timed_out = _follow(child, job.database, report, time.monotonic() + hard_limit_s)
        finally:
            child_process.kill(child)
    statistics = MatchStatistics.read(output)
    failure = "" if child.returncode == 0 else _failure(child.returncode, timed_out, statistics, log_file)
    return Outcome(child.returncode == 0, timed_out, statistics, failure)


def _follow(
    child: subprocess.Popen[bytes], database: str, report: Callable[[StageProgress], None], deadline: float
) -> bool:
    """Pass the child's progress on until it ends or the time is up (True)."""
    lines = child_process.lines_of(child.stdout)
    last, counted_at = StageProgress(SfmPhase.START, 0, 0), time.monotonic()
    while True:
        report(last)
        if time.monotonic() > deadline:
            return True
        try:
            line = lines.get(timeout=TICK_S)
        except queue.Empty:
            if last.stage in _COUNTS and time.monotonic() > counted_at + _COUNT_EVERY_S:
                last, counted_at = _counted(last, database), time.monotonic()
            continue
        if line is None:
            # End of file is not yet the end of the process; a child that closes its output and hangs is caught here.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
            return child.returncode is None
        last = _parse(line) or last


def _counted(progress: StageProgress, database: str) -> StageProgress:
    """The stage's progress by its rows in the database; unchanged while that is locked or not there yet."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(database).as_uri()}?mode=ro", uri=True, timeout=0.05)
        ) as connection:
            count = int(connection.execute(_COUNTS[progress.stage]).fetchone()[0])
    except sqlite3.Error:
        return progress
    return StageProgress(progress.stage, min(count, progress.total), progress.total)


def _parse(line: bytes) -> StageProgress | None:
    """One line of progress; None for anything else that found its way into the pipe."""
    try:
        stage, done, total = json.loads(line)
        return StageProgress(str(stage), int(done), int(total))
    except (ValueError, TypeError):
        return None


def _failure(returncode: int, timed_out: bool, statistics: MatchStatistics, log_file: Path) -> str:
    if statistics.error:
        return statistics.error
    if timed_out:
        return "out of time"
    text = log_file.read_text(encoding="utf-8", errors="replace")
    # Native stack traces ("@ 0x...") say nothing to a reader; what stands before them does.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("@", "***"))]
    how = f"ended by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"the process crashed ({how})" + (f": {' / '.join(lines[-_TAIL_LINES:])}" if lines else "")
