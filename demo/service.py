"""The work of one page, started by buttons and API alike. Nothing here knows gradio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sfmttr.config import RunConfig
from sfmttr.errors import ClipError, NetworkError
from sfmttr.types import Progress

from . import zerogpu
from .config import PageConfig
from .eta import TimingHistory
from .examples import Examples
from .export_worker import ExportRequest
from .jobs import Job, Jobs, OnEvent
from .network_choices import NetworkChoices
from .queue import WorkQueue
from .runner import QueueEvent, Runner
from .sessions import Session, SessionStore

if TYPE_CHECKING:
    from sfmttr.refinement.backend import Backend


class Service:
    """Queue, running jobs, stored results and examples of one page."""

    def __init__(self, config: PageConfig, backend: Callable[[], Backend] | None = None) -> None:
        self.config = config
        self.store = SessionStore(config.folder / "visitors", config.keep_s, config.keep_most)
        self.queue = WorkQueue(config.queue_length)
        self.jobs = Jobs()
        self.timings = TimingHistory(config.folder / "rates.json")
        self.runner = Runner(self.timings)
        self.choices = NetworkChoices(config.most_parameters)
        self.backend = backend or zerogpu.make_backend()
        self.examples = Examples(config.folder / "examples", config)

    def stages_s(self, frames: int, network: str, preset: str) -> dict[str, float] | None:
        """Estimate the seconds of each stage of a run, in order; None while nothing is known of the network."""
        cost = self.choices.cost_model(network)
        if cost is None and not self.timings.has_refinement(network, preset):
            return None
        return self.timings.stages_s(frames, network, preset, cost)

    def find(self, id: object) -> Session | None:
        """Return the run or upload with this id, a visitor's or an example's; None when there is none."""
        return self.examples.find(id) or self.store.find(id)

    def finished(self, id: object) -> Session:
        """Return the finished run with this id. Raises `ClipError` when there is none."""
        session = self.find(id)
        if session is None or not session.finished:
            raise ClipError("This run was not found: results are deleted after a day. Please run it again.")
        return session

    def start_run(self, clip: Path, config: RunConfig, visitor: str) -> Job[Session]:
        """Start a job that refines `config.network` on `clip`, in a folder of its own."""
        job: Job[Session] = Job(lambda on_event: self._run(clip, config, on_event))
        self.jobs.start(job, visitor)
        return job

    def _run(self, clip: Path, config: RunConfig, on_event: OnEvent) -> Session:
        self._look_up(config.network, on_event)  # before the queue, and before its weights are downloaded
        session = self.store.new()
        try:
            with self._machine(session, on_event):
                self.runner.run(session, clip, config, self.backend(), on_event, self.config.live_every_s)
            return session
        except BaseException:
            self.store.delete(session)
            raise
        finally:
            zerogpu.free_memory()

    def _look_up(self, network: str, on_event: OnEvent) -> None:
        """Check that a network can be used, in a thread: the Hub may be slow, and the run can be stopped meanwhile."""
        lookup = Job(lambda _: self.choices.describe(network))
        lookup.start()
        while not lookup.join(self.config.poll_s):
            on_event(Progress("weights", 0, 0, "looking up the network"))
        if lookup.result is not None and lookup.result.problem:
            raise NetworkError(lookup.result.problem)

    def start_export(self, session: Session, request: ExportRequest, visitor: str) -> Job[Session]:
        """Start a job that exports the run's network and packs its kit."""
        job: Job[Session] = Job(lambda on_event: self._export(session, request, on_event))
        self.jobs.start(job, visitor)
        return job

    def _export(self, session: Session, request: ExportRequest, on_event: OnEvent) -> Session:
        if self.examples.owns(session):
            raise ClipError("This example is exported already: run the example live to export a network of your own.")
        with self._machine(session, on_event):
            self.runner.export(session, request, on_event)
        return session

    @contextmanager
    def _machine(self, session: Session, on_event: OnEvent) -> Iterator[None]:
        """Wait in the queue and hold the machine; meanwhile `session` is not swept."""
        with self.store.in_use(session), self.queue.acquire(lambda position: on_event(QueueEvent(position))):
            yield
