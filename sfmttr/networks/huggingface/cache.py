"""huggingface_hub's own cache, in its published layout: `blobs` named by checksum, `refs`, `snapshots`, `.no_exist`.

What other programs fetched is found here, and the other way round.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

_log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(text: str) -> bool:
    """Return whether `text` is the full hash of a commit."""
    return _COMMIT.fullmatch(text) is not None


def root() -> Path:
    """Folder of the cache: `HF_HUB_CACHE`, or as `HF_HOME` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    """Folder of one model in the cache."""
    from huggingface_hub.file_download import repo_folder_name

    return root() / repo_folder_name(repo_id=repository, repo_type="model")


def cached_commit(repository: str, revision: str) -> str | None:
    """Return the commit of `revision` when the Hub was last asked, or `revision` itself where it is a commit."""
    if is_commit(revision):
        return revision
    try:
        commit = (repository_folder(repository) / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def cached_file(repository: str, commit: str, name: str) -> Path | None:
    """Return the file's path in the cache, unopened; None: it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def is_known_absent(repository: str, commit: str, name: str) -> bool:
    """Return whether the cache records that the repository has no such file at this commit."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    return try_to_load_from_cache(repository, name, revision=commit) is _CACHED_NO_EXIST


def record(repository: str, revision: str, commit: str, absent: Sequence[str]) -> None:
    """Record for later use offline which commit `revision` is, and which files do not exist there."""
    folder = repository_folder(repository)
    notes = {folder / ".no_exist" / commit / name: "" for name in absent}
    if revision != commit:
        notes[folder / "refs" / revision] = commit
    try:
        for path, text in notes.items():
            if not path.is_file() or path.read_text(encoding="ascii") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
    except (OSError, ValueError) as error:  # a read-only cache still serves
        _log.debug("the revision of %s is not recorded in the cache: %s", repository, error)


def link(repository: str, commit: str, name: str, blob: Path) -> Path:
    """Enter `blob` into the snapshot of `commit` under the file's name, and return that path. Raises OSError."""
    from huggingface_hub.file_download import are_symlinks_supported

    path = repository_folder(repository) / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(blob):
        return path
    path.unlink(missing_ok=True)
    if are_symlinks_supported(root()):
        path.symlink_to(os.path.relpath(blob, path.parent))
    else:
        blob.replace(path)
    return path


def evict(path: Path) -> None:
    """Delete a cached file: the link in its snapshot, and its blob as far as that lies in the cache."""
    inside = root().resolve()
    while path.parent.resolve().is_relative_to(inside):
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target
