"""Depth networks: the contract (`base`), the names (`registry`), where weights come from (`weights`), and one adapter
a file. `hf` is the adapter of all that the Hugging Face Hub has, `hub` gets their files."""

from sfmttr.networks.registry import (
    NetworkSummary,
    build,
    built_in,
    describe,
    describe_all,
    info,
    load,
    load_refined,
    names,
    refined_info,
)

__all__ = [
    "NetworkSummary",
    "build",
    "built_in",
    "describe",
    "describe_all",
    "info",
    "load",
    "load_refined",
    "names",
    "refined_info",
]
