"""What the page does for its visitors, whoever asks: buttons and API alike. Nothing here knows gradio."""

from __future__ import annotations

from collections.abc import Callable
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
from .jobs import Job, Jobs
from .network_choices import NetworkChoices
from .queue import WorkQueue
from .sessions import Session, SessionStore

if TYPE_CHECKING:
    from sfmttr.refinement.backend import Backend
from .runner import OnEvent, QueueEvent, export_into, run_into


class Service:
    """One page's work: who has the machine, where results lie, what runs."""

    def __init__(self, config: PageConfig, backend: Callable[[], Backend] | None = None) -> None:
        self.config = config
        self.store = SessionStore(config.folder / "visitors", config.keep_s, config.keep_most)
        self.queue = WorkQueue(config.queue_length)
        self.jobs = Jobs()
        self.timings = TimingHistory(config.folder / "rates.json")
        self.choices = NetworkChoices(config.most_parameters)
        self.backend = backend or zerogpu.make_backend()
        self.examples = Examples(config.folder / "examples", config)

    def stages_s(self, frames: int, network: str, preset: str) -> dict[str, float] | None:
        """Seconds of each stage of a run, in order; None where nothing is known of the network yet."""
        cost = self.choices.cost_model(network)
        if cost is None and not self.timings.has_refinement(network, preset):
            return None
        return self.timings.stages_s(frames, network, preset, cost)

    def find(self, id: object) -> Session | None:
        """The run or upload with this id, a visitor's or an example's."""
        return self.examples.find(id) or self.store.find(id)

    def finished(self, id: object) -> Session:
        """The finished run with this id. Raises `ClipError` with a sentence when there is none."""
        session = self.find(id)
        if session is None or not session.finished:
            raise ClipError(
                "This run is not here, or not any more: runs are deleted after a day. Please start it anew."
            )
        return session

    def start_run(self, clip: Path, config: RunConfig, visitor: str) -> Job[Session]:
        """Refine `config.network` on `clip`, in a folder of its own."""
        job: Job[Session] = Job(lambda tell: self._run(clip, config, tell))
        self.jobs.start(job, visitor)
        return job

    def _run(self, clip: Path, config: RunConfig, tell: OnEvent) -> Session:
        self._look(config.network, tell)  # before anybody waits in line for it, and before its weights are fetched
        session = self.store.new()
        try:
            with self.store.in_use(session), self.queue.acquire(lambda position: tell(QueueEvent(position))):
                run_into(session, clip, config, self.backend(), tell, self.timings, self.config.live_every_s)
            return session
        except BaseException:
            self.store.delete(session)
            raise
        finally:
            zerogpu.free_memory()

    def _look(self, network: str, tell: OnEvent) -> None:
        """Find out what a network is; the Hub may take long to answer, and the run can be stopped meanwhile."""
        looking = Job(lambda _: self.choices.describe(network))
        looking.start()
        while not looking.join(self.config.poll_s):
            tell(Progress("weights", 0, 0, "looking the network up"))
        if looking.result is not None and looking.result.problem:
            raise NetworkError(looking.result.problem)

    def start_export(self, session: Session, wish: ExportRequest, visitor: str) -> Job[Session]:
        """Freeze the run's network and pack its kit."""
        job: Job[Session] = Job(lambda tell: self._export(session, wish, tell))
        self.jobs.start(job, visitor)
        return job

    def _export(self, session: Session, wish: ExportRequest, tell: OnEvent) -> Session:
        if self.examples.owns(session):
            raise ClipError("The examples' kits are made already: run the example live to make one of your own.")
        with self.store.in_use(session), self.queue.acquire(lambda position: tell(QueueEvent(position))):
            export_into(session, wish, tell, self.timings)
        return session
