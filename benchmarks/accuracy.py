"""Accuracy of every column against ground truth, and the seconds that refinement took.

    python -m benchmarks.accuracy [--clips drive_0002 ...] [--networks meter-xxs-kitti ...] [--presets paper default]
                                  [--hold-out-frames 8] [--seeds 0 1 2] [--out results/accuracy]

Prints one row a run and column, and writes `accuracy.json`. Runs are kept in --out and resumed; structure-from-motion
is shared between them, so that presets are compared on the same points. Held-out points are
printed beside ground truth: settings are to be chosen on them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfmttr.config import OutputConfig, Preset, RunConfig, SplitConfig
from sfmttr.run import pipeline
from sfmttr.run.report import read_report
from tools.clips import CLIPS, WEIGHTS

NETWORKS = {
    "drive_0002": ("meter-xxs-kitti", "rt-monodepth-s", "bundled"),
    "redkitchen": ("meter-xxs-nyu", "rt-monodepth-s", "bundled"),
    "fountain": ("meter-xxs-kitti", "rt-monodepth-s", "bundled"),
    "street": ("bundled",),
    "room": ("bundled",),
}


def main() -> None:
    options = _parse()
    rows = []
    print(f"{'clip':<11} {'network':<16} {'preset':<8} {'seed':>4} {'reference':<22} {'column':<13}", end=" ")
    print(f"{'AbsRel':>7} {'RMSE':>7} {'d1':>6} {'steps':>6} {'best':>5} {'refine s':>8}")
    for clip in options.clips:
        for network in options.networks or NETWORKS[clip]:
            for preset in options.presets:
                for seed in options.seeds:
                    rows += _measure(clip, network, preset, seed, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "accuracy.json").write_text(json.dumps(rows, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", choices=list(CLIPS), default=["drive_0002", "redkitchen"])
    parser.add_argument("--networks", nargs="+", help="default: those that suit the clip")
    parser.add_argument("--presets", nargs="+", default=["paper", "default"], choices=[str(p) for p in Preset])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--hold-out-frames", type=int, default=0, help="length of the blocks of frames held out")
    parser.add_argument("--steps", type=int, help="instead of the presets' numbers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accuracy"))
    parser.add_argument("--again", action="store_true", help="forget earlier runs (not structure-from-motion)")
    return parser.parse_args()


def _measure(clip: str, network: str, preset: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One run, printed and given as rows."""
    config = RunConfig(
        network=network,
        weights_dir=WEIGHTS,
        preset=Preset(preset),
        steps=options.steps,
        seed=seed,
        split=SplitConfig(hold_out_frames=options.hold_out_frames),
        output=OutputConfig(pictures=False, clouds=False),
        ground_truth=CLIPS[clip].truth,
    )
    out = options.out / f"{clip}-{network}-{preset}-{seed}-{options.hold_out_frames}"
    if options.again:
        shutil.rmtree(out, ignore_errors=True)
    pipeline.run(CLIPS[clip].path, out, config)
    report = read_report(out)
    refinement = None if report.refinement is None else asdict(report.refinement)
    rows = [
        {
            "clip": clip,
            "network": network,
            "preset": preset,
            "seed": seed,
            "reference": reference,
            "column": str(column),
        }
        | {name: value for name, value in asdict(errors).items() if name != "by_distance"}
        | {"refinement": refinement, "timings_s": report.timings_s}
        for reference, comparison in vars(report.comparison).items()
        if comparison is not None
        for column, errors in comparison.columns.items()
    ]
    for row in rows:
        _print(row)
    return rows


def _print(row: dict[str, Any]) -> None:
    refinement = row["refinement"] or {"steps": 0, "best_step": 0, "seconds": 0.0}
    print(
        f"{row['clip']:<11} {row['network']:<16} {row['preset']:<8} {row['seed']:>4} {row['reference'][:22]:<22} "
        f"{row['column']:<13} {row['abs_rel']:>7.4f} {row['rmse']:>7.3f} {row['a1']:>6.3f} "
        f"{refinement['steps']:>6} {refinement['best_step']:>5} {refinement['seconds']:>8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
