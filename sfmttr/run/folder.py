"""The run folder: opened by one process at a time, with a manifest of finished stages and their files.

Nothing that this module writes names a machine, a user or an absolute path.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import TEMPORARY_PREFIX, explain_disk_errors, explain_mkdir_errors
from sfmttr.io.json_files import to_plain, write_json
from sfmttr.run.manifest import MANIFEST, Manifest, StageRecord, fresh_manifest, read_manifest

LOCK = ".lock"

# Not the package filelock: on a disk without flock it falls back to a marker file, which a killed process leaves
# behind; only some versions can be told to fail instead.

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock(path: Path) -> int:
    """Lock the file `path` and return its descriptor. Raises RunFolderError when another process holds the lock.

    The kernel releases the lock when its process dies, so a lock is never stale. A process id in the file would not
    do: in containers that share a folder, every first process has the id 1.
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
        # The last owner may have deleted the file between the open and the lock: then this lock protects nothing.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _unlock(path: Path, descriptor: int) -> None:
    """Delete the lock file and release its lock."""
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


def _is_ours(name: str) -> bool:
    """Return whether a run folder without a manifest may hold this name."""
    return name in (MANIFEST, LOCK) or name.startswith(TEMPORARY_PREFIX)


def _acquire(path: Path) -> None:
    """Create the folder `path` if needed. Raises RunFolderError when that fails, or it holds files of no run."""
    with explain_disk_errors(path), explain_mkdir_errors(path):
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path} is a file; choose a folder")
        path.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in path.iterdir()]
    if MANIFEST not in names and not all(_is_ours(name) for name in names):
        raise RunFolderError(f"{path} holds other files and no run; choose another folder, or an empty one")


def _delete_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders of a killed run."""
    for path in list(folder.rglob(f"{TEMPORARY_PREFIX}*")):
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
        _acquire(path)
        with explain_disk_errors(path / LOCK):
            self._descriptor: int | None = _lock(path / LOCK)
        try:
            _delete_leftovers(path)
            self._manifest = read_manifest(path) if (path / MANIFEST).exists() else fresh_manifest()
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
        """Release the folder for other processes. A second call has no effect."""
        if self._descriptor is not None:
            _unlock(self.path / LOCK, self._descriptor)
            self._descriptor = None

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is on disk."""
        return self._manifest

    def _save(self, manifest: Manifest) -> None:
        write_json(self.path / MANIFEST, manifest)
        self._manifest = manifest

    def describe(self, config: object, seed: int | None) -> None:
        """Store configuration, seed and current library versions in the manifest. Finished stages stay."""
        now = fresh_manifest()
        self._save(replace(now, config=to_plain(config), seed=seed, stages=self._manifest.stages))

    def is_fresh(self, stage: str, key: str) -> bool:
        """Return whether `stage` was finished with this `cache_key` and all its files still have their sizes."""
        record = self._manifest.stage(stage)
        if record is None or record.key != key:
            return False
        files = ((self.path / name, size) for name, size in record.files.items())
        return all(path.is_file() and path.stat().st_size == size for path, size in files)

    def record(
        self, stage: str, key: str, files: Iterable[Path], seconds: float, invalidates: Iterable[str] = ()
    ) -> StageRecord:
        """Record that `stage` is finished. `files` lie in the run folder; a folder stands for all files in it.

        Delete what an earlier run of the stage wrote and that is no longer among `files`, and the stages `invalidates`,
        which were made from it; all others stay. Raises ValueError for a file that is missing or lies elsewhere.
        """
        sizes = dict(sorted(self._sizes(files)))
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = StageRecord(stage, key, finished, round(float(seconds), 3), sizes)
        gone = {stage, *invalidates}
        self._keep((*(each for each in self._manifest.stages if each.name not in gone), record))
        return record

    def invalidate(self, stages: Iterable[str]) -> None:
        """Remove these stages from the manifest and delete their files; other stages stay."""
        gone = set(stages)
        kept = tuple(record for record in self._manifest.stages if record.name not in gone)
        if kept != self._manifest.stages:
            self._keep(kept)

    def _keep(self, stages: tuple[StageRecord, ...]) -> None:
        """Make `stages` the manifest's stages and delete the files that none of them lists."""
        before = {name for record in self._manifest.stages for name in record.files}
        after = {name for record in stages for name in record.files}
        # The manifest first: if the process dies in between, files without a record do less harm than the reverse.
        self._save(replace(self._manifest, stages=stages))
        for name in before - after:
            (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                (self.path / name).parent.rmdir()

    def _sizes(self, files: Iterable[Path]) -> Iterator[tuple[str, int]]:
        """Yield path (relative to the run folder) and size in bytes of every file."""
        root = self.path.resolve()
        for given in files:
            # Relative to the working directory, as any path is, or to the run folder, as in the manifest.
            candidates = (given.resolve(), (root / given).resolve())
            path = next((path for path in candidates if path.exists() and path.is_relative_to(root)), None)
            if path is None:
                raise ValueError(f"{given} is missing, or is not in the run folder")
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    yield file.relative_to(root).as_posix(), file.stat().st_size
