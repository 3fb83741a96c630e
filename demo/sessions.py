"""Folders of visitors: each under an id that cannot be guessed, deleted when nobody has looked at it for long.

The id is all that opens a run: it stands in the address of the page, so that a reload or a link finds it again.
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
_TOUCHED = ".looked-at"


@dataclass(frozen=True)
class Session:
    """One folder of the store: an upload, a run, or both."""

    id: str
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def finished(self) -> bool:
        return (self.run / REPORT).is_file()

    def touch(self) -> None:
        """Somebody looks at it."""
        (self.folder / _TOUCHED).touch()

    @property
    def age_s(self) -> float:
        """Since somebody last looked at it."""
        for path in (self.folder / _TOUCHED, self.folder):
            try:
                return time.time() - path.stat().st_mtime
            except OSError:
                continue
        return 0.0


class SessionStore:
    """All folders of visitors, in `root`."""

    def __init__(self, root: Path, keep_s: float, keep_most: int) -> None:
        self._root, self._keep_s, self._keep_most = root, keep_s, keep_most
        self._in_use: dict[str, int] = {}
        self._lock = threading.Lock()

    def new(self) -> Session:
        """An empty folder of its own."""
        session = self._session(secrets.token_urlsafe(16))
        session.folder.mkdir(parents=True)
        session.touch()
        return session

    def find(self, id: object) -> Session | None:
        """The folder with this id, whatever was given for one; None when there is none, or no more."""
        if not isinstance(id, str) or not _ID.fullmatch(id):
            return None
        session = self._session(id)
        if not session.folder.is_dir():
            return None
        session.touch()
        return session

    def delete(self, session: Session) -> None:
        """Remove the folder with all that is in it; somebody who still uses it sees it go."""
        shutil.rmtree(session.folder, ignore_errors=True)

    @contextmanager
    def in_use(self, session: Session) -> Iterator[None]:
        """While this lasts, `sweep` leaves the folder alone."""
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
        """Delete what is too old, and the oldest of what is too many; give how many went."""
        sessions = sorted(self._all(), key=lambda session: session.age_s)
        with self._lock:
            idle = [(place, each) for place, each in enumerate(sessions) if each.id not in self._in_use]
        gone = [each for place, each in idle if each.age_s > self._keep_s or place >= self._keep_most]
        for session in gone:
            self.delete(session)
        return len(gone)

    def _session(self, id: str) -> Session:
        return Session(id, self._root / id)

    def _all(self) -> Iterator[Session]:
        if self._root.is_dir():
            for path in self._root.iterdir():
                if path.is_dir() and _ID.fullmatch(path.name):
                    yield self._session(path.name)


def sweep_forever(sweeps: Sequence[Callable[[], object]], every_s: float) -> None:
    """Start the thread that does these again and again; it ends with the process."""

    def sweep() -> None:
        while True:
            for each in sweeps:
                each()
            time.sleep(every_s)

    threading.Thread(target=sweep, name="sweep", daemon=True).start()
