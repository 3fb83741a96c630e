"""Console output of the commands: progress bars, and tables at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sfmttr.evaluation.comparison import Column, Comparison
from sfmttr.evaluation.metrics import MEASURES, DepthMetrics
from sfmttr.refinement.backend import LiveNetwork
from sfmttr.refinement.task import RefineStep
from sfmttr.run import stages
from sfmttr.run.evaluate import Evaluation
from sfmttr.run.results import RunResult
from sfmttr.types import NoModel
from sfmttr.types import Progress as StageProgress


class Bars:
    """Progress bars, one per stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def on_progress(self, report: StageProgress) -> None:
        task = self._task(report.stage)
        self._progress.update(task, completed=report.done, total=report.total or None, note=report.note)

    def on_step(self, step: RefineStep, live: LiveNetwork) -> None:
        if step.validation is not None:
            self._progress.update(self._task("refine"), note=f"validation error {step.validation:.4f}")

    def _task(self, stage: str) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(_label_of(stage), note="")
        return self._tasks[stage]


def _label_of(stage: str) -> str:
    # The experiment on KITTI reports its drives as a stage of its own, around those of the runs.
    return "KITTI" if stage == "drives" else stages.label(stage)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show progress bars on standard error, so that standard output holds results only; none outside a terminal."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:>4.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(progress)


def print_summary(result: RunResult) -> None:
    """Print the tables at the end of `refine`."""
    console = Console()
    _print_sfm(console, result)
    _print_refinement(console, result)
    for name, comparison in result.comparisons.items():
        if comparison is not None:
            print_comparison(console, name.replace("_", " "), comparison)
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in result.timings_s.items() if value >= 0.5)
    console.print(f"Seconds: {seconds}", highlight=False)
    console.print(f"Everything is in {escape(str(result.folder))}", highlight=False, soft_wrap=True)


def _print_sfm(console: Console, result: RunResult) -> None:
    sparse = result.sparse
    if isinstance(sparse, NoModel):
        console.print(f"[bold]No reconstruction[/] of {sparse.total} frames: {escape(sparse.advice)}", highlight=False)
        return
    health = sparse.health
    console.print(
        f"[bold]Structure-from-motion[/]: {health.registered} of {health.total} frames, {health.points} points, "
        f"{health.mean_reprojection_error_px:.2f} px, focal length {health.focal_px:.0f} px "
        f"({health.horizontal_view_deg:.0f} deg), health {health.score:.2f}, rung '{sparse.rung}'",
        highlight=False,
    )
    if health.advice:
        console.print(f"  {escape(health.advice)}", highlight=False)


def _print_refinement(console: Console, result: RunResult) -> None:
    refined, name = result.refined, escape(result.network)
    if refined is None:
        advice = f"{result.advice} {result.cli_hint}".rstrip()
        console.print(f"[bold yellow]Not refined[/]: {escape(advice)}", highlight=False)
    elif refined.rolled_back:
        console.print(
            f"[bold yellow]Rolled back[/]: none of {refined.steps} steps beat {name} as it was on points held out; "
            "its original weights are kept.",
            highlight=False,
        )
    else:
        first, best = refined.validation[0][1], min(error for _, error in refined.validation)
        console.print(
            f"[bold green]Refined[/] {name}: {refined.steps} steps in {refined.seconds:.0f} s, best at "
            f"{refined.best_step}; error at validation points {first:.4f} -> {best:.4f}",
            highlight=False,
        )


def print_comparison(console: Console, title: str, comparison: Comparison) -> None:
    """Print the overall errors of every column, then AbsRel by distance."""
    table = Table(title=f"{title} ({comparison.unit})", caption=comparison.protocol, title_justify="left")
    table.add_column("")
    for measure in MEASURES:
        table.add_column(measure.title, justify="right")
    for column, errors in comparison.columns.items():
        table.add_row(_label(column), *_cells(errors.overall))
    console.print(table)
    console.print(_distance_table(comparison))


def _distance_table(comparison: Comparison) -> Table:
    columns: Mapping[Column, object] = comparison.columns
    table = Table(title="AbsRel by distance", title_justify="left")
    table.add_column("")
    ranges = next(iter(comparison.columns.values())).by_distance
    for part in ranges:
        table.add_column(f"{part.near:.3g} - {part.far:.3g}", justify="right")
    for column in columns:
        parts = comparison.columns[column].by_distance
        table.add_row(_label(column), *(_number(part.metrics.abs_rel) for part in parts))
    return table


def _label(column: Column) -> str:
    return str(column).replace("_", " ")


def _cells(metrics: DepthMetrics) -> list[str]:
    return [_number(getattr(metrics, measure.name)) for measure in MEASURES]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def print_evaluation(evaluation: Evaluation) -> None:
    console = Console()
    console.print(f"[bold]{evaluation.network}[/], preset {evaluation.preset}", highlight=False)
    for name, comparison in evaluation.comparisons.items():
        print_comparison(console, name.replace("_", " "), comparison)
    console.print(f"Written to {escape(str(evaluation.path))}", highlight=False, soft_wrap=True)
