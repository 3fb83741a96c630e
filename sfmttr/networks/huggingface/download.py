"""Files of a repository on the Hub: what it holds at one commit, and a few of its files, fetched into the shared cache.

The cache is huggingface_hub's own, in its published layout (`blobs` named by checksum, `refs`, `snapshots`), so that
what other programs fetched is found here and the other way round. The library's settings hold: `HF_HOME`,
`HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT`, and its two time-outs. Bytes are received here and not by
its `hf_hub_download`, for three reasons: since version 2 that throws a broken download away and starts again; it can
wait for minutes before it says that the Hub does not answer; and it cannot be stopped at every chunk.

Every file is checked against the checksum that the Hub states before it is given out. Nothing is fetched that was not
asked for by name, and nothing here reads what a file holds.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sfmttr.errors import NetworkError, SfmttrError, WeightsError
from sfmttr.types import OnProgress, Progress

_log = logging.getLogger(__name__)
_TRIES = 4
"""Of one file within one call, when the connection breaks; what has arrived is kept between them and afterwards."""
_PAUSE_S = 1.0
_LOCK_POLL_S = 0.5
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GIT_BLOB_DIGITS = 40
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status of a server in passing trouble."""
_RANGE_NOT_SATISFIABLE = 416
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class HubUnreachableError(WeightsError):
    """The Hub did not answer, or may not be asked."""


class _Broken(Exception):  # noqa: N818 - caught here alone
    """The connection ended before the file did."""


@dataclass(frozen=True)
class RemoteFile:
    """One file as the Hub lists it."""

    name: str
    size: int
    """Bytes."""
    checksum: str
    """sha256 of the content, or for what lies in git itself git's sha1 of it: 64 or 40 hexadecimal digits."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str
    """40 hexadecimal digits."""
    names: frozenset[str]
    """Of all files."""
    files: Mapping[str, RemoteFile]
    """Of these, by name, those whose size and checksum the Hub states."""


# ------------------------------------------------------------------------------------------ cache


def _folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def cached_commit(repository: str, revision: str) -> str | None:
    """The commit that `revision` was when the Hub was last asked, or `revision` itself where it is a commit."""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (_folder(repository) / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def cached(repository: str, commit: str, name: str) -> Path | None:
    """The file's path in the cache, unopened."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def is_known_absent(repository: str, commit: str, name: str) -> bool:
    """Whether the cache says that the repository has no such file at this commit."""
    return (_folder(repository) / ".no_exist" / commit / name).is_file()


def evict(path: Path) -> None:
    """Delete a cached file: the link in its snapshot and what it leads to, as far as that lies in the cache."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE).resolve()
    while path.parent.resolve().is_relative_to(root):
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target


def _remember(snapshot: Snapshot, revision: str, absent: Sequence[str]) -> None:
    """Note for times without a connection which commit `revision` is, and which of the wanted files do not exist."""
    folder = _folder(snapshot.repository)
    notes = {folder / ".no_exist" / snapshot.commit / name: "" for name in absent}
    if revision != snapshot.commit:
        notes[folder / "refs" / revision] = snapshot.commit
    try:
        for path, text in notes.items():
            if not path.is_file() or path.read_text(encoding="ascii") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
    except (OSError, ValueError) as error:  # a cache that can only be read still serves
        _log.debug("%s is not noted in the cache: %s", snapshot.repository, error)


# ---------------------------------------------------------------------------------------- listing


def look_up(repository: str, revision: str, wanted: Sequence[str] = ()) -> Snapshot:
    """Ask the Hub, once, which commit `revision` is and what it holds.

    The cache notes which of the `wanted` files do not exist. `HubUnreachableError`: there was no answer, and the
    cache may do instead; `NetworkError`: there is no such repository or revision; `WeightsError`: access is denied.
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
    except _http_errors() as error:
        raise _refusal(error, repository, revision) from None
    except OSError as error:
        raise WeightsError(
            f"the login for the Hub cannot be read from {constants.HF_TOKEN_PATH} ({error.strerror}): "
            "make that file readable, or set HF_TOKEN"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError):
        commit, listed, files = "", {}, {}
    if not _COMMIT.fullmatch(commit):
        raise HubUnreachableError(
            f"{repository} could not be looked up: what answered in the Hub's place is not the Hub (a login page of "
            "the network, or a wrong HF_ENDPOINT?), and the cache does not hold the model: connect and try again"
        )
    found = Snapshot(repository, commit, frozenset(listed), files)
    _remember(found, revision, [name for name in wanted if name not in found.names])
    return found


# --------------------------------------------------------------------------------------- download


