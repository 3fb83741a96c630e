"""Errors of the Hub and its cache, as typed errors of one sentence that tells the user what to do.

The library's own messages are not repeated: they may hold signed addresses.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache as cached_result

from sfmttr.errors import NetworkError, SfmttrError, WeightsError

_log = logging.getLogger(__name__)
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status of a server in passing trouble."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class HubUnreachableError(WeightsError):
    """The Hub did not answer, or must not be asked (`HF_HUB_OFFLINE`); the cache may do instead."""


@cached_result
def http_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the library's HTTP client. The client differs between versions of the library."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    base = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    client = sys.modules[base.__module__.partition(".")[0]]
    return (OfflineModeIsEnabled, base, client.InvalidURL)


def hub_error(error: Exception, repository: str, revision: str) -> SfmttrError:
    """Return the typed error for one that the library raised."""
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
        advice = "try again later" if status in TRANSIENT_STATUS else "check the name and HF_ENDPOINT"
        kind = HubUnreachableError if status in TRANSIENT_STATUS else WeightsError
        return kind(f"the Hub answered {status} for {repository}, and the cache does not hold it: {advice}")
    return HubUnreachableError(
        f"the Hub could not be reached ({type(error).__name__}) and the cache does not hold {repository}: "
        "connect and try again"
    )


def disk_error(error: OSError, repository: str) -> WeightsError:
    """Return the typed error for one of the cache's disk."""
    from huggingface_hub import constants

    if error.errno in _DISK_FULL:
        return WeightsError(
            f"the disk is full: make room, or set HF_HOME to a folder on a larger disk, and fetch {repository} again"
        )
    return WeightsError(
        f"{repository} cannot be stored in {constants.HF_HUB_CACHE} ({error.strerror or type(error).__name__})"
        ": make that folder writable, or set HF_HOME to another"
    )


@contextmanager
def explain_disk_errors(repository: str) -> Iterator[None]:
    """Raise `disk_error` for every OSError inside."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, repository) from error
