"""The command `sfmttr`, also `python -m sfmttr`: parse the arguments and run one command.

Each command is a module with `add_arguments(parser)` and `run(options)`. They import torch when they run, not before:
it takes seconds, and `--help` should not.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import sfmttr
from sfmttr.cli import evaluate, export, kitti, networks, page, refine
from sfmttr.cli.exit_codes import exit_code
from sfmttr.cli.parser import Parser

_KITTI = "evaluate-kitti"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # A data set takes other options than a run folder does. A run folder of that name is given as ./kitti.
    if given[:2] == ["evaluate", "kitti"]:
        given[:2] = [_KITTI]
    parser = build_parser()
    options, unknown = parser.parse_known_args(given)
    if hasattr(options, "forwarded"):
        options.forwarded = unknown
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    return exit_code("sfmttr", lambda: int(options.command(options)), "run the same command again to resume.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `command` in its result is the function to call with that result."""
    parser = Parser(prog="sfmttr", description="Refine a depth network on one clip, with structure-from-motion.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {sfmttr.__version__}")
    parser.add_argument("--verbose", action="store_true", help="show log messages")
    commands = parser.add_subparsers(required=True, metavar="refine|evaluate|networks|export|page")

    refine.add_arguments(commands.add_parser("refine", help="refine a network on a clip; write depth and the network"))
    evaluate.add_arguments(
        commands.add_parser(
            "evaluate", help="compare a finished run with ground truth; `evaluate kitti` runs the paper's experiment"
        )
    )
    kitti.add_arguments(
        commands.add_parser(_KITTI, prog="sfmttr evaluate kitti", description="Run the paper's experiment on KITTI.")
    )
    networks.add_arguments(commands.add_parser("networks", help="list the networks that can be refined"))
    # Their options belong to packages that may not be installed: all arguments are passed on, --help too.
    export.add_arguments(
        commands.add_parser("export", add_help=False, help="export the network of a finished run to ONNX")
    )
    page.add_arguments(commands.add_parser("page", help="start the web page"))
    return parser
