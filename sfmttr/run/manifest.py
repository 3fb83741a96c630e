"""The manifest of a run folder: its finished stages, with their settings, library versions and files."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import sfmttr
from sfmttr.io.json_files import read_model

SCHEMA = 1
MANIFEST = "manifest.json"
REPORT = "report.json"
"""File with the results of a finished run."""


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    name: str
    key: str
    """`cache_key` of the stage's inputs and settings."""
    finished: str
    """ISO 8601, UTC."""
    seconds: float
    files: Mapping[str, int]
    """Size in bytes by path, relative to the run folder."""

    def __post_init__(self) -> None:
        for name in self.files:
            path = PurePath(name)
            # These files get deleted when the stage is invalidated: a manifest must not reach outside of its folder.
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} lies outside of the run folder")


@dataclass(frozen=True)
class Manifest:
    """Contents of a run folder and the settings they were made with."""

    schema: int
    sfmttr: str
    """Version of this package."""
    platform: str
    """Operating system and processor family."""
    versions: Mapping[str, str]
    """Versions of Python and of the libraries that results depend on."""
    seed: int | None
    config: Any
    """The whole configuration, in plain types."""
    stages: tuple[StageRecord, ...]
    """In the order in which they finished."""

    def stage(self, name: str) -> StageRecord | None:
        """Return the record of a stage, or None when it is not finished."""
        return next((record for record in self.stages if record.name == name), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def fresh_manifest() -> Manifest:
    """Return a manifest without stages, with the versions that are installed here."""
    libraries = {name: _version(name) for name in ("torch", "pycolmap", "numpy")}
    versions = {"python": platform.python_version(), **libraries}
    system = f"{platform.system()} {platform.machine()}"
    return Manifest(SCHEMA, sfmttr.__version__, system, versions, None, None, ())


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a run folder, without locking the folder.

    Raises RunFolderError when there is none, or it is damaged or from a newer version.
    """
    advice = "choose another folder, or delete this one"
    return read_model(folder / MANIFEST, Manifest, newest_schema=SCHEMA, advice=advice)