def fetch(snapshot: Snapshot, files: Sequence[RemoteFile], on_progress: OnProgress) -> dict[str, Path]:
    """Paths of these files in the cache, by name; what is not there, or damaged there, is downloaded.

    Progress counts the bytes of all of them. What has arrived when a download breaks off, or is stopped by
    `on_progress`, is continued by the next call.
    """
    paths: dict[str, Path] = {}
    total, done = sum(file.size for file in files), 0
    _check_space(snapshot, files)
    for file in files:
        path = cached(snapshot.repository, snapshot.commit, file.name)
        if path is None or not _is_right(path, file):
            path = _download(snapshot, file, on_progress, done, total)
        paths[file.name] = path
        done += file.size
        on_progress(Progress("weights", done, total, file.name))
    return paths


def _download(snapshot: Snapshot, file: RemoteFile, on_progress: OnProgress, before: int, total: int) -> Path:
    """Bring the file into the cache; `before` bytes of `total` are already there."""
    blob = _folder(snapshot.repository) / "blobs" / file.checksum
    partial = blob.with_name(f"{file.checksum}.incomplete")
    with _explained(snapshot):
        blob.parent.mkdir(parents=True, exist_ok=True)
    while (lock := _try_lock(snapshot, file)) is None:  # another process or thread fetches the same file
        on_progress(Progress("weights", before, total, file.name))
    with lock:
        if not _is_right(blob, file):
            with closing(_growing(snapshot, file, partial)) as sizes:
                for size in sizes:
                    on_progress(Progress("weights", before + size, total, file.name))
            with _explained(snapshot):
                _accept(snapshot, file, partial, blob)
        with _explained(snapshot):
            return _link(snapshot, file, blob)


def _try_lock(snapshot: Snapshot, file: RemoteFile) -> ExitStack | None:
    """The lock that the library too takes for this blob, held; None: another has it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    path = Path(constants.HF_HUB_CACHE) / ".locks" / _folder(snapshot.repository).name / f"{file.checksum}.lock"
    lock = ExitStack()
    with _explained(snapshot):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.enter_context(WeakFileLock(path, timeout=_LOCK_POLL_S))
        except TimeoutError:
            return None
    return lock


def _growing(snapshot: Snapshot, file: RemoteFile, partial: Path) -> Generator[int, None, None]:
    """Let `partial` grow to the file's size, from where it stands; yields its size as it does."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    reason = ""
    for attempt in range(_TRIES):
        if attempt:
            _log.warning("%s of %s: %s; going on where it stopped", file.name, snapshot.repository, reason)
            time.sleep(_PAUSE_S)
        try:
            yield from _continued(snapshot, file, partial)
            return
        except _Broken as error:
            reason = str(error)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status == _RANGE_NOT_SATISFIABLE:
                with _explained(snapshot):
                    partial.unlink(missing_ok=True)
            elif status not in _BUSY:
                raise _refusal(error, snapshot.repository, snapshot.commit) from None
            reason = f"the server answered {status}"
        except OfflineModeIsEnabled as error:
            raise _refusal(error, snapshot.repository, snapshot.commit) from None
        except _http_errors() as error:
            reason = f"the connection broke ({type(error).__name__})"
        except OSError as error:
            raise _disk_error(error, snapshot) from error
    raise WeightsError(
        f"{file.name} of {snapshot.repository} could not be downloaded, {reason}: try again later, "
        "and it goes on where it stopped"
    )


def _continued(snapshot: Snapshot, file: RemoteFile, partial: Path) -> Iterator[int]:
    """One request for what `partial` lacks, appended to it as it arrives."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    partial.touch()
    have = partial.stat().st_size
    if have > file.size:
        have = 0
    yield have
    if have == file.size:
        return
    headers = build_hf_headers(library_name="sfmttr")
    headers["Accept-Encoding"] = "identity"  # the size of what is sent is the size of the file
    if have:
        headers["Range"] = f"bytes={have}-"
    address = hf_hub_url(snapshot.repository, file.name, revision=snapshot.commit)
    with get_session().stream(
        "GET", address, headers=headers, follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    ) as response:
        hf_raise_for_status(response)
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the whole file is sent
        with partial.open("r+b") as target:
            if target.seek(0, os.SEEK_END) > have:
                target.truncate(have)
                target.seek(have)
            for chunk in response.iter_bytes():
                have += len(chunk)
                if have > file.size:
                    target.truncate(0)
                    raise _Broken("more was sent than the Hub lists")
                target.write(chunk)
                yield have
    if have < file.size:
        raise _Broken(f"it ended after {have} of {file.size} bytes")


def _accept(snapshot: Snapshot, file: RemoteFile, partial: Path, blob: Path) -> None:
    """Make what arrived a blob of the cache if its checksum is right, else drop it."""
    if not _is_right(partial, file):
        partial.unlink(missing_ok=True)
        raise WeightsError(
            f"{file.name} of {snapshot.repository} arrived damaged (its checksum is wrong) and was dropped: try again"
        )
    partial.replace(blob)


def _link(snapshot: Snapshot, file: RemoteFile, blob: Path) -> Path:
    """Enter the blob into its snapshot under the file's name."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import are_symlinks_supported

    path = _folder(snapshot.repository) / "snapshots" / snapshot.commit / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(blob):
        return path
    path.unlink(missing_ok=True)
    if are_symlinks_supported(constants.HF_HUB_CACHE):
        path.symlink_to(os.path.relpath(blob, path.parent))
    else:
        blob.replace(path)
    return path


