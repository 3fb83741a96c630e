"""The listing of networks on the command line. Imports no torch, so that it is instant."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sfmttr.networks import NetworkSummary


def print_networks(summaries: tuple[NetworkSummary, ...]) -> None:
    """Name, size, kind, whether the weights are here; below each its licence and what it is. Those of the Hub after
    this package's own."""
    console = Console()
    width = max(len(each.info.name) for each in summaries)
    ours = [each for each in summaries if each.model is None]
    hub = [each for each in summaries if each.model is not None]
    for title, group in (("Networks of this package", ours), ("Models of the Hugging Face Hub, by short names", hub)):
        console.print(f"[bold]{title}[/]", highlight=False)
        for each in group:
            here = "weights here" if each.weights_here else "not here yet"
            line = f"  {each.info.name:<{width}} {each.parameters / 1e6:>7.2f} M  {each.info.kind:<16}  {here}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            words = Text(f"{each.info.licence} · {each.info.description}", style="dim")
            console.print(Padding(words, (0, 0, 0, 6)))
        console.print()
    console.print(
        "Any other depth model of the Hub: --network hf:ORG/NAME, also hf:ORG/NAME@REVISION. One on this disk: "
        "--network FOLDER, the folder that holds its config.json and model.safetensors.",
        highlight=False,
        markup=False,
    )
