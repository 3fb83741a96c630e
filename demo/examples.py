"""The gallery: bundled clips with finished results, so that one click shows a comparison at once.

Results are made by the page itself while nobody waits for the machine, once for each version of code and settings, and
kept. `python -m demo.examples` makes them beforehand, for images that are built.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sfmttr
from sfmttr.config import RunConfig
from sfmttr.errors import Cancelled, SfmttrError
from sfmttr.io.json_files import cache_key, read_json, write_json

from .config import Example, PageConfig
from .sessions import Session

if TYPE_CHECKING:
    from .service import Service

_log = logging.getLogger(__name__)
_MADE = "made.json"
_PREFIX = "example-"
_REST_S = 5.0


class Examples:
    """The examples' results, in `folder`."""

    def __init__(self, folder: Path, config: PageConfig) -> None:
        self._folder, self._config = folder, config
        self._sessions = {
            f"{_PREFIX}{each.name}": Session(f"{_PREFIX}{each.name}", folder / each.name) for each in config.examples
        }

    def find(self, id: object) -> Session | None:
        return self._sessions.get(id) if isinstance(id, str) else None

    def owns(self, session: Session) -> bool:
        return session.id in self._sessions

    def session(self, example: Example) -> Session:
        return self._sessions[f"{_PREFIX}{example.name}"]

    def by_name(self, name: str) -> Example:
        """Raises KeyError."""
        return {each.name: each for each in self._config.examples}[name]

    def config(self, example: Example) -> RunConfig:
        """What its result is made with."""
        return RunConfig(
            network=self._config.example_network,
            preset=self._config.example_preset,
            video=self._config.video,
            seed=self._config.seed,
        )

    def ready(self, example: Example) -> bool:
        """Whether its result is there, whole, and of this version."""
        session = self.session(example)
        try:
            made = read_json(session.folder / _MADE)["key"] if (session.folder / _MADE).is_file() else None
        except (SfmttrError, KeyError, TypeError):
            return False
        return made == self._key(example) and session.finished

    def make(self, example: Example, tell: Callable[[object], None], service: Service) -> None:
        """Run and export the example; what is there of an earlier try is used."""
        from sfmttr.refinement.backend import LocalBackend

        from .export_worker import ExportRequest
        from .runner import export_into, run_into

        session = self.session(example)
        session.folder.mkdir(parents=True, exist_ok=True)
        (session.folder / _MADE).unlink(missing_ok=True)
        # Never on rented GPUs: those are asked for in a visitor's name.
        run_into(session, example.clip, self.config(example), LocalBackend("cpu"), tell, service.timings)
        export_into(session, ExportRequest(), tell, service.timings)
        write_json(session.folder / _MADE, {"key": self._key(example)})

    def missing(self) -> Iterator[Example]:
        return (each for each in self._config.examples if each.clip.is_file() and not self.ready(each))

    def _key(self, example: Example) -> str:
        clip = example.clip
        return cache_key(sfmttr.__version__, [clip.name, clip.stat().st_size, self.config(example)])


def prepare_in_background(service: Service) -> None:
    """Start the thread that makes what is missing, stepping back whenever a visitor wants the machine."""

    def step_back(_: object) -> None:
        if service.queue.waiting:
            raise Cancelled("a visitor waits")

    def work() -> None:
        while any(True for _ in service.examples.missing()):
            time.sleep(_REST_S)
            if not service.queue.idle:
                continue
            example = next(service.examples.missing())
            try:
                with service.queue.acquire(step_back):
                    service.examples.make(example, step_back, service)
            except Cancelled:
                continue
            except Exception:  # noqa: BLE001 - see below
                # The page works without its examples; whoever runs it finds this in the log.
                _log.exception("the result of example %s could not be made", example.name)
                return

    threading.Thread(target=work, name="examples", daemon=True).start()


def main() -> None:
    """Make the results of all examples now."""
    from .service import Service

    service = Service(PageConfig())
    for example in list(service.examples.missing()):
        print(f"{example.title} ...", flush=True)
        service.examples.make(example, lambda _: None, service)
    print(f"All examples are in {service.config.folder / 'examples'}")


if __name__ == "__main__":
    main()