def _is_right(path: Path, file: RemoteFile) -> bool:
    try:
        if path.stat().st_size != file.size:
            return False
        in_git = len(file.checksum) == _GIT_BLOB_DIGITS
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if in_git else hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == file.checksum


def _check_space(snapshot: Snapshot, files: Sequence[RemoteFile]) -> None:
    """Refuse what the disk cannot hold before the first byte."""
    from huggingface_hub import constants

    blobs = _folder(snapshot.repository) / "blobs"
    missing = 0
    for file in files:
        partial = blobs / f"{file.checksum}.incomplete"
        if cached(snapshot.repository, snapshot.commit, file.name) is None and not (blobs / file.checksum).is_file():
            missing += max(file.size - (partial.stat().st_size if partial.is_file() else 0), 0)
    root = Path(constants.HF_HUB_CACHE).absolute()
    with _explained(snapshot):
        free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    if missing > free:
        raise WeightsError(
            f"{snapshot.repository} needs {missing / 1e6:.0f} MB more and {root} has {free / 1e6:.0f} MB free: "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


# ----------------------------------------------------------------------------------------- errors


@cache
def _http_errors() -> tuple[type[Exception], ...]:
    """What the library's HTTP client raises; which client that is changed between the library's versions."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    client = sys.modules[base.__module__.partition(".")[0]]
    return (OfflineModeIsEnabled, base, client.InvalidURL)


@contextmanager
def _explained(snapshot: Snapshot) -> Iterator[None]:
    """What goes wrong with the cache's folder becomes a sentence."""
    try:
        yield
    except OSError as error:
        raise _disk_error(error, snapshot) from error


def _disk_error(error: OSError, snapshot: Snapshot) -> WeightsError:
    from huggingface_hub import constants

    if error.errno in _FULL:
        return WeightsError(
            f"the disk is full: make room, or set HF_HOME to a folder on a larger disk, and fetch "
            f"{snapshot.repository} again"
        )
    return WeightsError(
        f"{snapshot.repository} cannot be stored in {constants.HF_HUB_CACHE} ({error.strerror or type(error).__name__})"
        ": make that folder writable, or set HF_HOME to another"
    )


def _refusal(error: Exception, repository: str, revision: str) -> SfmttrError:
    """Say what the library reports. Its own words are not repeated: they may hold addresses that carry secrets."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    _log.debug("the Hub about %s: %s %d", repository, type(error).__name__, status)
    page = f"https://huggingface.co/{repository}"
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{repository} is gated: accept its terms on {page}, then log in with `hf auth login` or set HF_TOKEN, "
            "and try again"
        )
    if isinstance(error, errors.DisabledRepoError):
        return WeightsError(f"{repository} was disabled on the Hub: choose another model")
    if isinstance(error, errors.RevisionNotFoundError):
        return NetworkError(
            f"{repository} has no revision {revision!r}: choose a branch, tag or commit listed on {page}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return NetworkError(
            f"the Hub has no model {repository}: check the spelling, or if it is private log in with `hf auth login` "
            f"or set HF_TOKEN, or if you mean a folder write ./{repository}"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return WeightsError(f"{repository} lists a file that the Hub does not have: choose another revision of it")
    if status in (401, 403):
        return WeightsError(
            f"the Hub denies access to {repository}: log in again with `hf auth login`, or correct HF_TOKEN"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachableError(
            f"HF_HUB_OFFLINE is set and the cache does not hold {repository}: unset it once to download the model"
        )
    if status:
        advice = "try again later" if status in _BUSY else "check the name and HF_ENDPOINT"
        kind = HubUnreachableError if status in _BUSY else WeightsError
        return kind(f"the Hub answered {status} for {repository}, and the cache does not hold it: {advice}")
    return HubUnreachableError(
        f"the Hub could not be reached ({type(error).__name__}) and the cache does not hold {repository}: "
        "connect and try again"
    )
