"""Files of a model on the Hub or in a folder, and its weights.

A model is five kinds of files, and no other is ever fetched or opened: `config.json`, `preprocessor_config.json`, the
front matter of `README.md` (see `model_card`), and weights as safetensors, in one file or in the shards that an index
names. None of them can run code. Their content is nevertheless treated as hostile until it is checked.

`model_card.read_card` resolves a branch or tag to a commit; the weights are then those of that commit, even if the
branch has moved meanwhile. Without a connection, or with `HF_HUB_OFFLINE` set, the commit in the cache is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from sfmttr.errors import SfmttrError, WeightsError
from sfmttr.networks.huggingface import cache, download
from sfmttr.networks.huggingface.model_id import ModelLocation, quoted
from sfmttr.types import OnProgress, ignore_progress

MAX_WEIGHTS_BYTES = 8_000_000_000
"""Limit for all weights of one model together."""
MAX_TEXT_BYTES = 1_000_000
"""Limit for each file that is not weights."""
MAIN = "main"
CONFIG = "config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.safetensors")
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})


def fetch_weights(
    location: ModelLocation, revision: str | None, on_progress: OnProgress = ignore_progress
) -> tuple[Path, ...]:
    """Return the paths of all weights at commit `revision` (None for a folder), downloaded where the cache lacks them.

    Each file's header is checked against its size. Raises `WeightsError` when there are no safetensors, more than
    `MAX_WEIGHTS_BYTES`, no access, no connection, a full disk, or a damaged file, which is then deleted from the
    cache. Progress counts bytes. A download that `on_progress` ends by raising is resumed by the next call.
    """
    if location.repository is None:
        paths = _weights_in_folder(location)
    elif revision is None:
        raise ValueError("a model of the Hub needs the revision of its card")
    else:
        paths = _weights_in_cache(location, revision) or _download(location, revision, on_progress)
    for path in paths:
        _check_header(path, location)
    return paths


def is_cached(location: ModelLocation) -> bool:
    """Return whether config and weights are in the folder or the cache, so that no connection is needed.

    Files are not opened.
    """
    folder, repository = location.folder, location.repository
    try:
        if repository is None:
            return folder is not None and (folder / CONFIG).is_file() and bool(_weights_in_folder(location))
        commit = cache.cached_commit(repository, location.revision or MAIN)
        return (
            commit is not None
            and cache.cached_file(repository, commit, CONFIG) is not None
            and _weights_in_cache(location, commit) is not None
        )
    except SfmttrError:
        return False


# -------------------------------------------------------------------------------- shared with model_card


def listed_files(
    location: ModelLocation, snapshot: download.Snapshot, names: Iterable[str]
) -> list[download.RemoteFile]:
    """Return the entries of `names` in the Hub's listing. Raises `WeightsError` for one without size and checksum."""
    try:
        return [snapshot.files[name] for name in names]
    except KeyError as error:
        raise WeightsError(
            f"the Hub does not state size and checksum of {error.args[0]} of {location}: "
            "choose another model or revision"
        ) from None


def read_json_object(path: Path | None, location: ModelLocation) -> dict[str, Any]:
    """Read a file that holds one JSON object, of at most `MAX_TEXT_BYTES`. Raises `WeightsError`."""
    assert path is not None
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise too_large_error(path.name, location)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path.name} of {location} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} of {location} is no JSON: choose another model or revision") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} of {location} holds no JSON object: choose another model or revision")
    return content


def too_large_error(name: str, location: ModelLocation) -> WeightsError:
    """Return the error for a text file larger than `MAX_TEXT_BYTES`."""
    return WeightsError(
        f"{name} of {location} is larger than {MAX_TEXT_BYTES / 1e6:.0f} MB, which no model needs: choose another model"
    )


# ---------------------------------------------------------------------------------------- weights


