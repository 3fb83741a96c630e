"""`sfmttr evaluate kitti`: run the paper's experiment on KITTI."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfmttr.cli.parser import at_least, comma_separated
from sfmttr.errors import ConfigError
from sfmttr.kitti.config import SCORED, KittiConfig, KittiSplit, Setting

_DEFAULTS = KittiConfig(Path(), Path())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    c = _DEFAULTS
    parser.set_defaults(command=run)

    def add_list(flag: str, default: Sequence[str], **more: Any) -> None:
        shown = ",".join(default) or "all that are found"
        more["help"] = f"{more['help']} (default: {shown})"
        parser.add_argument(flag, type=comma_separated, nargs="+", default=[list(default)], **more)

    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="KITTI raw data, synced and rectified")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="DIR", help="annotated depth: train/, val/")
    parser.add_argument(
        "--split",
        choices=[str(split) for split in KittiSplit],
        default=str(c.split),
        help="frames to evaluate (default: %(default)s)",
    )
    add_list("--networks", c.networks, help="networks, see `sfmttr networks`")
    add_list("--objectives", c.objectives, help=f"objectives, out of {','.join(SCORED)}")
    add_list("--sequences", c.sequences, help="drives, by name or number", metavar="DRIVE")
    add_list(
        "--settings",
        c.settings,
        help="paper: train on the evaluated frames, as the paper does; ours: train on the drive as an ordinary clip",
    )
    parser.add_argument("--out", type=Path, default=c.out, help="output folder (default: %(default)s)")
    parser.add_argument("--sfm", type=Path, metavar="DIR", help="existing COLMAP models: DIR/DRIVE or DIR/DRIVE/sparse")
    parser.add_argument(
        "--sfm-time-limit",
        type=float,
        default=c.sfm.time_limit_s,
        metavar="S",
        help="seconds of structure-from-motion per drive (default: %(default)s)",
    )
    parser.add_argument("--steps", type=at_least(1), help="refinement steps (default: set by the preset)")
    parser.add_argument("--weights-dir", type=Path, help="folder to look for weights in first")
    parser.add_argument("--device", default=c.device, help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=c.seed, help="random seed (default: %(default)s)")


def kitti_config(options: argparse.Namespace) -> KittiConfig:
    """Return the configuration that the parsed options ask for. Raises `ConfigError` for an unknown setting."""

    def unique(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item for items in getattr(options, name) for item in items))

    unknown = [name for name in unique("settings") if name not in list(Setting)]
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]!r}: choose from {', '.join(Setting)}.")
    c = KittiConfig(options.raw, options.ground_truth)
    return replace(
        c,
        out=options.out,
        split=KittiSplit(options.split),
        networks=unique("networks"),
        objectives=unique("objectives"),
        settings=tuple(map(Setting, unique("settings"))),
        sequences=unique("sequences"),
        models=options.sfm,
        steps=options.steps,
        weights_dir=options.weights_dir,
        device=options.device,
        seed=options.seed,
        sfm=replace(c.sfm, time_limit_s=options.sfm_time_limit),
    )


def run(options: argparse.Namespace) -> int:
    """Run the experiment and print its table."""
    from sfmttr.cli import console
    from sfmttr.kitti import experiment

    config = kitti_config(options)
    with console.progress_bars() as bars:
        table = experiment.run_experiment(config, bars.on_progress)
    print(table.text(), end="")
    print(f"Written to {config.out}")
    return 0
