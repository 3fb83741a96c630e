"""Errors of the export; they extend those of `sfmttr.errors`."""

from __future__ import annotations

from sfmttr.errors import SfmttrError


class ExportError(SfmttrError):
    """The run cannot be exported."""


class ParityError(ExportError):
    """An exported file differs from the torch network. The message says what differs, where, and by how much."""
