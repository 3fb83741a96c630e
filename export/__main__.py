"""Command line: `python -m export RUN`, and `sfmttr export RUN`, which passes its own name as `program`.

Exit codes: 0 done; 2 user error, message on stderr in one line; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sfmttr.cli.exit_codes import exit_code
from sfmttr.cli.parser import Parser

from .spec import DEFAULT_OPSET, KIT, OPSETS, Variant


def main(arguments: Sequence[str] | None = None, program: str = "export") -> int:
    """Export one run and return the exit code. `program` is the command in usage and messages."""
    options = _parse(arguments, program)
    return exit_code(program, lambda: _export(options), "files that were written are complete.")


def _variants(text: str) -> tuple[Variant, ...]:
    """Parse a list: `fp32,int8` -> (Variant.FP32, Variant.INT8)."""
    try:
        chosen = {Variant(name.strip()) for name in text.split(",")}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of {', '.join(Variant)}") from None
    return tuple(variant for variant in Variant if variant in chosen)


def _opset(text: str) -> int:
    if not text.isdigit() or int(text) not in OPSETS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {OPSETS[0]} to {OPSETS[-1]}")
    return int(text)


def _parse(arguments: Sequence[str] | None, program: str) -> argparse.Namespace:
    parser = Parser(prog=program, description="Export the refined network of a run to verified ONNX files.")
    parser.add_argument("run", type=Path, help="run folder of a finished `sfmttr refine`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="export folder (default: RUN/export)")
    parser.add_argument(
        "--variants",
        type=_variants,
        default=tuple(Variant),
        help="number formats, comma-separated (default: fp32,fp16,int8)",
    )
    parser.add_argument(
        "--core", action="store_true", help="also export the network alone: float NCHW input, for converters"
    )
    parser.add_argument("--opset", type=_opset, default=DEFAULT_OPSET, help="ONNX operator set (default: %(default)s)")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device to verify and time on (default: %(default)s)"
    )
    parser.add_argument(
        "--known-depth",
        nargs=4,
        type=float,
        metavar=("FRAME", "ROW", "COLUMN", "METRES"),
        help="measured depth at one pixel of one frame (counted from 0): converts the output to meters",
    )
    parser.add_argument(
        "--camera-height",
        type=float,
        metavar="METRES",
        help="height of the camera above the ground: converts the output to meters",
    )
    parser.add_argument("--no-kit", action="store_true", help=f"write the models only, no {KIT}")
    parser.add_argument(
        "--bundle-runtime",
        action="store_true",
        help="include the browser runtime in the kit (about 10 MB), for offline use",
    )
    options = parser.parse_args(arguments)
    if options.known_depth is not None and not all(number.is_integer() for number in options.known_depth[:3]):
        parser.error("argument --known-depth: FRAME, ROW and COLUMN must be whole numbers")
    return options


def _export(options: argparse.Namespace) -> int:
    # After parsing: torch takes seconds to import.
    from sfmttr.cli.console import progress_bars

    from .exporter import FOLDER, ExportConfig, export_run, pack
    from .metric_scale import KnownDepth
    from .report import print_report

    known_depth = None
    if options.known_depth is not None:
        frame, row, column, metres = options.known_depth
        known_depth = KnownDepth(int(frame), int(row), int(column), metres)
    config = ExportConfig(
        variants=options.variants,
        core=options.core,
        opset=options.opset,
        device=options.device,
        known_depth=known_depth,
        camera_height_m=options.camera_height,
    )
    with progress_bars() as bars:
        report = export_run(options.run, options.out, config, bars.on_progress)
    print_report(report, options.out or options.run / FOLDER)
    if not options.no_kit:
        print(f"Kit: {pack(options.run, options.out, bundle_runtime=options.bundle_runtime)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
