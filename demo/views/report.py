"""The Report tab: measures, curves, health of the reconstruction and timings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sfmttr.evaluation.metrics import MEASURES, Measure

from .charts import Axis, Series, line_chart
from .common import is_finite, percent
from .progress import validation_chart

if TYPE_CHECKING:
    from sfmttr.evaluation.comparison import Column
    from sfmttr.run.report import ColumnReport, ComparisonReport

    from ..run_view import RunView

_MEASURES = [measure for measure in MEASURES if measure.name in ("abs_rel", "rmse", "rmse_log", "a1")]
_FUSED = {"before_fused": "before + points", "after_fused": "after + points"}
_COMPARISONS = (
    ("held_out", "At held-out points of the reconstruction"),
    ("held_out_frames", "On held-out frames"),
    ("ground_truth", "Against ground truth"),
)


def report(view: RunView) -> str:
    """Return tables, curves, health card and timings of a run."""
    parts = []
    for name, title in _COMPARISONS:
        comparison: ComparisonReport | None = getattr(view.report.comparison, name)
        if comparison is not None:
            titles = {column: _FUSED.get(column, view.titles[column]) for column in comparison.columns}
            tables = _table(comparison, titles) + _distance_table(comparison, titles)
            parts.append(f"<section><h3>{title}</h3>{tables}</section>")
    parts.append(_curves(view))
    parts.append(f"<section><h3>Reconstruction</h3>{health(view)}</section>")
    parts.append(f"<section><h3>Time</h3>{_timings(view)}</section>")
    return f'<div class="report">{"".join(parts)}</div>'


def _table(comparison: ComparisonReport, titles: Mapping[Column, str]) -> str:
    head = "".join(f'<th scope="col" title="{escape(each.description)}">{each.label}</th>' for each in _MEASURES)
    best = {measure: _best(measure, comparison.columns.values()) for measure in _MEASURES}
    rows = "".join(
        f'<tr class="{column}"><th scope="row">{titles[column]}</th>'
        + "".join(_cell(getattr(errors, measure.name), best[measure]) for measure in _MEASURES)
        + "</tr>"
        for column, errors in comparison.columns.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="caption">{escape(comparison.protocol)}; RMSE in {escape(comparison.unit)}.</p>'
    )


def _best(measure: Measure, columns: Iterable[ColumnReport]) -> float | None:
    values = [value for errors in columns if is_finite(value := getattr(errors, measure.name))]
    return (max if measure.higher_is_better else min)(values, default=None)


def _cell(value: Any, best: Any) -> str:
    if not is_finite(value):
        return "<td>–</td>"
    text = f"{value:.4f}" if value < 10 else f"{value:.2f}"
    return f'<td class="best">{text}</td>' if value == best else f"<td>{text}</td>"


def _distance_table(comparison: ComparisonReport, titles: Mapping[Column, str]) -> str:
    ranges = next((errors.by_distance for errors in comparison.columns.values()), ())
    if not ranges:
        return ""
    head = "".join(f'<th scope="col">{part.near:.3g} – {part.far:.3g}</th>' for part in ranges)
    rows = "".join(
        f'<tr class="{column}"><th scope="row">{titles[column]}</th>'
        + "".join(_cell(part.abs_rel, None) for part in errors.by_distance)
        + "</tr>"
        for column, errors in comparison.columns.items()
    )
    return (
        "<details><summary>AbsRel by distance</summary>"
        f'<div class="scroll"><table><thead><tr><td>{escape(comparison.unit)}</td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _curves(view: RunView) -> str:
    curves = view.refinement
    if curves is None or not curves.losses:
        return ""
    losses = curves.losses
    half = max(2, len(losses) // 40)
    windows = (
        (i, [value for value in losses[max(0, i - half) : i + half + 1] if is_finite(value)])
        for i in range(len(losses))
    )
    median = [(i + 1.0, float(np.median(window))) for i, window in windows if window]
    steps = [(i + 1.0, value) for i, value in enumerate(losses)]
    chart = line_chart([Series("loss", steps, "faint"), Series("median", median)], Axis("step"), Axis("training loss"))
    error = validation_chart(curves.validation, len(losses))
    return (
        '<section><h3>Training</h3><div class="charts">'
        f"<div><h4>Error at validation points</h4>{error}</div>"
        f"<div><h4>Training loss and its running median</h4>{chart}</div></div></section>"
    )


_GOOD_SCORE, _FAIR_SCORE = 0.75, 0.5
_HEALTH = {"good": "self-consistent", "fair": "usable with caution", "poor": "not self-consistent"}


def health(view: RunView) -> str:
    """Return the health card of the reconstruction."""
    sfm, alignment = view.report.sfm, view.report.alignment
    card = sfm.health
    if card is None:
        return f'<div class="health poor"><p>{escape(sfm.advice or "")}</p></div>'
    facts = [
        ("Registered frames", f"{card.registered} of {card.total}"),
        ("3D points", f"{card.points:,}"),
        ("Reprojection error", f"{card.mean_reprojection_error_px:.2f} px"),
        ("Frames per point", f"{card.mean_track_length:.1f}"),
        ("Field of view", f"{card.horizontal_view_deg:.0f}°{' (given)' if card.focal_given else ''}"),
        ("Focal length", f"{card.focal_px:.0f} px"),
        ("Triangulation angle", f"{card.median_triangulation_angle_deg:.1f}°"),
    ]
    if alignment is not None:
        facts += [
            ("Points consistent with the network", percent(alignment.relaxed_inlier_ratio)),
            ("Depth-order correlation", f"{alignment.rank_correlation:.2f}"),
            ("Scale variation", percent(alignment.scale_spread)),
        ]
    score = card.score
    kind = "good" if score >= _GOOD_SCORE else "fair" if score >= _FAIR_SCORE else "poor"
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    concerns = "".join(f"<li>{escape(each)}</li>" for each in card.concerns)
    advice = f"<p>{escape(card.advice)}</p>" if card.advice else ""
    return (
        f'<div class="health {kind}"><p class="score"><b>{100 * score:.0f}</b> of 100: '
        f"{_HEALTH[kind]}</p>"
        f'<dl class="facts">{cells}</dl>{f"<ul>{concerns}</ul>" if concerns else ""}{advice}</div>'
    )


_STAGE_TITLES = {
    "frames": "frame selection",
    "sfm": "structure-from-motion",
    "disparity": "inverse depth before",
    "before": "depth before",
    "aligned": "scale and shift",
    "refine": "fine-tuning",
    "after": "depth after",
    "before_fused": "fusion before",
    "after_fused": "fusion after",
    "compare": "evaluation",
    "outputs": "pictures, video, 3D",
}


def _timings(view: RunView) -> str:
    timings = {name: value for name, value in view.report.timings_s.items() if value >= 0.05}
    if not timings:
        return ""
    most = max(timings.values())
    rows = "".join(
        f'<tr><th scope="row">{_STAGE_TITLES.get(name, name)}</th><td>{value:.1f} s</td>'
        f'<td class="wide"><span class="bar"><span style="width:{100 * value / most:.0f}%"></span></span></td></tr>'
        for name, value in timings.items()
    )
    network, preset = escape(view.report.network), escape(view.report.preset)
    license_ = escape(view.report.licence or "not stated")
    return (
        f'<table class="timings"><tbody>{rows}</tbody></table>'
        f'<p class="caption">{sum(timings.values()):.0f} s in total; '
        f"network {network} (license: {license_}), preset {preset}, seed {view.report.seed}.</p>"
    )
