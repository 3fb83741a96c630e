"""Argument parsing shared by the commands. Defaults live in `sfmttr.config` only."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sfmttr.cli.exit_codes import USAGE_ERROR
from sfmttr.config import GroundTruthConfig

_TRUTH = GroundTruthConfig(Path())


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see --help)\n")


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the `type` of an option that takes an integer of at least `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    return parse


def comma_separated(text: str) -> list[str]:
    """Split "a,b" into its items; the `type` of an option that takes a list."""
    return [item for item in text.replace(",", " ").split() if item]


def add_ground_truth(group: argparse._ArgumentGroup, *, required: bool) -> None:
    """Add the options that `ground_truth_config` reads."""
    group.add_argument("--ground-truth", type=Path, required=required, metavar="DIR", help="16-bit PNG depth maps")
    group.add_argument(
        "--ground-truth-scale",
        type=float,
        default=_TRUTH.scale,
        metavar="SCALE",
        help="depth in meters = value / SCALE (default: the scale that the files record, else 1000: millimeters)",
    )
    group.add_argument(
        "--protocol",
        choices=["kitti", "indoor", "plain"],
        default=_TRUTH.protocol,
        help="evaluation protocol (default: %(default)s)",
    )
    group.add_argument(
        "--no-median-scaling", action="store_true", help="evaluate metric networks without median scaling"
    )


def ground_truth_config(options: argparse.Namespace) -> GroundTruthConfig | None:
    """Return the ground truth that the parsed options name; None without `--ground-truth`."""
    if options.ground_truth is None:
        return None
    return GroundTruthConfig(
        options.ground_truth, options.ground_truth_scale, options.protocol, not options.no_median_scaling
    )
