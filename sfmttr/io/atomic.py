"""Files and folders that appear whole or not at all: written beside their place, then renamed.

A killed process leaves at most temporary files, whose names begin with `TEMPORARY_PREFIX`.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfmttr.errors import RunFolderError

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or missing permission while `path` is written into a RunFolderError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(f"the disk that holds {path} is full; free some space and run again") from error
        # The caller may also read while it writes: an error with another file is not explained here.
        is_ours = error.filename is None or str(error.filename).startswith(str(path.parent))
        if is_ours and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunFolderError(f"no permission to write {path}; choose another folder") from error
        raise


def _temporary_sibling(path: Path) -> Path:
    """Return a fresh name beside `path`."""
    # The suffix stays last, because libraries choose the format by it; the folder stays, because a rename is atomic
    # only within one file system.
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")


def _sync(path: Path) -> None:
    """Wait until a file or folder is on disk (fsync)."""
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
    """Yield a temporary path to write to; it becomes `path` at the end, or is deleted on any error.

    Raises RunFolderError when the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    with explain_disk_errors(path):
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
def atomic_folder(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder to fill; it replaces `path` at the end, or is deleted on any error.

    `sync`: wait until every file is on disk, so that the content survives a power failure; without it the folder may
    then hold files cut short, which is enough where sizes are checked before use. Raises RunFolderError as
    `atomic_file` does; `path` is then what it was before.
    """
    with explain_disk_errors(path):
        part = _temporary_sibling(path)
        with explain_mkdir_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
        try:
            yield part
            if sync:
                for file in part.rglob("*"):
                    if file.is_file():
                        _sync(file)
            _replace_folder(part, path)
            if sync:
                _sync_folder(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Move folder `new` to `path`. A full folder cannot be replaced in one call, so the old one is renamed first."""
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


@contextmanager
def explain_mkdir_errors(path: Path) -> Iterator[None]:
    """Turn the failure to create the folder `path` (below a file, or its name too long) into a RunFolderError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            raise RunFolderError(f"{path} cannot be created ({error.strerror}); choose another folder") from error
        raise
