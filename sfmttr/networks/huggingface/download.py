"""Files of a repository on the Hub: its listing at one commit, and a few of its files, fetched into the shared cache.

huggingface_hub does what it can: addresses, login, revisions, the cache's layout and locks, `HF_HOME`, `HF_HUB_CACHE`,
`HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT` and its time-outs. Its `hf_hub_download` is not used, because it
- accepts a file whose checksum is wrong,
- deletes a partial download when a call ends, so that the next call starts again from 0,
- can be canceled only every 10 MB, which is a minute and more on a slow line,
- logs signed addresses when a connection breaks.

Every file is checked against the checksum in the Hub's listing before its path is returned.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from sfmttr.errors import WeightsError
from sfmttr.networks.huggingface import cache
from sfmttr.networks.huggingface.errors import (
    TRANSIENT_STATUS,
    HubUnreachableError,
    disk_error,
    explain_disk_errors,
    http_errors,
    hub_error,
)
from sfmttr.types import OnProgress, Progress

_log = logging.getLogger(__name__)
MAX_ATTEMPTS = 4
"""Per file and call, when the connection breaks; what has arrived is kept between attempts, and afterwards."""
RETRY_PAUSE_S = 1.0
LOCK_POLL_S = 0.5
_GIT_SHA1_DIGITS = 40
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RANGE_NOT_SATISFIABLE = 416


class _ConnectionBrokenError(Exception):
    """The answer ended before the file did."""


@dataclass(frozen=True)
class RemoteFile:
    """One file in the Hub's listing."""

    name: str
    size: int
    """Bytes."""
    checksum: str
    """sha256 of the content (64 hexadecimal digits), or for files in git itself git's sha1 of it (40)."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    """40 hexadecimal digits."""
    names: frozenset[str]
    """Names of all files."""
    files: Mapping[str, RemoteFile]
    """Files with stated size and checksum, by name."""


# ---------------------------------------------------------------------------------------- listing


def look_up(repository: str, revision: str, wanted: Sequence[str] = ()) -> Snapshot:
    """Ask the Hub, once, which commit `revision` is and which files it has.

    The cache records which of the `wanted` files do not exist. Raises `HubUnreachableError` when there was no answer,
    so that the cache may do instead, `NetworkError` when there is no such repository or revision, and `WeightsError`
    when access is denied.
    """
    from huggingface_hub import HfApi, constants

    try:
        answer = HfApi(library_name="sfmttr").model_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        listed = {
            entry.rfilename: RemoteFile(
                entry.rfilename,
                entry.lfs.size if entry.lfs else -1 if entry.size is None else entry.size,
                entry.lfs.sha256 if entry.lfs else entry.blob_id or "",
            )
            for entry in answer.siblings or []
        }
        commit = answer.sha or ""
        files = {name: file for name, file in listed.items() if _CHECKSUM.fullmatch(file.checksum) and file.size >= 0}
    except http_errors() as error:
        raise hub_error(error, repository, revision) from None
    except OSError as error:
        raise WeightsError(
            f"the login for the Hub cannot be read from {constants.HF_TOKEN_PATH} ({error.strerror}): "
            "make that file readable, or set HF_TOKEN"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError):
        commit, listed, files = "", {}, {}
    if not cache.is_commit(commit):
        raise HubUnreachableError(
            f"{repository} could not be looked up: what answered in the Hub's place is not the Hub (a login page of "
            "the network, or a wrong HF_ENDPOINT?), and the cache does not hold the model: connect and try again"
        )
    cache.record(repository, revision, commit, [name for name in wanted if name not in listed])
    return Snapshot(repository, commit, frozenset(listed), files)


# --------------------------------------------------------------------------------------- download


def fetch(snapshot: Snapshot, files: Sequence[RemoteFile], on_progress: OnProgress) -> dict[str, Path]:
    """Return the paths of `files` in the cache, by name; missing and damaged ones are downloaded.

    Progress counts the bytes of all of them. A download that breaks off, or that `on_progress` ends by raising, is
    resumed by the next call. Raises `WeightsError` and `NetworkError`.
    """
    paths: dict[str, Path] = {}
    total, done = sum(file.size for file in files), 0
    _check_space(snapshot, files)
    for file in files:
        path = cache.cached_file(snapshot.repository, snapshot.commit, file.name)
        if path is None or not _is_intact(path, file):
            path = _download(snapshot, file, on_progress, done, total)
        paths[file.name] = path
        done += file.size
        on_progress(Progress("weights", done, total, file.name))
    return paths


def _download(snapshot: Snapshot, file: RemoteFile, on_progress: OnProgress, before: int, total: int) -> Path:
    """Download the file into the cache; progress starts at `before` of `total` bytes."""
    repository = snapshot.repository
    blob = cache.repository_folder(repository) / "blobs" / file.checksum
    partial = blob.with_name(f"{file.checksum}.incomplete")
    with explain_disk_errors(repository):
        blob.parent.mkdir(parents=True, exist_ok=True)
    while (lock := _try_lock(snapshot, file)) is None:  # another process or thread fetches the same file
        on_progress(Progress("weights", before, total, file.name))
    with lock:
        if not _is_intact(blob, file):
            with closing(_receive(snapshot, file, partial)) as sizes:
                for size in sizes:
                    on_progress(Progress("weights", before + size, total, file.name))
            with explain_disk_errors(repository):
                _accept(snapshot, file, partial, blob)
        with explain_disk_errors(repository):
            return cache.link(repository, snapshot.commit, file.name, blob)


def _try_lock(snapshot: Snapshot, file: RemoteFile) -> ExitStack | None:
    """Take the lock that the library, too, takes for this blob; None: another process or thread has it."""
    from huggingface_hub.utils import WeakFileLock

    folder = cache.repository_folder(snapshot.repository).name
    path = cache.root() / ".locks" / folder / f"{file.checksum}.lock"
    lock = ExitStack()
    with explain_disk_errors(snapshot.repository):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.enter_context(WeakFileLock(path, timeout=LOCK_POLL_S))
        except TimeoutError:
            return None
    return lock


def _receive(snapshot: Snapshot, file: RemoteFile, partial: Path) -> Generator[int, None, None]:
    """Complete `partial` from where it stands, and yield its size as it grows."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    repository, reason = snapshot.repository, ""
    for attempt in range(MAX_ATTEMPTS):
        if attempt:
            _log.warning("%s of %s: %s; the download is resumed", file.name, repository, reason)
            time.sleep(RETRY_PAUSE_S)
        try:
            yield from _request(snapshot, file, partial)
            return
        except _ConnectionBrokenError as error:
            reason = str(error)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status == _RANGE_NOT_SATISFIABLE:
                with explain_disk_errors(repository):
                    partial.unlink(missing_ok=True)
            elif status not in TRANSIENT_STATUS:
                raise hub_error(error, repository, snapshot.commit) from None
            reason = f"the server answered {status}"
        except OfflineModeIsEnabled as error:
            raise hub_error(error, repository, snapshot.commit) from None
        except http_errors() as error:
            reason = f"the connection broke ({type(error).__name__})"
        except OSError as error:
            raise disk_error(error, repository) from error
    raise WeightsError(
        f"{file.name} of {repository} could not be downloaded, {reason}: try again later, and the download is resumed"
    )


