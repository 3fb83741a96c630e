"""The run folder: a manifest that says what was made from what, atomic writes, and JSON that can be published."""

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
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")


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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder to fill; it replaces `path` at the end, or vanishes on any error.

    Raises RunFolderError as `atomic_file` does; `path` is then what it was before.
    """
    with explain_disk_errors(path):
        part = _temporary_sibling(path)
        with explain_mkdir_errors(path):
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


@contextmanager
def explain_mkdir_errors(path: Path) -> Iterator[None]:
    """Say that a folder cannot be where it is wanted: below a file, or under a name that is too long."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            raise RunFolderError(f"{path} cannot be made ({error.strerror}); choose another folder") from error
        raise
