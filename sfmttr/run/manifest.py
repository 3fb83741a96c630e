"""The run folder: a manifest that says what was made from what, atomic writes, and JSON that can be published."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import sfmttr
from sfmttr.errors import RunFolderError
from sfmttr.io.json_files import read_json

SCHEMA = 1
MANIFEST = "manifest.json"
REPORT = "report.json"
"""What a finished run found."""


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    name: str
    key: str
    """`cache_key` that it was made with."""
    finished: str
    """ISO 8601, UTC."""
    seconds: float
    files: Mapping[str, int]
    """Size in bytes by path, relative to the run folder."""


@dataclass(frozen=True)
class Manifest:
    """What a run folder holds, and what it was made with."""

    schema: int
    sfmttr: str
    """Version of this package."""
    platform: str
    """Operating system and processor family."""
    versions: Mapping[str, str]
    """Of Python and of the libraries that results depend on."""
    seed: int | None
    config: Any
    """The whole configuration, in plain types."""
    stages: tuple[StageRecord, ...]
    """In the order in which they finished."""

    def stage(self, name: str) -> StageRecord | None:
        return next((record for record in self.stages if record.name == name), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def fresh_manifest() -> Manifest:
    libraries = {name: _version(name) for name in ("torch", "pycolmap", "numpy")}
    versions = {"python": platform.python_version(), **libraries}
    system = f"{platform.system()} {platform.machine()}"
    return Manifest(SCHEMA, sfmttr.__version__, system, versions, None, None, ())


def _stage_from_plain(plain: Mapping[str, Any]) -> StageRecord:
    record = StageRecord(**plain)
    for name in record.files:
        path = PurePath(name)
        # These files get deleted when the stage is invalidated: a manifest must not reach outside of its folder.
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} lies outside of the run folder")
    return record


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder, without locking it. Raises RunFolderError when there is none that can be used."""
    path = folder / MANIFEST
    try:
        plain = read_json(path)
    except RunFolderError as error:
        if not path.is_file():
            raise
        raise RunFolderError(f"{path} is damaged; choose another folder, or delete this one") from error
    try:
        schema = int(plain["schema"])
        if schema > SCHEMA:
            raise RunFolderError(
                f"{folder} was made by a newer sfmttr ({plain.get('sfmttr')}); update sfmttr or choose another folder"
            )
        stages = tuple(_stage_from_plain(stage) for stage in plain["stages"])
        return Manifest(**{**plain, "schema": schema, "stages": stages})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); choose another folder, or delete this one") from error
