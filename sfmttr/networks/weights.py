"""Weights files: find the authors' file, else download it, check its hash, and read it without running code.

Folders are searched in this order: the one that is given (`--weights-dir`), `SFMTTR_WEIGHTS`, the user's cache
(`SFMTTR_CACHE` moves it), and for what comes with the project its `examples/`. Downloads go to the cache. Their hash
must be right. A file that is merely found, under the right name with another hash, is taken for the user's own weights:
it loads with a logged warning, if its keys fit. Where no hash is known (`sha256=None`) the file is unverified, and only
its keys and shapes speak for it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import pickle
import shutil
import struct
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

import platformdirs

from sfmttr.errors import RunFolderError, WeightsError
from sfmttr.io.atomic import atomic_file
from sfmttr.types import OnProgress, Progress, ignore_progress
from sfmttr.utils.resources import examples_folder

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 30.0
_NAMED_KEYS = 4
_MOST_UNPACKED_BYTES = 4 << 30
SHIPPED_FOLDER = examples_folder()
"""Folder of the bundled network."""
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, pickle.UnpicklingError, zipfile.BadZipFile),
)
"""Errors that torch's reader raises for truncated files and other formats."""


@dataclass(frozen=True)
class WeightFile:
    """One weights file as its authors publish it."""

    name: str
    """File name in the folders that are searched."""
    url: str | None
    """Direct https address; None: it cannot be fetched by itself."""
    sha256: str | None
    """None: not known here, so not verified."""
    page: str
    """Web page on which a person finds it."""
    aliases: tuple[str, ...] = ()
    """Other paths below a searched folder, e.g. as the authors' archive unpacks."""
    shipped: bool = False
    """Part of this project, in `examples/`."""
    archive: str | None = None
    """Direct https address of a zip that holds this file, by its last name, when `url` is None."""
    how: str = ""
    """Instruction for getting it by hand, when it cannot be fetched; empty: find it on `page`."""


