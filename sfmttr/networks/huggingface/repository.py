"""Models of the Hugging Face Hub, or in a folder laid out like one: what they say of themselves, and their weights.

A model is five kinds of files, and no other is ever fetched or opened: `config.json`, `preprocessor_config.json`, the
front matter of `README.md`, and weights as safetensors, in one file or in the shards that an index names. None of them
can run code. What they hold is nevertheless hostile until checked. The adapters say whether it is a depth network.

`describe` turns a branch or tag into a commit; weights are then taken from that commit, whatever the branch has become
meanwhile. Without a connection, or with `HF_HUB_OFFLINE` set, the commit that the cache remembers is used.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sfmttr.errors import NetworkError, SfmttrError, WeightsError
from sfmttr.networks.huggingface import download
from sfmttr.types import OnProgress, ignore_progress

_log = logging.getLogger(__name__)
MOST_WEIGHTS_BYTES = 8_000_000_000
"""Of all files of weights of one model that are downloaded together."""
MOST_TEXT_BYTES = 1_000_000
"""Of one file that is not weights."""
_MAIN = "main"
_CONFIG, _PREPROCESSOR, _README = "config.json", "preprocessor_config.json", "README.md"
_TEXTS = (_CONFIG, _PREPROCESSOR, _README)
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.safetensors")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=#@/-]{0,199}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FRONT_MATTER_BYTES = 1 << 16
_LICENCE_LENGTH = 200
_NOT_STATED = "not stated"
_SHOWN = 120


@dataclass(frozen=True)
class ModelLocation:
    """A model on the Hub, or a folder that holds one."""

    repository: str | None
    """`ORG/NAME`; None for a folder."""
    folder: Path | None
    revision: str | None = None
    """Branch, tag or commit; None: main. Only with a repository."""

    def __post_init__(self) -> None:
        if (self.repository is None) == (self.folder is None):
            raise ValueError("a model is either on the Hub or in a folder")
        if self.repository is not None and not _is_repository(self.repository):
            raise NetworkError(f"{_shown(self.repository)} is no name of a model on the Hub: write ORG/NAME")
        if self.revision is not None and (self.repository is None or not _is_revision(self.revision)):
            raise NetworkError(
                f"{_shown(self.revision)} is no revision: write ORG/NAME@REVISION with a branch, tag or commit"
            )

    @staticmethod
    def parse(text: str) -> ModelLocation:
        """Read `ORG/NAME`, `ORG/NAME@REVISION`, or the path of a folder, else raise `NetworkError`.

        What looks like `ORG/NAME` is on the Hub, even where a folder has that name: `./ORG/NAME` is the folder.
        """
        repository, at, revision = text.partition("@")
        if _is_repository(repository):
            return ModelLocation(repository, None, revision if at else None)
        folder = _folder_at(text)
        if folder is None:
            raise NetworkError(
                f"{_shown(text)} is neither a model on the Hub nor a folder: "
                "write ORG/NAME, ORG/NAME@REVISION, or the path of a folder that holds a model"
            )
        return ModelLocation(None, folder)

    @staticmethod
    def on_hub(text: str) -> bool:
        """Whether `parse` takes `text` for a model of the Hub, by its looks alone: the disk is not asked."""
        return _is_repository(text.partition("@")[0])

    def __str__(self) -> str:
        if self.repository is None:
            return str(self.folder)
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


@dataclass(frozen=True)
class ModelCard:
    """What a model says of itself."""

    config: Mapping[str, Any]
    """Of `config.json`, as it is: none of its values is checked."""
    preprocessor: Mapping[str, Any] | None
    """Of `preprocessor_config.json`, likewise; None where there is none."""
    licence: str
    """By the front matter of `README.md`; "not stated", or "unknown" with the reason."""
    revision: str | None
    """Full hash of the commit that all was, and the weights will be, read at; None for a folder."""


def describe(source: ModelLocation, on_progress: OnProgress = ignore_progress) -> ModelCard:
    """Read what the model says of itself; of a repository its small files alone are fetched.

    `NetworkError`: there is no such model or revision, or it has no configuration. `WeightsError`: its files cannot be
    got or read.
    """
    if source.repository is None:
        texts, revision = _texts_of_folder(source), None
    else:
        texts, revision = _texts_of_repository(source, source.repository, on_progress)
    if texts[_CONFIG] is None:
        raise NetworkError(f"{source} cannot be used: it holds no {_CONFIG}, which says what kind of network it is")
    preprocessor = texts[_PREPROCESSOR]
    return ModelCard(
        config=_json_object(texts[_CONFIG], source),
        preprocessor=None if preprocessor is None else _json_object(preprocessor, source),
        licence=_licence(texts[_README]) if _README in texts else f"unknown ({_README} could not be had)",
        revision=revision,
    )


def fetch_weights(
    source: ModelLocation, card: ModelCard, on_progress: OnProgress = ignore_progress
) -> tuple[Path, ...]:
    """Paths of all files of weights, downloaded where they are not in the cache; each one's header fits its size.

    `WeightsError` says what is wrong: no safetensors, more than `MOST_WEIGHTS_BYTES`, no access, no connection, a full
    disk, or a damaged file, which is then deleted from the cache. Progress counts bytes; what has arrived when
    `on_progress` raises is continued by the next call.
    """
    if source.repository is None:
        paths = _weights_in_folder(source)
    elif card.revision is None:
        raise ValueError("the card is not of this model: it has no revision")
    else:
        paths = _weights_in_cache(source, card.revision) or _download(source, card.revision, on_progress)
    for path in paths:
        _check_header(path, source)
    return paths


def is_cached(source: ModelLocation) -> bool:
    """Whether the model is in its folder, or in the cache, so that no connection is needed. Files are not opened."""
    try:
        if source.repository is None:
            return (
                source.folder is not None and (source.folder / _CONFIG).is_file() and bool(_weights_in_folder(source))
            )
        commit = download.cached_commit(source.repository, source.revision or _MAIN)
        return (
            commit is not None
            and download.cached(source.repository, commit, _CONFIG) is not None
            and _weights_in_cache(source, commit) is not None
        )
    except SfmttrError:
        return False


# ------------------------------------------------------------------------------------------ names


def _is_repository(text: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return _REPOSITORY.fullmatch(text) is not None


def _is_revision(text: str) -> bool:
    """Stricter than git: it becomes part of an address and of a path in the cache."""
    parts = text.split("/")
    return _REVISION.fullmatch(text) is not None and not any(
        not part or part.startswith(".") or part.endswith((".", ".lock")) or ".." in part for part in parts
    )


def _folder_at(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path.absolute() if text and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no such home, a name too long, a null character
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


# ------------------------------------------------------------------------------------ small files


def _texts_of_folder(source: ModelLocation) -> dict[str, Path | None]:
    assert source.folder is not None
    paths = {name: source.folder / name for name in _TEXTS}
    return {name: path if path.is_file() else None for name, path in paths.items()}


def _texts_of_repository(
    source: ModelLocation, repository: str, on_progress: OnProgress
) -> tuple[dict[str, Path | None], str]:
    """Paths of the small files and the commit. None: there is no such file; a README that cannot be had is left out."""
    revision = source.revision or _MAIN
    try:
        snapshot = download.look_up(repository, revision, _TEXTS)
    except download.HubUnreachableError:
        commit = download.cached_commit(repository, revision)
        if commit is None or download.cached(repository, commit, _CONFIG) is None:
            raise
        _log.info("%s is read from the cache, as of commit %s", source, commit)
        return _cached_texts(source, repository, commit), commit
    wanted = [name for name in _TEXTS if name in snapshot.names]
    if snapshot.files.get(_README, _NO_FILE).size > MOST_TEXT_BYTES:
        wanted = [name for name in wanted if name != _README]
    files = _listed(source, snapshot, wanted)
    for file in files:
        if file.size > MOST_TEXT_BYTES:
            raise _too_large(file.name, source)
    paths: dict[str, Path | None] = dict(download.fetch(snapshot, files, on_progress))
    absent = [name for name in _TEXTS if name not in snapshot.names]
    return paths | dict.fromkeys(absent), snapshot.commit


_NO_FILE = download.RemoteFile("", 0, "")


def _cached_texts(source: ModelLocation, repository: str, commit: str) -> dict[str, Path | None]:
    found: dict[str, Path | None] = {}
    for name in _TEXTS:
        path = download.cached(repository, commit, name)
        if path is not None or download.is_known_absent(repository, commit, name):
            found[name] = path
    if _PREPROCESSOR not in found:
        raise WeightsError(
            f"the cache does not hold {_PREPROCESSOR} of {source} and the Hub cannot be asked whether there is one: "
            "connect and try again"
        )
    return found


def _json_object(path: Path | None, source: ModelLocation) -> dict[str, Any]:
    assert path is not None
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise _too_large(path.name, source)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path.name} of {source} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} of {source} is no JSON: choose another model or revision") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} of {source} holds no JSON object: choose another model or revision")
    return content


def _too_large(name: str, source: ModelLocation) -> WeightsError:
    return WeightsError(
        f"{name} of {source} is larger than {MOST_TEXT_BYTES / 1e6:.0f} MB, which no model needs: choose another model"
    )


def _licence(readme: Path | None) -> str:
    """The licence that the front matter states; where that is "other", the name and link given with it."""
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
        # The base loader knows text, lists and mappings alone; merge keys, which can blow up, and types it ignores.
        stated = yaml.load("\n".join(lines[:end]), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return unreadable
    if not isinstance(stated, dict):
        return _NOT_STATED
    licence = _text(stated.get("license"))
    name, link = _text(stated.get("license_name")), _text(stated.get("license_link"))
    if licence.lower() in ("", "other") and (name or link):
        licence = f"{name} ({link})" if name and link else name or link
    return licence or _NOT_STATED


def _text(value: object) -> str:
    """One printable line of at most `_LICENCE_LENGTH` characters."""
    values = value if isinstance(value, list) else [value]
    text = ", ".join(" ".join(part.split()) for part in values if isinstance(part, str))
    return "".join(character for character in text if character.isprintable())[:_LICENCE_LENGTH]


# ---------------------------------------------------------------------------------------- weights


def _weights_in_folder(source: ModelLocation) -> tuple[Path, ...]:
    assert source.folder is not None
    try:
        names = {path.name for path in source.folder.iterdir() if path.is_file()}
    except OSError as error:
        raise WeightsError(f"folder {source} cannot be read: {error.strerror}") from error
    if _WEIGHTS in names:
        return (source.folder / _WEIGHTS,)
    if _INDEX not in names:
        raise _no_safetensors(source, names)
    return tuple(source.folder / name for name in _shards(source.folder / _INDEX, source, names))


def _weights_in_cache(source: ModelLocation, commit: str) -> tuple[Path, ...] | None:
    """All of them, or None."""
    assert source.repository is not None
    whole = download.cached(source.repository, commit, _WEIGHTS)
    if whole is not None:
        return (whole,)
    index = download.cached(source.repository, commit, _INDEX)
    if index is None:
        return None
    try:
        names = _shards(index, source, None)
    except WeightsError:  # damaged: it is compared with the Hub's when it is looked up there
        return None
    paths = tuple(download.cached(source.repository, commit, name) for name in names)
    found = tuple(path for path in paths if path is not None)
    return found if len(found) == len(paths) else None


def _download(source: ModelLocation, commit: str, on_progress: OnProgress) -> tuple[Path, ...]:
    assert source.repository is not None
    snapshot = download.look_up(source.repository, commit)
    if _WEIGHTS in snapshot.names:
        names = [_WEIGHTS]
    elif _INDEX in snapshot.names:
        (file,) = _listed(source, snapshot, [_INDEX])
        if file.size > MOST_TEXT_BYTES:
            raise _too_large(_INDEX, source)
        names = _shards(download.fetch(snapshot, [file], ignore_progress)[_INDEX], source, snapshot.names)
    else:
        raise _no_safetensors(source, snapshot.names)
    files = _listed(source, snapshot, names)
    total = sum(file.size for file in files)
    if total > MOST_WEIGHTS_BYTES:
        raise WeightsError(
            f"the weights of {source} are {total / 1e9:.1f} GB, more than the {MOST_WEIGHTS_BYTES / 1e9:.0f} GB that "
            "are downloaded: choose a smaller model, or download it yourself and give its folder"
        )
    paths = download.fetch(snapshot, files, on_progress)
    return tuple(paths[name] for name in names)


def _listed(source: ModelLocation, snapshot: download.Snapshot, names: Iterable[str]) -> list[download.RemoteFile]:
    try:
        return [snapshot.files[name] for name in names]
    except KeyError as error:
        raise WeightsError(
            f"the Hub does not state size and checksum of {error.args[0]} of {source}: choose another model or revision"
        ) from None


def _shards(index: Path, source: ModelLocation, there: Iterable[str] | None) -> list[str]:
    """Names of the files of weights that the index names: plain names of safetensors that are all `there`."""
    weight_map = _json_object(index, source).get("weight_map")
    named = set(weight_map.values()) if isinstance(weight_map, dict) and _all_text(weight_map.values()) else set()
    if not named:
        raise WeightsError(f"{_INDEX} of {source} names no files of weights: choose another model or revision")
    for name in sorted(named):
        if not _SHARD.fullmatch(name):
            raise WeightsError(
                f"{_INDEX} of {source} names {_shown(name)}, which is no plain name of a safetensors file: "
                "choose another model or revision"
            )
    missing = sorted(named - set(there)) if there is not None else []
    if missing:
        raise WeightsError(
            f"{source} lacks {missing[0]}, which its {_INDEX} names: get all of it, or choose another revision"
        )
    return sorted(named)


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _no_safetensors(source: ModelLocation, names: Iterable[str]) -> WeightsError:
    pickles = sorted(name for name in names if PurePath(name).suffix.lower() in _PICKLES)
    if pickles:
        return WeightsError(
            f"{source} publishes its weights as pickles ({_shown(pickles[0])}), which can run code, and they are not "
            "opened: ask its authors for safetensors, or choose another model"
        )
    return WeightsError(
        f"{source} holds neither {_WEIGHTS} nor {_INDEX}: choose a model whose weights are published as safetensors"
    )


def _check_header(path: Path, source: ModelLocation) -> None:
    """What the header says must fit the size of the file. One that is damaged is deleted, if it is the cache's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    except SafetensorError as error:
        if source.repository is None:
            raise WeightsError(f"weights file {path} is damaged ({error}): get it again") from error
        download.evict(path)
        raise WeightsError(
            f"{path.name} of {source} was damaged in the cache ({error}) and is deleted there: try again to download "
            "it anew, and if that does not help ask its authors"
        ) from error
