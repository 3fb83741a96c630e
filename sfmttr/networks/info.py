"""Facts about a network that a user needs before choosing one. Needs no torch, so that listing is instant."""

from __future__ import annotations

from dataclasses import dataclass

from sfmttr.types import DepthKind


@dataclass(frozen=True)
class NetworkInfo:
    """Name, kind of output and terms of a network."""

    name: str
    kind: DepthKind
    licence: str
    """License of the weights: SPDX identifier, or the authors' words."""
    source: str
    """Address at which the authors publish it."""
    description: str
    """One line: training data and supervision."""
    copyright: str = ""
    """Copyright notice, as its holders word it."""
