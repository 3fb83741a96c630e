"""Run one job in a worker process, so that a native abort, a timeout or a cancel ends only the worker."""

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
"""Longest interval between two calls of the progress callback, which may cancel."""

_TAIL_LINES = 3
_COUNT_EVERY_S = 0.6
_COUNTS = {SfmPhase.MATCHING.value: "SELECT count(*) FROM two_view_geometries"}
"""Row counts that measure progress of phases for which COLMAP has no callback."""


@dataclass(frozen=True)
class StageProgress:
    """Progress of the worker."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Outcome:
    """Result of a worker process."""

    ok: bool
    timed_out: bool
    statistics: MatchStatistics
    failure: str
    """Reason for a failure in one line; empty on success."""


def worker_command(job_file: Path) -> list[str]:
    """Return the worker's command line. Tests replace it with misbehaving workers."""
    return [sys.executable, "-m", "sfmttr.sfm.worker", str(job_file)]


def run_job(job: SfmJob, workspace: Path, report: Callable[[StageProgress], None], hard_limit_s: float) -> Outcome:
    """Run `job` in a worker for at most `hard_limit_s` seconds.

    `report` is called at least every `TICK_S` seconds; its exceptions (a cancel) kill the worker and pass through.
    Job files are in `workspace`, results in `job.output`.
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
    """Forward progress until the worker ends; return whether the time ran out."""
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
            # End of file does not mean that the process ended; this catches a worker that closes its output and hangs.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
            return child.returncode is None
        last = _parse(line) or last


def _counted(progress: StageProgress, database: str) -> StageProgress:
    """Return progress by rows in the database; unchanged while it is locked or missing."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(database).as_uri()}?mode=ro", uri=True, timeout=0.05)
        ) as connection:
            count = int(connection.execute(_COUNTS[progress.stage]).fetchone()[0])
    except sqlite3.Error:
        return progress
    return StageProgress(progress.stage, min(count, progress.total), progress.total)


def _parse(line: bytes) -> StageProgress | None:
    """Parse one line of progress; None for any other output in the pipe."""
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
    # Skip native stack traces ("@ 0x..."); the lines before them name the reason.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("@", "***"))]
    how = f"ended by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"the process crashed ({how})" + (f": {' / '.join(lines[-_TAIL_LINES:])}" if lines else "")
