"""`report.json`: the results of a run as typed values, for people and programs.

A field that does not apply to a run is None. Fields with a default were added later: older files lack them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import sfmttr
from sfmttr.evaluation.comparison import Column, ColumnErrors, Comparison, DistanceErrors
from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.io.json_files import OMIT_NONE, read_model, write_json
from sfmttr.refinement.loop import RefineResult
from sfmttr.run.manifest import REPORT
from sfmttr.run.results import Aligned, RunResult
from sfmttr.types import HW, DepthKind, NoModel, SfmAttempt, SfmHealth, SkippedFrame, SparseModel

SCHEMA = 1


@dataclass(frozen=True)
class FramesReport:
    """The frames that were used."""

    count: int
    source_count: int
    """Frames in the source; 0 when unknown."""
    hw: HW
    content_hash: str
    hold_out_block: int
    """Length of the alternate blocks of frames that were held out; 0: none."""
    skipped: tuple[SkippedFrame, ...]


@dataclass(frozen=True, kw_only=True)
class SfmReport:
    """The reconstruction, or the failure to find one."""

    registered: int
    """Registered frames; 0 without a model."""
    total: int
    points: int
    mean_reprojection_error_px: float | None
    rung: str | None
    """Attempt that gave the model."""
    health: SfmHealth | None
    """None without a model."""
    advice: str | None = field(default=None, metadata={OMIT_NONE: True})
    """Advice for another recording; without a model only."""
    attempts: tuple[SfmAttempt, ...]
    seconds: float

    @classmethod
    def of(cls, sparse: SparseModel | NoModel) -> SfmReport:
        if isinstance(sparse, NoModel):
            return cls(
                registered=0,
                total=sparse.total,
                points=0,
                mean_reprojection_error_px=None,
                rung=None,
                health=None,
                advice=sparse.advice,
                attempts=sparse.attempts,
                seconds=sparse.seconds,
            )
        health = sparse.health
        return cls(
            registered=health.registered,
            total=health.total,
            points=health.points,
            mean_reprojection_error_px=health.mean_reprojection_error_px,
            rung=sparse.rung,
            health=health,
            attempts=sparse.attempts,
            seconds=sparse.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """Alignment of reconstruction and unrefined network, and the decision of the trust gate."""

    scale: float
    """Network units per SfM unit."""
    network_scale: float
    """Factor on the unrefined depth that fits the clip best."""
    shift: float | None = None
    """Shift of the inverse depth of a network that predicts disparity; None for other networks."""
    strict_inlier_ratio: float
    relaxed_inlier_ratio: float
    rank_correlation: float
    scale_spread: float
    frame_scale: dict[int, float]
    """Scale of each frame alone over that of the clip, by position of the frame."""
    sfm_health: float
    agreement: float
    trusted: bool
    statement: str
    frames_left_out: int
    tracks_left_out: int
    observations: int

    @classmethod
    def of(cls, aligned: Aligned) -> AlignmentReport:
        alignment, consistency = aligned.alignment, aligned.consistency
        return cls(
            scale=alignment.scale,
            network_scale=alignment.network_scale,
            shift=None if alignment.inverse is None else alignment.inverse.shift,
            strict_inlier_ratio=alignment.strict_inlier_ratio,
            relaxed_inlier_ratio=alignment.relaxed_inlier_ratio,
            rank_correlation=consistency.rank_correlation,
            scale_spread=consistency.scale_spread,
            frame_scale=dict(zip(map(int, consistency.frame), consistency.frame_scale.tolist(), strict=True)),
            sfm_health=aligned.trust.sfm_health,
            agreement=aligned.trust.consistency,
            trusted=aligned.trust.trusted,
            statement=aligned.trust.statement,
            frames_left_out=aligned.selection.num_excluded_frames,
            tracks_left_out=aligned.selection.num_excluded_tracks,
            observations=len(aligned.observations),
        )


@dataclass(frozen=True)
class RefinementReport:
    """The refinement loop."""

    steps: int
    best_step: int
    seconds: float
    rolled_back: bool
    """No step was better at validation points: the original weights were kept."""
    validation: tuple[tuple[int, float], ...]
    """(step, error at validation points)"""

    @classmethod
    def of(cls, refined: RefineResult) -> RefinementReport:
        return cls(refined.steps, refined.best_step, refined.seconds, refined.rolled_back, refined.validation)


# ------------------------------------------------------------------------------------ comparison


@dataclass(frozen=True)
class _Range:
    near: float
    far: float


@dataclass(frozen=True)
class DistanceReport(DepthMetrics, _Range):
    """Errors of the values whose true depth lies in [near, far)."""

    @classmethod
    def of(cls, errors: DistanceErrors) -> DistanceReport:
        return cls(near=errors.near, far=errors.far, **vars(errors.metrics))


@dataclass(frozen=True)
class ColumnReport(DepthMetrics):
    """Errors of one depth variant, overall and by distance."""

    by_distance: tuple[DistanceReport, ...]

    @classmethod
    def of(cls, errors: ColumnErrors) -> ColumnReport:
        return cls(**vars(errors.overall), by_distance=tuple(map(DistanceReport.of, errors.by_distance)))


@dataclass(frozen=True)
class ComparisonReport:
    """Errors of every depth variant against one reference; a variant that the run does not have is None."""

    protocol: str
    unit: str
    """Unit of rmse, sq_rel and the distance ranges."""
    before: ColumnReport | None = field(default=None, metadata={OMIT_NONE: True})
    aligned: ColumnReport | None = field(default=None, metadata={OMIT_NONE: True})
    before_fused: ColumnReport | None = field(default=None, metadata={OMIT_NONE: True})
    after: ColumnReport | None = field(default=None, metadata={OMIT_NONE: True})
    after_fused: ColumnReport | None = field(default=None, metadata={OMIT_NONE: True})

    @classmethod
    def of(cls, comparison: Comparison) -> ComparisonReport:
        columns = {str(column): ColumnReport.of(errors) for column, errors in comparison.columns.items()}
        return cls(comparison.protocol, comparison.unit, **columns)

    @property
    def columns(self) -> dict[Column, ColumnReport]:
        """The variants that the run has, in the order of `Column`."""
        found = {column: getattr(self, column) for column in Column}
        return {column: errors for column, errors in found.items() if errors is not None}


@dataclass(frozen=True)
class ComparisonsReport:
    """All comparisons; one that could not be made is None."""

    held_out: ComparisonReport | None = None
    """At SfM points that were not trained on."""
    held_out_frames: ComparisonReport | None = None
    """At SfM points of frames that were held out."""
    ground_truth: ComparisonReport | None = None
    ground_truth_held_out_frames: ComparisonReport | None = field(default=None, metadata={OMIT_NONE: True})


# ---------------------------------------------------------------------------------------- report


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that a run found."""

    schema: int
    sfmttr: str
    """Version of this package."""
    network: str
    licence: str = ""
    """License of the network's weights."""
    kind: DepthKind
    """Kind of the resulting depth."""
    preset: str
    objective: str = "sfm"
    seed: int
    frames: FramesReport
    sfm: SfmReport
    alignment: AlignmentReport | None
    """None without a model, or when the network could not be aligned with it."""
    refinement: RefinementReport | None
    """None when the clip was not refined."""
    comparison: ComparisonsReport
    advice: str
    """Advice when the clip was not refined; empty otherwise."""
    timings_s: dict[str, float]
    """Seconds by stage."""

    def __post_init__(self) -> None:
        if self.refinement is not None and self.alignment is None:
            raise ValueError("there is a refinement without an alignment")

    @classmethod
    def of(cls, result: RunResult) -> RunReport:
        frames, config = result.frames, result.config
        comparisons = {name: ComparisonReport.of(each) for name, each in result.comparisons.items() if each is not None}
        return cls(
            schema=SCHEMA,
            sfmttr=sfmttr.__version__,
            network=result.network,
            licence=result.licence,
            kind=result.kind,
            preset=config.preset,
            objective=config.objective,
            seed=config.seed,
            frames=FramesReport(
                count=len(frames),
                source_count=frames.source_count,
                hw=frames.hw,
                content_hash=frames.content_hash,
                hold_out_block=config.split.hold_out_frames,
                skipped=frames.skipped,
            ),
            sfm=SfmReport.of(result.sparse),
            alignment=None if result.aligned is None else AlignmentReport.of(result.aligned),
            refinement=None if result.refined is None else RefinementReport.of(result.refined),
            comparison=ComparisonsReport(**comparisons),
            advice=result.advice,
            timings_s=result.timings_s,
        )


def write_report(result: RunResult) -> None:
    """Write `report.json` into the run folder, atomically."""
    write_json(result.report_path, RunReport.of(result))


def read_report(folder: Path) -> RunReport:
    """Return the report of a run folder.

    Raises RunFolderError when there is none (the run did not finish), or it is damaged or from a newer version.
    """
    return read_model(folder / REPORT, RunReport, newest_schema=SCHEMA, advice="run refine again")
