"""SfM-TTR: fine-tune a single-view depth network on one clip, with structure-from-motion as the teacher."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["RunConfig", "SfmttrError", "load_refined", "refine_clip"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds to import, and `--help` does not need it."""
    if name == "refine_clip":
        from sfmttr.api import refine_clip

        return refine_clip
    if name == "load_refined":
        from sfmttr.networks import load_refined

        return load_refined
    if name == "RunConfig":
        from sfmttr.config import RunConfig

        return RunConfig
    if name == "SfmttrError":
        from sfmttr.errors import SfmttrError

        return SfmttrError
    raise AttributeError(f"module 'sfmttr' has no attribute {name!r}")
