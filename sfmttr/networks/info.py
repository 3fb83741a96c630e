"""What users are told about a network before they choose. Needs no torch, so that listing is instant."""

from __future__ import annotations

from dataclasses import dataclass

from sfmttr.types import DepthKind


@dataclass(frozen=True)
class NetworkInfo:
    """What users are told before they choose."""

    name: str
    kind: DepthKind
    licence: str
    """SPDX identifier or the authors' words, for the weights."""
    source: str
    """Where the authors publish it."""
    description: str
    """One line: what it was trained on and how."""
    copyright: str = ""
    """The notice that goes with the licence, as its holders word it."""
