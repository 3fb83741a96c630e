"""Folders of visitors: each under an id that cannot be guessed, deleted when nobody opened it for long.

Only the id opens a run. It is part of the page's address, so that a reload or a link finds the run again.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfmttr.run.manifest import REPORT

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_LAST_OPENED = ".looked-at"


@dataclass(frozen=True)
class Session:
    """One folder of the store, which holds an upload, a run, or both."""

    id: str
    folder: Path

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    @property
    def finished(self) -> bool:
        """True if there is a run with a report."""
        return (self.run / REPORT).is_file()

    def touch(self) -> None:
        """Record that somebody opened it now."""
        (self.folder / _LAST_OPENED).touch()

    @property
    def age_s(self) -> float:
        """Seconds since somebody last opened it."""
        for path in (self.folder / _LAST_OPENED, self.folder):
            try:
                return time.time() - path.stat().st_mtime
            except OSError:
                continue
        return 0.0


class SessionStore:
    """All folders of visitors, in `root`; `sweep` keeps at most `keep_most`, each for `keep_s` seconds."""

    def __init__(self, root: Path, keep_s: float, keep_most: int) -> None:
        self._root, self._keep_s, self._keep_most = root, keep_s, keep_most
        self._in_use: dict[str, int] = {}
        self._lock = threading.Lock()

    def new(self) -> Session:
        """Create an empty folder."""
        session = self._session(secrets.token_urlsafe(16))
        session.folder.mkdir(parents=True)
        session.touch()
        return session

    def find(self, id: object) -> Session | None:
        """Return the folder with this id, which may be any value; None when there is none, or no more."""
        if not isinstance(id, str) or not _ID.fullmatch(id):
            return None
        session = self._session(id)
        if not session.folder.is_dir():
            return None
        session.touch()
        return session

    def delete(self, session: Session) -> None:
        """Delete the folder with everything in it, even if it is in use."""
        shutil.rmtree(session.folder, ignore_errors=True)

    @contextmanager
    def in_use(self, session: Session) -> Iterator[None]:
        """Keep `sweep` from deleting the folder within this context."""
        with self._lock:
            self._in_use[session.id] = self._in_use.get(session.id, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[session.id] -= 1
                if not self._in_use[session.id]:
                    del self._in_use[session.id]
            if session.folder.is_dir():
                session.touch()

    def sweep(self) -> int:
        """Delete folders that are too old, and the oldest if there are too many; return how many were deleted."""
        sessions = sorted(self._all(), key=lambda session: session.age_s)
        with self._lock:
            idle = [(rank, each) for rank, each in enumerate(sessions) if each.id not in self._in_use]
        expired = [each for rank, each in idle if each.age_s > self._keep_s or rank >= self._keep_most]
        for session in expired:
            self.delete(session)
        return len(expired)

    def _session(self, id: str) -> Session:
        return Session(id, self._root / id)

    def _all(self) -> Iterator[Session]:
        if self._root.is_dir():
            for path in self._root.iterdir():
                if path.is_dir() and _ID.fullmatch(path.name):
                    yield self._session(path.name)


def sweep_forever(sweeps: Sequence[Callable[[], object]], every_s: float) -> None:
    """Start the thread that calls `sweeps` every `every_s` seconds until the process ends."""

    def sweep() -> None:
        while True:
            for each in sweeps:
                each()
            time.sleep(every_s)

    threading.Thread(target=sweep, name="sweep", daemon=True).start()
