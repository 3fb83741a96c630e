"""Metadata of a model: `config.json`, `preprocessor_config.json` and the license in `README.md`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks.huggingface import cache, download
from sfmttr.networks.huggingface.errors import HubUnreachableError
from sfmttr.networks.huggingface.model_files import (
    CONFIG,
    MAIN,
    MAX_TEXT_BYTES,
    listed_files,
    read_json_object,
    too_large_error,
)
from sfmttr.networks.huggingface.model_id import ModelLocation
from sfmttr.types import OnProgress, ignore_progress

_log = logging.getLogger(__name__)
_PREPROCESSOR, _README = "preprocessor_config.json", "README.md"
_TEXTS = (CONFIG, _PREPROCESSOR, _README)
_FRONT_MATTER_BYTES = 1 << 16
_MAX_LICENSE_CHARACTERS = 200
_NOT_STATED = "not stated"


@dataclass(frozen=True)
class ModelCard:
    """Content of a model's small files."""

    config: Mapping[str, Any]
    """`config.json`; none of its values is checked."""
    preprocessor: Mapping[str, Any] | None
    """`preprocessor_config.json`, unchecked; None: there is no such file."""
    licence: str
    """From the front matter of `README.md`; "not stated", or "unknown" with the reason."""
    revision: str | None
    """Full hash of the commit that was read; None for a folder."""


def read_card(location: ModelLocation, on_progress: OnProgress = ignore_progress) -> ModelCard:
    """Read a model's small files; those of a repository are fetched where the cache lacks them.

    Raises `NetworkError` for a model or revision that does not exist, or has no `config.json`, and `WeightsError` for
    files that cannot be fetched or read.
    """
    if location.repository is None:
        paths, revision = _paths_in_folder(location), None
    else:
        paths, revision = _paths_of_repository(location, location.repository, on_progress)
    if paths[CONFIG] is None:
        raise NetworkError(f"{location} cannot be used: it holds no {CONFIG}, which states the architecture")
    preprocessor = paths[_PREPROCESSOR]
    return ModelCard(
        config=read_json_object(paths[CONFIG], location),
        preprocessor=None if preprocessor is None else read_json_object(preprocessor, location),
        licence=_license(paths[_README]) if _README in paths else f"unknown ({_README} could not be fetched)",
        revision=revision,
    )


def _paths_in_folder(location: ModelLocation) -> dict[str, Path | None]:
    assert location.folder is not None
    paths = {name: location.folder / name for name in _TEXTS}
    return {name: path if path.is_file() else None for name, path in paths.items()}


def _paths_of_repository(
    location: ModelLocation, repository: str, on_progress: OnProgress
) -> tuple[dict[str, Path | None], str]:
    """Return the small files by name, and the commit.

    None: there is no such file. A README that is too large, or not in the cache while offline, is left out.
    """
    revision = location.revision or MAIN
    try:
        snapshot = download.look_up(repository, revision, _TEXTS)
    except HubUnreachableError:
        commit = cache.cached_commit(repository, revision)
        if commit is None or cache.cached_file(repository, commit, CONFIG) is None:
            raise
        _log.info("%s is read from the cache, as of commit %s", location, commit)
        return _paths_in_cache(location, repository, commit), commit
    wanted = [name for name in _TEXTS if name in snapshot.names]
    if _README in snapshot.files and snapshot.files[_README].size > MAX_TEXT_BYTES:
        wanted.remove(_README)
    files = listed_files(location, snapshot, wanted)
    for file in files:
        if file.size > MAX_TEXT_BYTES:
            raise too_large_error(file.name, location)
    paths: dict[str, Path | None] = dict(download.fetch(snapshot, files, on_progress))
    absent = [name for name in _TEXTS if name not in snapshot.names]
    return paths | dict.fromkeys(absent), snapshot.commit


def _paths_in_cache(location: ModelLocation, repository: str, commit: str) -> dict[str, Path | None]:
    found: dict[str, Path | None] = {}
    for name in _TEXTS:
        path = cache.cached_file(repository, commit, name)
        if path is not None or cache.is_known_absent(repository, commit, name):
            found[name] = path
    if _PREPROCESSOR not in found:
        raise WeightsError(
            f"the cache does not hold {_PREPROCESSOR} of {location} and the Hub cannot be asked whether there is one: "
            "connect and try again"
        )
    return found


def _license(readme: Path | None) -> str:
    """Return the license in the front matter; where that is "other", the name and link given with it."""
    import yaml

    if readme is None:
        return _NOT_STATED
    unreadable = f"unknown ({_README} cannot be read)"
    try:
        with readme.open("rb") as stream:
            start = stream.read(_FRONT_MATTER_BYTES).decode("utf-8-sig", errors="replace")
        first, *lines = start.splitlines() or [""]
        if first.rstrip() != "---":
            return _NOT_STATED
        end = next((i for i, line in enumerate(lines) if line.rstrip() == "---"), None)
        if end is None:
            return unreadable
        # The base loader reads text, lists and mappings alone: no types, and no merge keys, which can expand without
        # limit.
        stated = yaml.load("\n".join(lines[:end]), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return unreadable
    if not isinstance(stated, dict):
        return _NOT_STATED
    license_id = _one_line(stated.get("license"))
    name, link = _one_line(stated.get("license_name")), _one_line(stated.get("license_link"))
    if license_id.lower() in ("", "other") and (name or link):
        license_id = f"{name} ({link})" if name and link else name or link
    return license_id or _NOT_STATED


def _one_line(value: object) -> str:
    """Return a text, or a list of texts, as one printable line of at most `_MAX_LICENSE_CHARACTERS`."""
    values = value if isinstance(value, list) else [value]
    text = ", ".join(" ".join(part.split()) for part in values if isinstance(part, str))
    return "".join(character for character in text if character.isprintable())[:_MAX_LICENSE_CHARACTERS]
