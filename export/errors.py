"""What can go wrong in an export, beside the errors of `sfmttr.errors`."""

from __future__ import annotations

from sfmttr.errors import SfmttrError


class ExportError(SfmttrError):
    """The run cannot be exported."""


class ParityError(ExportError):
    """The exported file does not give what the network gives. The message says what differed, where, by how much."""
