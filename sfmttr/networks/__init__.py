"""Depth networks: the contract (`base`), the names (`registry`), where weights come from (`weights`), and one adapter
a file."""

from sfmttr.networks.registry import (
    NetworkSummary,
    build,
    describe_all,
    info,
    load,
    load_refined,
    names,
)

__all__ = ["NetworkSummary", "build", "describe_all", "info", "load", "load_refined", "names"]
