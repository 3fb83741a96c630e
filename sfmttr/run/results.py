"""Result of a run as values: the stages produce them, `report` and `outputs` write them."""

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
    """Alignment of sparse points and unrefined network, and what it decides about training."""

    observations: Observations
    alignment: Alignment
    """Fitted on the training rows; its masks index those."""
    consistency: Consistency
    trust: Trust
    selection: Selection
    """Its mask is over all observations."""
    propagated: Observations
    """Further training rows: points projected into neighboring frames in which no feature was found at them."""


@dataclass(frozen=True)
class RunResult:
    """Result of a run; depth maps and other files lie in `folder`."""

    folder: Path
    config: RunConfig
    network: str
    """Name of the network in all output files."""
    licence: str
    """License of its weights, as its authors state it."""
    kind: DepthKind
    frames: FrameSet
    sparse: SparseModel | NoModel
    aligned: Aligned | None
    """None without a model, or when the network could not be aligned with it."""
    refined: RefineResult | None
    """None when the clip was not refined."""
    comparisons: dict[str, Comparison | None]
    """By name as in `report.json`: held_out, held_out_frames, ground_truth, ground_truth_held_out_frames."""
    advice: str
    """Advice when the clip was not refined; empty otherwise."""
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def cli_hint(self) -> str:
        """Command-line options that may help when the clip was not refined; shown on the command line only."""
        return "" if self.aligned is None or self.refined is not None else self.aligned.trust.cli_hint

    @property
    def report_path(self) -> Path:
        return self.folder / REPORT
