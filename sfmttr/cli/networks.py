"""`sfmttr networks`: list the networks that can be refined. Imports no torch, so that it is instant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfmttr.networks import NetworkSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(command=run)
    parser.add_argument("--weights-dir", type=Path, help="folder to look for weights in first")


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    from sfmttr import networks

    print_networks(networks.describe_all(options.weights_dir))
    return 0


def print_networks(summaries: tuple[NetworkSummary, ...]) -> None:
    """Print name, size, kind and whether the weights are on this machine, then license and description.

    Networks of this package come first, then models of the Hugging Face Hub.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    width = max(len(summary.info.name) for summary in summaries)
    own = [summary for summary in summaries if summary.model is None]
    hub = [summary for summary in summaries if summary.model is not None]
    for title, group in (("Networks of this package", own), ("Models of the Hugging Face Hub, by short names", hub)):
        console.print(f"[bold]{title}[/]", highlight=False)
        for summary in group:
            info = summary.info
            status = "weights found" if summary.weights_available else "not downloaded"
            line = f"  {info.name:<{width}} {summary.parameters / 1e6:>7.2f} M  {info.kind:<16}  {status}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            details = Text(f"{info.licence} · {info.description}", style="dim")
            console.print(Padding(details, (0, 0, 0, 6)))
        console.print()
    console.print(
        "Any other depth model of the Hub: --network hf:ORG/NAME, or hf:ORG/NAME@REVISION. A model on this disk: "
        "--network FOLDER, the folder that holds its config.json and model.safetensors.",
        highlight=False,
        markup=False,
    )
