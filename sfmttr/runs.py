"""The run folder: a manifest that says what was made from what, atomic writes, and JSON that can be published.

Nothing that this module writes names a machine, a user or an absolute path.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from importlib import metadata
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np

import sfmttr
from sfmttr.errors import RunFolderError

SCHEMA = 1
MANIFEST = "manifest.json"
REPORT = "report.json"
"""What a finished run found."""
LOCK = ".lock"
_TEMPORARY = ".tmp-"


# ------------------------------------------------------------------------------------------ JSON


def _published_path(path: PurePath) -> str:
    """Relative paths as they are; of absolute ones the name only, which says nothing about the machine."""
    return path.name if path.is_absolute() else path.as_posix()


def _plain_key(key: object) -> str:
    """A JSON object's key."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"a key of type {type(key).__name__} cannot be written as JSON")


def _plain(value: object, path_text: Callable[[PurePath], str]) -> Any:
    """`value` in JSON's own types; TypeError for anything that nobody meant to write."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), path_text) for field in fields(value)}
    if isinstance(value, Enum):
        return _plain(value.value, path_text)
    if isinstance(value, PurePath):
        return path_text(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), path_text)
    if isinstance(value, Mapping):
        return {_plain_key(key): _plain(item, path_text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path_text) for item in value]
    if isinstance(value, float):
        # JSON has no NaN or infinity; a browser's JSON.parse refuses Python's spelling of them.
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def to_plain(value: object) -> Any:
    """`value` as dicts, lists, strings and numbers: dataclasses, enums, numpy and paths converted.

    NaN and infinity become None, absolute paths their last part. Raises TypeError for any other type.
    """
    return _plain(value, _published_path)


def write_json(path: Path, value: object) -> None:
    """Write `to_plain(value)` as indented UTF-8, atomically. Raises TypeError before anything is written."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises RunFolderError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); run the stage that writes it again") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); delete it and run again") from error


def settings_key(upstream: str, config: object) -> str:
    """sha256 (hex) of what a stage depends on: the key of the stage before it ("" for the first) and its own config."""
    # Whole paths here: two models that are both named "sparse/0" are two inputs. A hash gives neither of them away.
    plain = {"upstream": upstream, "config": _plain(config, lambda path: path.as_posix())}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# ---------------------------------------------------------------------------------- atomic writes


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(f"disk full while writing {path.name}; free some space and run again") from error
        # What a caller reads while it writes may be forbidden too; that is not for us to explain.
        is_about_us = error.filename is None or str(error.filename).startswith(str(path.parent))
        if is_about_us and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunFolderError(f"no permission to write {path}; choose another folder") from error
        raise


def _temporary_sibling(path: Path) -> Path:
    # The suffix stays last, because libraries choose the format by it; the folder stays, because a rename is atomic
    # only within one file system.
    return path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")


