"""What a run found, as values; `pipeline` makes them, `report` and `outputs` write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sfmttr.config import RunConfig
from sfmttr.evaluation.comparison import Comparison
from sfmttr.refinement.alignment import Alignment
from sfmttr.refinement.observations import Observations
from sfmttr.refinement.targets import Selection
from sfmttr.refinement.task import RefineResult
from sfmttr.refinement.trust_gate import Consistency, Trust
from sfmttr.run.manifest import REPORT as REPORT
from sfmttr.types import DepthKind, FrameSet, NoModel, SparseModel


@dataclass(frozen=True)
class Aligned:
    """What sparse points and unrefined network say of each other."""

    observations: Observations
    alignment: Alignment
    """Fitted on training rows; its masks are over those."""
    consistency: Consistency
    trust: Trust
    selection: Selection
    """Over all observations."""
    propagated: Observations
    """Further rows to learn from: points in frames where they were not found, but in a neighbour."""


@dataclass(frozen=True)
class RunResult:
    """What a run found; everything else lies in `folder`."""

    folder: Path
    config: RunConfig
    network: str
    """The name that it goes by in what the run leaves behind."""
    licence: str
    """Of its weights, as its authors state it."""
    kind: DepthKind
    frames: FrameSet
    sparse: SparseModel | NoModel
    aligned: Aligned | None
    """None when there is no model, or nothing of it could be aligned."""
    refined: RefineResult | None
    """None when the clip was not refined."""
    comparisons: dict[str, Comparison | None]
    """By name as in `report.json`: held_out, held_out_frames, ground_truth, ground_truth_held_out_frames."""
    advice: str
    """What to do when the clip was not refined; empty when it was."""
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def cli_hint(self) -> str:
        """What options of the command line can do about it when the clip was not refined; shown there alone."""
        return "" if self.aligned is None or self.refined is not None else self.aligned.trust.cli_hint

    @property
    def report_path(self) -> Path:
        return self.folder / REPORT
