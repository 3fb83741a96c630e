"""The whole command against stock settings: seconds by stage, and peak memory.

    python -m benchmarks.pipeline [--clip drive_0002] [--network meter-xxs-kitti] [--out results/pipeline]

"stock": pycolmap's own defaults (SIFT, sequential matching, incremental mapping), then preset paper. "default": what
`python -m sfmttr refine` does. Both end to end from the same video, in processes of their own, nothing cached. Peak
memory is the largest resident set of any one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sfmttr.cli.exit_codes import NOT_REFINED
from sfmttr.run.report import read_report
from tools.clips import CLIPS, WEIGHTS

STOCK_SFM = """
import sys, pycolmap
images, work = sys.argv[1:]
pycolmap.logging.minloglevel = 2
single = pycolmap.CameraMode.SINGLE
pycolmap.extract_features(work + "/stock.db", images, camera_mode=single)
pycolmap.match_sequential(work + "/stock.db")
models = pycolmap.incremental_mapping(work + "/stock.db", images, work)
best = max(models.values(), key=lambda model: model.num_reg_images())
import pathlib; pathlib.Path(work, "best").mkdir(); best.write(work + "/best")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", choices=list(CLIPS), default="drive_0002")
    parser.add_argument("--network", default="meter-xxs-kitti")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pipeline"))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    os.environ["SFMTTR_CACHE"] = str((options.out / "cache").resolve())  # an empty one: nothing is remembered
    rows = {"default": _default(options), "stock": _stock(options)}
    (options.out / "pipeline.json").write_text(json.dumps(rows, indent=2) + "\n")
    for name, row in rows.items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["timings_s"].items())
        print(f"{name:<8} {row['seconds']:7.1f} s, peak {row['peak_gb']:.2f} GB   ({stages})")
    print(f"default takes {rows['default']['seconds'] / rows['stock']['seconds']:.2f} of stock's time")


def _refine(options: argparse.Namespace, out: Path, *more: str) -> dict[str, Any]:
    """Run the command line; its report's timings, the wall clock and the peak so far."""
    command = [sys.executable, "-m", "sfmttr", "refine", str(CLIPS[options.clip].path), "--network", options.network]
    started = time.perf_counter()
    code = subprocess.run([*command, "--weights-dir", str(WEIGHTS), "--out", str(out), *more]).returncode
    seconds = time.perf_counter() - started
    if code not in (0, NOT_REFINED):
        raise SystemExit(f"{out.name} ended with exit code {code}; there is nothing to compare.")
    report = read_report(out)
    if code == NOT_REFINED:  # stock settings end with two images now and then, on forward motion
        placed = f"{report.sfm.registered} of {report.sfm.total} frames"
        raise SystemExit(f"{out.name} was not refined ({placed} found their place): its time says nothing, run again.")
    return {"seconds": seconds, "timings_s": report.timings_s, "peak_gb": _peak_gb()}


def _default(options: argparse.Namespace) -> dict[str, Any]:
    return _refine(options, options.out / "default")


def _stock(options: argparse.Namespace) -> dict[str, Any]:
    """Stock structure-from-motion on the frames that the first run chose, then preset paper with that model."""
    frames = (options.out / "default" / "frames").resolve()
    started = time.perf_counter()
    images = options.out / "images"
    shutil.copytree(frames, images, ignore=shutil.ignore_patterns("*.json"))
    subprocess.run([sys.executable, "-c", STOCK_SFM, str(images), str(options.out)], check=True)
    sfm_s = time.perf_counter() - started
    row = _refine(options, options.out / "paper", "--preset", "paper", "--sfm", str(options.out / "best"))
    return {**row, "seconds": row["seconds"] + sfm_s, "timings_s": {**row["timings_s"], "stock sfm": sfm_s}}


def _peak_gb() -> float:
    """Largest resident set of any finished child process, in gigabytes (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