def _weights_in_folder(location: ModelLocation) -> tuple[Path, ...]:
    assert location.folder is not None
    try:
        names = {path.name for path in location.folder.iterdir() if path.is_file()}
    except OSError as error:
        raise WeightsError(f"folder {location} cannot be read: {error.strerror}") from error
    if _WEIGHTS in names:
        return (location.folder / _WEIGHTS,)
    if _INDEX not in names:
        raise _no_safetensors_error(location, names)
    return tuple(location.folder / name for name in _shards(location.folder / _INDEX, location, names))


def _weights_in_cache(location: ModelLocation, commit: str) -> tuple[Path, ...] | None:
    """Return the paths of all weights, or None when any is missing."""
    assert location.repository is not None
    single = cache.cached_file(location.repository, commit, _WEIGHTS)
    if single is not None:
        return (single,)
    index = cache.cached_file(location.repository, commit, _INDEX)
    if index is None:
        return None
    try:
        names = _shards(index, location, None)
    except WeightsError:  # damaged: the download compares it with the Hub's
        return None
    paths = tuple(cache.cached_file(location.repository, commit, name) for name in names)
    found = tuple(path for path in paths if path is not None)
    return found if len(found) == len(paths) else None


def _download(location: ModelLocation, commit: str, on_progress: OnProgress) -> tuple[Path, ...]:
    assert location.repository is not None
    snapshot = download.look_up(location.repository, commit)
    if _WEIGHTS in snapshot.names:
        names = [_WEIGHTS]
    elif _INDEX in snapshot.names:
        (file,) = listed_files(location, snapshot, [_INDEX])
        if file.size > MAX_TEXT_BYTES:
            raise too_large_error(_INDEX, location)
        names = _shards(download.fetch(snapshot, [file], ignore_progress)[_INDEX], location, snapshot.names)
    else:
        raise _no_safetensors_error(location, snapshot.names)
    files = listed_files(location, snapshot, names)
    total = sum(file.size for file in files)
    if total > MAX_WEIGHTS_BYTES:
        raise WeightsError(
            f"the weights of {location} are {total / 1e9:.1f} GB, more than the {MAX_WEIGHTS_BYTES / 1e9:.0f} GB that "
            "are downloaded: choose a smaller model, or download it yourself and give its folder"
        )
    paths = download.fetch(snapshot, files, on_progress)
    return tuple(paths[name] for name in names)


def _shards(index: Path, location: ModelLocation, available: Iterable[str] | None) -> list[str]:
    """Return the names of the shards that the index lists: plain names of safetensors files, all `available`."""
    weight_map = read_json_object(index, location).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) and _all_text(weight_map.values()) else set()
    if not names:
        raise WeightsError(f"{_INDEX} of {location} names no files of weights: choose another model or revision")
    for name in sorted(names):
        if not _SHARD.fullmatch(name):
            raise WeightsError(
                f"{_INDEX} of {location} names {quoted(name)}, which is no plain name of a safetensors file: "
                "choose another model or revision"
            )
    missing = sorted(names - set(available)) if available is not None else []
    if missing:
        raise WeightsError(
            f"{location} lacks {missing[0]}, which its {_INDEX} names: get all of it, or choose another revision"
        )
    return sorted(names)


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _no_safetensors_error(location: ModelLocation, names: Iterable[str]) -> WeightsError:
    pickles = sorted(name for name in names if PurePath(name).suffix.lower() in _PICKLE_SUFFIXES)
    if pickles:
        return WeightsError(
            f"{location} publishes its weights as pickles ({quoted(pickles[0])}), which can run code, and they are not "
            "opened: ask its authors for safetensors, or choose another model"
        )
    return WeightsError(
        f"{location} holds neither {_WEIGHTS} nor {_INDEX}: choose a model whose weights are published as safetensors"
    )


def _check_header(path: Path, location: ModelLocation) -> None:
    """Check that the header fits the file's size. A damaged file in the cache is deleted."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    except SafetensorError as error:
        if location.repository is None:
            raise WeightsError(f"weights file {path} is damaged ({error}): get it again") from error
        cache.evict(path)
        raise WeightsError(
            f"{path.name} of {location} was damaged in the cache ({error}) and is deleted there: download it again, "
            "and if that does not help ask its authors"
        ) from error