def _sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere folders cannot be opened
        _sync(path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` at the end, or vanishes on any error.

    Raises RunFolderError when the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _temporary_sibling(path)
        try:
            yield part
            _sync(part)
            os.replace(part, path)
            _sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder to fill; it replaces `path` at the end, or vanishes on any error.

    Raises RunFolderError as `atomic_file` does; `path` is then what it was before.
    """
    with _disk_errors(path):
        part = _temporary_sibling(path)
        with making(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
        try:
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    _sync(file)
            _replace_folder(part, path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Move `new` to `path`. A full folder cannot be replaced in one call, so the old one steps aside first."""
    old = _temporary_sibling(path)
    had_old = path.exists()
    if had_old:
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if had_old:
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


# ---------------------------------------------------------------------------------------- manifest


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    name: str
    key: str
    """`settings_key` that it was made with."""
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


def _fresh_manifest() -> Manifest:
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


# -------------------------------------------------------------------------------------------- lock

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock(path: Path) -> int:
    """Hold the lock file `path` and give its descriptor. Raises RunFolderError when somebody else holds it.

    The kernel lets go of the lock when its process dies, so none is ever stale; a process id in the file could not
    tell, since in containers that share a folder every first process is number 1.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _try_lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            busy = error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
            reason = "is in use by another run; wait for it or" if busy else "is on a disk that cannot lock files;"
            raise RunFolderError(f"{path.parent} {reason} choose another folder") from error
        # Its last owner may have deleted the file between our opening and our locking it: then we hold nothing.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _unlock(path: Path, descriptor: int) -> None:
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


# -------------------------------------------------------------------------------------- run folder


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, LOCK) or name.startswith(_TEMPORARY)


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Say that a folder cannot be where it is wanted: below a file, or under a name that is too long."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            raise RunFolderError(f"{path} cannot be made ({error.strerror}); choose another folder") from error
        raise


def _claim(path: Path) -> None:
    """Make `path` if needed. Raises RunFolderError when it cannot be, or holds what is not from a run."""
    with _disk_errors(path), making(path):
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} is a file; choose a folder")
        path.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in path.iterdir()]
    if MANIFEST not in names and not all(_is_ours(name) for name in names):
        raise RunFolderError(f"{path} holds other files and no run; choose another folder, or an empty one")


def _delete_leftovers(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for path in list(folder.rglob(f"{_TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class RunFolder:
    """A run folder opened for writing, by this process alone until it is closed.

    Use it as a context manager. Raises RunFolderError when the folder is in use, is not one of ours, is from a newer
    version, is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _claim(path)
        with _disk_errors(path / LOCK):
            self._descriptor: int | None = _lock(path / LOCK)
        try:
            _delete_leftovers(path)
            self._manifest = read_manifest(path) if (path / MANIFEST).exists() else _fresh_manifest()
            self._save(self._manifest)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the folder. Calling it twice does no harm."""
        if self._descriptor is not None:
            _unlock(self.path / LOCK, self._descriptor)
            self._descriptor = None

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def _save(self, manifest: Manifest) -> None:
        write_json(self.path / MANIFEST, manifest)
        self._manifest = manifest

    def describe(self, config: object, seed: int | None) -> None:
        """Say what this run is made with; versions are brought up to date too. Finished stages stay."""
        now = _fresh_manifest()
        self._save(replace(now, config=to_plain(config), seed=seed, stages=self._manifest.stages))

    def is_fresh(self, stage: str, key: str) -> bool:
        """Whether `stage` was finished with this `settings_key` and all that it wrote is still there, in full."""
        record = self._manifest.stage(stage)
        if record is None or record.key != key:
            return False
        files = ((self.path / name, size) for name, size in record.files.items())
        return all(path.is_file() and path.stat().st_size == size for path, size in files)

    def record(
        self, stage: str, key: str, files: Iterable[Path], seconds: float, voids: Iterable[str] = ()
    ) -> StageRecord:
        """Note that `stage` is finished. `files` lie in the run folder; folders among them stand for all they hold.

        What an earlier run of the same stage wrote, and now is not among `files`, is deleted, and so are the stages
        `voids` that were made from it; all others stay. Raises ValueError for a file that is missing or lies elsewhere.
        """
        sizes = dict(sorted(self._sizes(files)))
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = StageRecord(stage, key, finished, round(float(seconds), 3), sizes)
        gone = {stage, *voids}
        self._keep((*(each for each in self._manifest.stages if each.name not in gone), record))
        return record

    def invalidate(self, stages: Iterable[str]) -> None:
        """Forget these stages and delete what they wrote; the others stay."""
        gone = set(stages)
        kept = tuple(record for record in self._manifest.stages if record.name not in gone)
        if kept != self._manifest.stages:
            self._keep(kept)

    def _keep(self, stages: tuple[StageRecord, ...]) -> None:
        before = {name for record in self._manifest.stages for name in record.files}
        after = {name for record in stages for name in record.files}
        # The manifest first: should we die in between, files without a record do less harm than records without files.
        self._save(replace(self._manifest, stages=stages))
        for name in before - after:
            (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty: others still use it
                (self.path / name).parent.rmdir()

    def _sizes(self, files: Iterable[Path]) -> Iterator[tuple[str, int]]:
        """Path relative to the run folder, and size, of every file."""
        root = self.path.resolve()
        for given in files:
            # Relative to the working folder, as any path is, or to the run folder, as the manifest has them.
            candidates = (given.resolve(), (root / given).resolve())
            path = next((path for path in candidates if path.exists() and path.is_relative_to(root)), None)
            if path is None:
                raise ValueError(f"{given} is missing, or is not in the run folder")
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    yield file.relative_to(root).as_posix(), file.stat().st_size