def cache_folder() -> Path:
    """Return the folder of downloads: `SFMTTR_CACHE`, else the user's cache folder of the operating system."""
    override = os.environ.get("SFMTTR_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("sfmttr"))


def weights_folder() -> Path:
    """Return the cache's folder for weights."""
    return cache_folder() / "weights"


def find(file: WeightFile, weights_dir: Path | None = None) -> Path | None:
    """Return the first file of this name on the search path, unopened; None: there is none."""
    environment = os.environ.get("SFMTTR_WEIGHTS")
    given = [weights_dir, Path(environment).expanduser() if environment else None, weights_folder()]
    if file.shipped:
        given.append(SHIPPED_FOLDER)
    candidates = [folder / name for folder in given if folder is not None for name in (file.name, *file.aliases)]
    return next((path for path in candidates if path.is_file()), None)


def fetch(file: WeightFile, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> Path:
    """Return the file's path: found, else downloaded. Raises `WeightsError`, which names file, address and folder."""
    found = find(file, weights_dir)
    if found is not None:
        _warn_if_changed(file, found)
        return found
    if file.url is not None:
        return _download(file, file.url, weights_folder(), on_progress)
    if file.archive is not None:
        return _unpack(file, file.archive, weights_folder(), on_progress)
    folder = weights_dir or weights_folder()
    raise WeightsError(
        f"weights file {file.name} is missing and has no address to be downloaded from: "
        f"{file.how or f'get it from {file.page}'} and put it into {folder}"
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _warn_if_changed(file: WeightFile, path: Path) -> None:
    if file.sha256 is not None and sha256_of(path) != file.sha256:
        _log.warning("%s is not the published file of that name: taken as weights of your own", path)


# --------------------------------------------------------------------------------------- download


def _download(file: WeightFile, url: str, folder: Path, on_progress: OnProgress) -> Path:
    """Download `file` to `folder`, where it appears once its hash is right."""
    target = folder / file.name
    try:
        with atomic_file(target) as part:
            with part.open("wb") as stream:
                digest = _receive(url, stream, file.name, on_progress)
            if file.sha256 is not None and digest != file.sha256:
                raise WeightsError(_failed(file, url, folder, f"its sha256 is {digest}, expected {file.sha256}"))
    except (OSError, http.client.HTTPException, RunFolderError) as error:
        raise WeightsError(_failed(file, url, folder, str(error) or type(error).__name__)) from error
    if file.sha256 is None:
        _log.warning("%s came from %s unverified: its hash is not known here", file.name, url)
    return target


def _unpack(file: WeightFile, url: str, folder: Path, on_progress: OnProgress) -> Path:
    """Download the zip `url` and keep its files with the suffix of `file`, all in the folder of `file`.

    No path in the zip is followed: its files are known by their last names alone.
    """
    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as archive:  # beside the files: a system's /tmp may be small
            _receive(url, archive, Path(url).name, on_progress)
            with zipfile.ZipFile(archive) as content:
                members = [entry for entry in content.infolist() if PurePath(entry.filename).suffix == target.suffix]
                if sum(entry.file_size for entry in members) > _MOST_UNPACKED_BYTES:
                    raise WeightsError(_failed(file, url, folder, "it unpacks to more than networks have"))
                for entry in members:
                    _extract(content, entry, target.with_name(PurePath(entry.filename).name))
    except (
        *(OSError, http.client.HTTPException, RunFolderError),
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
    ) as error:
        raise WeightsError(_failed(file, url, folder, str(error) or type(error).__name__)) from error
    if not target.is_file():
        raise WeightsError(_failed(file, url, folder, f"it holds no {target.name}"))
    _log.warning("%s came from %s unverified: its hash is not known here", file.name, url)
    return target


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    with atomic_file(target) as part, archive.open(entry) as source, part.open("wb") as stream:
        shutil.copyfileobj(source, stream)


def _receive(url: str, target: BinaryIO | Any, name: str, on_progress: OnProgress) -> str:
    """Copy `url` into `target` and return its sha256. A short answer is an `OSError`."""
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(_CHUNK_BYTES):
            target.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            on_progress(Progress("weights", done, total, name))
    if done < total:
        raise OSError(f"it ended after {done} of {total} bytes")
    return digest.hexdigest()


def _failed(file: WeightFile, url: str, folder: Path, reason: str) -> str:
    return (
        f"weights file {file.name} could not be downloaded from {url} ({reason}): "
        f"try again, or get it from {file.page} and put it into {folder}"
    )


# ------------------------------------------------------------------------------------------- read


def read_weights(path: Path) -> Mapping[str, Any]:
    """Read a state dict from safetensors or a checkpoint, by the file's suffix. Raises `WeightsError`."""
    return read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint's state dict without running any code that it may hold. Raises `WeightsError`."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(
            f"weights file {path} is damaged, or holds more than weights: delete it and get it again"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"weights file {path} holds a {type(state).__name__}, expected a state dict")
    return state


def read_safetensors(path: Path) -> Mapping[str, Any]:
    """Read a state dict from safetensors. Raises `WeightsError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights file {path} cannot be read as safetensors: {error}") from error


def read_safetensors_metadata(path: Path) -> Mapping[str, str]:
    """Read the metadata of a safetensors file. Raises `WeightsError` when it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights file {path} cannot be read as safetensors: {error}") from error


def apply_state(network: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Copy `state` into `network`. Raises `WeightsError` unless every name and shape fits."""
    own = network.state_dict()
    wrong = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            name for name in own if name in state and getattr(state[name], "shape", None) != own[name].shape
        ],
    }
    concerns = [f"{_some(keys)} {problem}" for problem, keys in wrong.items() if keys]
    if concerns:
        raise WeightsError(f"{source} does not fit this network ({'; '.join(concerns)}): choose the file made for it")
    network.load_state_dict(state)


def _some(keys: list[str]) -> str:
    rest = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return ", ".join(keys[:_NAMED_KEYS]) + rest
