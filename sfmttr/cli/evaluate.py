"""`sfmttr evaluate RUN`: compare a finished run with ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from sfmttr.cli.parser import add_ground_truth, ground_truth_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(command=run)
    parser.add_argument("run", type=Path, help="run folder of a finished `refine`")
    add_ground_truth(parser.add_argument_group("ground truth"), required=True)


def run(options: argparse.Namespace) -> int:
    """Write and print the comparison."""
    from sfmttr.cli import console
    from sfmttr.run.evaluate import evaluate_run

    ground_truth = ground_truth_config(options)
    assert ground_truth is not None, "argparse requires it"
    console.print_evaluation(evaluate_run(options.run, ground_truth))
    return 0