def _request(snapshot: Snapshot, file: RemoteFile, partial: Path) -> Iterator[int]:
    """Request what `partial` lacks, once, and append it as it arrives; yields the size."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    partial.touch()
    size = partial.stat().st_size
    if size > file.size:
        size = 0
    yield size
    if size == file.size:
        return
    headers = build_hf_headers(library_name="sfmttr")
    headers["Accept-Encoding"] = "identity"  # the size of what is sent is the size of the file
    if size:
        headers["Range"] = f"bytes={size}-"
    address = hf_hub_url(snapshot.repository, file.name, revision=snapshot.commit)
    with get_session().stream(
        "GET", address, headers=headers, follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    ) as response:
        hf_raise_for_status(response)
        if not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            size = 0  # the whole file is sent
        with partial.open("r+b") as target:
            if target.seek(0, os.SEEK_END) > size:
                target.truncate(size)
                target.seek(size)
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > file.size:
                    target.truncate(0)
                    raise _ConnectionBrokenError("more was sent than the Hub lists")
                target.write(chunk)
                yield size
    if size < file.size:
        raise _ConnectionBrokenError(f"it ended after {size} of {file.size} bytes")


def _accept(snapshot: Snapshot, file: RemoteFile, partial: Path, blob: Path) -> None:
    """Turn a complete download into a blob of the cache; one with a wrong checksum is deleted."""
    if not _is_intact(partial, file):
        partial.unlink(missing_ok=True)
        raise WeightsError(
            f"{file.name} of {snapshot.repository} arrived damaged (its checksum is wrong) and was deleted: try again"
        )
    partial.replace(blob)


def _is_intact(path: Path, file: RemoteFile) -> bool:
    """Return whether size and checksum are those of the listing."""
    try:
        if path.stat().st_size != file.size:
            return False
        in_git = len(file.checksum) == _GIT_SHA1_DIGITS
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if in_git else hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == file.checksum


def _check_space(snapshot: Snapshot, files: Sequence[RemoteFile]) -> None:
    """Raise `WeightsError` before the first byte when the disk cannot hold what is missing."""
    blobs = cache.repository_folder(snapshot.repository) / "blobs"
    missing = 0
    for file in files:
        partial = blobs / f"{file.checksum}.incomplete"
        found = cache.cached_file(snapshot.repository, snapshot.commit, file.name)
        if found is None and not (blobs / file.checksum).is_file():
            missing += max(file.size - (partial.stat().st_size if partial.is_file() else 0), 0)
    root = cache.root().absolute()
    with explain_disk_errors(snapshot.repository):
        free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    if missing > free:
        raise WeightsError(
            f"{snapshot.repository} needs {missing / 1e6:.0f} MB more and {root} has {free / 1e6:.0f} MB free: "
            "make room, or set HF_HOME to a folder on a larger disk"
        )
