"""The examples: bundled clips with finished results, so that one click shows a comparison at once.

The page computes the results itself while nobody needs the machine, once for each version of code and settings, and
keeps them. `python -m demo.examples` computes them beforehand, for images that are built.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sfmttr
from sfmttr.config import RunConfig
from sfmttr.errors import Cancelled, SfmttrError
from sfmttr.io.json_files import cache_key, read_json, write_json

from .config import Example, PageConfig
from .eta import TimingHistory
from .export_worker import ExportRequest
from .jobs import OnEvent
from .runner import Runner
from .sessions import Session

if TYPE_CHECKING:
    from .queue import WorkQueue

_log = logging.getLogger(__name__)
_MADE = "made.json"
_PREFIX = "example-"
_PAUSE_S = 5.0


class Examples:
    """The results of the examples, in `folder`."""

    def __init__(self, folder: Path, config: PageConfig) -> None:
        self._folder, self._config = folder, config
        self._sessions = {
            f"{_PREFIX}{each.name}": Session(f"{_PREFIX}{each.name}", folder / each.name) for each in config.examples
        }

    def find(self, id: object) -> Session | None:
        """Return the result with this id; None when it is not an example's."""
        return self._sessions.get(id) if isinstance(id, str) else None

    def owns(self, session: Session) -> bool:
        """Return whether a result is an example's."""
        return session.id in self._sessions

    def session(self, example: Example) -> Session:
        """Return where the result of an example is kept."""
        return self._sessions[f"{_PREFIX}{example.name}"]

    def by_name(self, name: str) -> Example:
        """Return the example of this name. Raises KeyError."""
        return {each.name: each for each in self._config.examples}[name]

    def config(self, example: Example) -> RunConfig:
        """Return the configuration that the result is computed with."""
        return RunConfig(
            network=self._config.example_network,
            preset=self._config.example_preset,
            video=self._config.video,
            seed=self._config.seed,
        )

    def ready(self, example: Example) -> bool:
        """Return whether the result exists, is complete, and is of this version."""
        session = self.session(example)
        try:
            made = read_json(session.folder / _MADE)["key"] if (session.folder / _MADE).is_file() else None
        except (SfmttrError, KeyError, TypeError):
            return False
        return made == self._key(example) and session.finished

    def compute(self, example: Example, on_event: OnEvent, runner: Runner) -> None:
        """Run and export the example; stages of an earlier attempt are reused."""
        from sfmttr.refinement.backend import LocalBackend

        session = self.session(example)
        session.folder.mkdir(parents=True, exist_ok=True)
        (session.folder / _MADE).unlink(missing_ok=True)
        # Never on rented GPUs: their quota is a visitor's.
        runner.run(session, example.clip, self.config(example), LocalBackend("cpu"), on_event)
        runner.export(session, ExportRequest(), on_event)
        write_json(session.folder / _MADE, {"key": self._key(example)})

    def missing(self) -> Iterator[Example]:
        """Yield the examples whose clip exists and whose result is not ready."""
        return (each for each in self._config.examples if each.clip.is_file() and not self.ready(each))

    def _key(self, example: Example) -> str:
        clip = example.clip
        return cache_key(sfmttr.__version__, [clip.name, clip.stat().st_size, self.config(example)])


def compute_in_background(examples: Examples, queue: WorkQueue, runner: Runner) -> None:
    """Start the thread that computes missing results; it steps back whenever a visitor needs the machine."""

    def step_back(_: object) -> None:
        if queue.waiting:
            raise Cancelled("a visitor waits")

    def work() -> None:
        while any(True for _ in examples.missing()):
            time.sleep(_PAUSE_S)
            if not queue.idle:
                continue
            example = next(examples.missing())
            try:
                with queue.acquire(step_back):
                    examples.compute(example, step_back, runner)
            except Cancelled:
                continue
            except Exception:  # noqa: BLE001
                # The page works without its examples; whoever operates it finds this in the log.
                _log.exception("the result of example %s could not be computed", example.name)
                return

    threading.Thread(target=work, name="examples", daemon=True).start()


def main() -> None:
    """Compute the results of all examples now."""
    config = PageConfig()
    folder = config.folder / "examples"
    examples, runner = Examples(folder, config), Runner(TimingHistory(config.folder / "rates.json"))
    for example in list(examples.missing()):
        print(f"{example.title} ...", flush=True)
        examples.compute(example, lambda _: None, runner)
    print(f"All examples are in {folder}")


if __name__ == "__main__":
    main()
