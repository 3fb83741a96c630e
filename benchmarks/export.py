"""Exported files against the torch network: size, differences, held-out error and time, and what is asked of them.

    python -m benchmarks.export [--clip drive_0002] [--networks bundled ...] [--preset default] [--out results/export]

Prints one row a file and, below, whether each promise is kept; writes `export.json`. Runs are kept in --out and
resumed. Times are of one picture on one CPU thread, everything included: "frame" is a frame of the clip, "working" one
that has the network's own size already. They are only worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from export.exporter import ExportConfig, export_run
from export.report import ExportReport
from export.spec import Variant
from sfmttr.config import OutputConfig, Preset, RunConfig
from sfmttr.io.json_files import write_json
from sfmttr.run import pipeline
from tools.clips import CLIPS, WEIGHTS

NETWORKS = ("bundled", "meter-xxs-kitti", "rt-monodepth-s")
CONVOLUTIONAL = ("bundled", "rt-monodepth-s")
"""Networks without attention, whose int8 files have to be faster, too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", choices=list(CLIPS), default="drive_0002")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--preset", choices=[str(preset) for preset in Preset], default=str(Preset.DEFAULT))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/export"))
    options = parser.parse_args()
    reports = {network: _export(network, options) for network in options.networks}
    print(
        f"{'network':<16} {'file':<20} {'MB':>6} {'share':>6} {'max diff':>9} {'mean diff':>9} {'AbsRel':>7}", end=" "
    )
    print(f"{'change':>8} {'frame ms':>9} {'working ms':>10}")
    for report in reports.values():
        _print_rows(report)
    for report in reports.values():
        for promise, kept in _promises(report).items():
            print(f"{'kept  ' if kept else 'BROKEN'} {report.model.network:<16} {promise}")
    write_json(options.out / "export.json", reports)


def _export(network: str, options: argparse.Namespace) -> ExportReport:
    run = options.out / f"{options.clip}-{network}-{options.preset}"
    config = RunConfig(
        network=network,
        weights_dir=WEIGHTS,
        preset=Preset(options.preset),
        output=OutputConfig(pictures=False, clouds=False),
    )
    pipeline.run(CLIPS[options.clip].path, run, config)
    return export_run(run, config=ExportConfig(core=True))


def _print_rows(report: ExportReport) -> None:
    name = report.model.network
    frame, working = (report.latency[size].median_ms for size in ("frame", "working"))
    for torch_name in (key for key in frame if key.startswith("torch")):
        error = "-" if report.held_out is None else f"{report.held_out.torch.abs_rel:.4f}"
        times = f"{frame[torch_name]:>9.1f} {working[torch_name]:>10.1f}"
        print(f"{name:<16} {torch_name:<20} {'':>6} {'':>6} {'':>9} {'':>9} {error:>7} {'':>8} {times}")
    for variant, file in report.variants.items():
        error = "-" if file.held_out is None else f"{file.held_out.abs_rel:.4f}"
        change = "-" if file.abs_rel_change is None else f"{file.abs_rel_change:+.2%}"
        print(
            f"{name:<16} {variant:<20} {file.bytes / 1e6:>6.2f} {file.share_of_fp32_bytes:>6.0%} "
            f"{file.max_relative:>9.1e} {file.mean_relative:>9.1e} {error:>7} {change:>8} "
            f"{frame[variant]:>9.1f} {working[variant]:>10.1f}"
        )


def _promises(report: ExportReport) -> dict[str, bool]:
    """Return the targets of an export with its figures, and whether it reached them."""
    fp32, int8 = report.variants[Variant.FP32], report.variants[Variant.INT8]
    promises = {
        f"fp32 within 1e-4 of torch at every size ({fp32.max_relative:.1e})": fp32.max_relative <= 1e-4,
        f"int8 at most 30 % of fp32's size ({int8.share_of_fp32_bytes:.1%})": int8.share_of_fp32_bytes <= 0.3,
    }
    if int8.abs_rel_change is not None:
        promises[f"int8 within 5 % of fp32's AbsRel ({int8.abs_rel_change:+.1%})"] = int8.abs_rel_change <= 0.05
    for size, latency in report.latency.items():
        faster = latency.median_ms["torch"] / latency.median_ms["fp32"]
        promises[f"fp32 at least 1.3 times as fast as torch eager, {size} size ({faster:.2f})"] = faster >= 1.3
        if report.model.network in CONVOLUTIONAL:
            faster = latency.median_ms["fp32"] / latency.median_ms["int8"]
            promises[f"int8 at least 2 times as fast as fp32, {size} size ({faster:.2f})"] = faster >= 2
    return promises


if __name__ == "__main__":
    main()
