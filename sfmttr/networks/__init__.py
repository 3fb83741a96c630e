"""Depth networks: contract (`base`), names and their weights files (`catalog`), loading (`lookup`, `weights`),
prediction (`inference`), one adapter a file (`models`), and any model of the Hugging Face Hub (`huggingface`)."""

from sfmttr.networks.lookup import (
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
