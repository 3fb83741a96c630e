"""Output files of a training beside the weights: its curve as a table and a plot, and the model card."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tools.training.loop import StepRecord
from tools.training.measure import ClipErrors, SceneErrors

Checks = Sequence[Mapping[str, Any]]
"""One row each time that held-out scenes were looked at: step, progress, and AbsRel by kind."""
_SMOOTHED = 25


def write_curve(folder: Path, records: Sequence[StepRecord], checks: Checks) -> None:
    """`curve.csv` with every step, `curve.json` with every look at held-out scenes, and `curve.png`."""
    with (folder / "curve.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(StepRecord.__annotations__)
        for record in records:
            writer.writerow(
                [f"{value:.6g}" if isinstance(value, float) else value for value in asdict(record).values()]
            )
    (folder / "curve.json").write_text(json.dumps(list(checks), indent=2) + "\n")
    _draw(folder / "curve.png", records, checks)


def _draw(path: Path, records: Sequence[StepRecord], checks: Checks) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    losses = np.array([record.loss for record in records])
    samples = np.array([record.samples for record in records]) / 1000
    width = min(_SMOOTHED, len(losses))
    if width:
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        left.plot(samples[width - 1 :], smooth)
    left.set(xlabel="thousand pictures", ylabel=f"loss (mean of {_SMOOTHED} steps)", yscale="log")
    kinds = [key for key in checks[-1] if key not in ("step", "samples", "progress")] if checks else []
    for kind in kinds:
        rows = [row for row in checks if kind in row]
        right.plot([row["samples"] / 1000 for row in rows], [row[kind] for row in rows], marker=".", label=kind)
    right.set(xlabel="thousand pictures", ylabel="AbsRel, held-out scenes")
    if kinds:
        right.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write_card(
    path: Path,
    facts: Mapping[str, Any],
    scenes: Mapping[str, SceneErrors],
    clips: Mapping[str, ClipErrors],
) -> None:
    """The model card. `facts`: what is known of data and training (see `train_bundled.facts_of`)."""
    lines = [
        "# bundled",
        "",
        "A depth network of "
        f"{facts['parameters']:,} parameters, plain convolutions only: depth up to scale from one picture. It is the "
        "start of a refinement on a clip, and no foundation model: it was trained on generated pictures alone and has "
        "never seen a real one.",
        "",
        "- Licence: Apache-2.0, weights and everything that they were made from.",
        f"- Data: {facts['data']}, made by `tools/scenes/dataset.py`, whose example scenes are not among them.",
        f"- Training: {facts['samples']:,} pictures in {facts['steps']:,} steps, {facts['minutes']:.0f} minutes on "
        f"{facts['threads']} CPU threads, seed {facts['seed']}; the curve is `curve.csv` and `curve.png`.",
        f"- Command: `{facts['command']}`",
        "",
        "Errors before any refinement. Generated scenes were held out, pictures up to 80 m:",
        "",
        "| generated scenes | views | AbsRel, each view scaled | AbsRel, each scene scaled |",
        "|---|---|---|---|",
    ]
    lines += [f"| {kind} | {e.views} | {e.per_view:.4f} | {e.per_scene:.4f} |" for kind, e in scenes.items()]
    if clips:
        lines += ["", "| clip | AbsRel | RMSE (m) | d1 | protocol |", "|---|---|---|---|---|"]
        lines += [f"| {n} | {e.abs_rel:.4f} | {e.rmse:.3f} | {e.a1:.3f} | {e.protocol} |" for n, e in clips.items()]
    path.write_text("\n".join(lines) + "\n")
