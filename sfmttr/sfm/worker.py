"""Worker process of structure-from-motion: `python -m sfmttr.sfm.worker JOB.json`.

Writes results into the job's output folder, progress as JSON lines to stdout, and all library output to stderr, which
the parent redirects to a log file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from sfmttr.io.json_files import read_model
from sfmttr.sfm import database, mapping, model_arrays
from sfmttr.sfm.database import Report
from sfmttr.sfm.protocol import Mapper, MatchStatistics, SfmJob, SfmPhase
from sfmttr.utils.child_process import die_with_parent, take_stdout

# Damaged files ask for any amount of memory.
_IMPORT_MEMORY_BYTES = 4 * 2**30
"""Memory allowed for reading a given model, in addition to a multiple of its size."""


def run_reconstruction(job: SfmJob, report: Report) -> None:
    """Extract and match features, then map. Statistics are also written before mapping, in case it fails."""
    output, start = Path(job.output), time.monotonic()
    cpu_start = time.process_time()
    clock: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def lap(stage: str) -> None:
        clock[stage] = time.monotonic() - start - sum(clock.values())
        cpu[stage] = time.process_time() - cpu_start - sum(cpu.values())

    database.extract(job, report)
    lap("features")
    pairs = database.match(job, report)
    lap("matching")
    statistics = replace(database.match_statistics(job, pairs), seconds=clock, cpu_seconds=cpu)
    statistics.write(output)
    left_s = job.time_limit_s - (time.monotonic() - start)
    if not statistics.pairs_verified:
        models = []
    elif job.settings.mapper == Mapper.GLOBAL:
        models = mapping.map_global(job, report)
    else:
        models = mapping.map_incremental(job, left_s, report)
    if models:
        model = mapping.final_bundle_adjustment(model_arrays.largest(models), job)
        raw = mapping.color_points(model, model_arrays.raw_model(model), job)
        model.write_binary(output)
        raw.write(output)
    lap("mapping")
    replace(statistics, model_sizes=tuple(model.num_reg_images() for model in models)).write(output)


def run_import(job: SfmJob, report: Report) -> None:
    """Read a model in COLMAP's text or binary format and write it in binary format."""
    report(SfmPhase.IMPORT, 0, 1)
    output = Path(job.output)
    limit_memory(sum(file.stat().st_size for file in Path(job.model).iterdir() if file.is_file()))
    try:
        model = model_arrays.read_model(job.model)
    except (ValueError, RuntimeError, IndexError, OSError, MemoryError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        MatchStatistics(error=f"the model in {job.model} cannot be read: {reason}").write(output)
        sys.exit(1)
    model.write_binary(output)
    model_arrays.raw_model(model).write(output)


def limit_memory(model_bytes: int) -> None:
    """Limit the memory of this process to what a model of this size may need."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _IMPORT_MEMORY_BYTES + 40 * model_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# --------------------------------------------------------------------------------------------- process


def main(arguments: list[str]) -> None:
    events = take_stdout()
    die_with_parent(os.getppid())
    lock = threading.Lock()

    def report(stage: str, done: int, total: int) -> None:
        with lock:
            events.write(json.dumps([stage, done, total]) + "\n")

    job = read_model(Path(arguments[0]), SfmJob)
    mapping.configure_process(job.seed)
    {"reconstruct": run_reconstruction, "import": run_import}[job.task](job, report)


if __name__ == "__main__":
    main(sys.argv[1:])
