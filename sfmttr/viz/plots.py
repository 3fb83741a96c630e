"""Curves of a refinement as pictures, (H, W, 3) uint8."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_curves(losses: np.ndarray, validation: Sequence[tuple[int, float]], label: str = "AbsRel") -> np.ndarray:
    """Plot training loss (S,) above validation error (step, value), with the best step marked; 960 x 640 pixels."""
    figure = Figure(figsize=(9.6, 6.4), dpi=100, facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _plot_losses(upper, np.asarray(losses, np.float64))
    _plot_validation(lower, validation, label)
    for axes in (upper, lower):
        axes.grid(color="#e4e6eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11, colors="#3a3f4a")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=11)
    lower.set_xlabel("step", fontsize=12)
    return _drawn(figure)


def _plot_losses(axes: Axes, losses: np.ndarray) -> None:
    """Plot the loss of every step, faint, and its running median over a twentieth of the steps."""
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#9db8e8", linewidth=0.9)
    if len(losses) >= 20:
        half = max(2, len(losses) // 40)
        # One frame a step: losses jump with the frame, and the trend hides behind that.
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(losses, half, mode="edge"), 2 * half + 1)
        axes.plot(steps, np.nanmedian(windows, axis=1), color="#1f4fb5", linewidth=2, label="running median")
    axes.set_ylabel("training loss", fontsize=12)
    positive = losses[np.isfinite(losses) & (losses > 0)]
    if len(positive) and positive.max() > 30 * positive.min():
        axes.set_yscale("log")


def _plot_validation(axes: Axes, validation: Sequence[tuple[int, float]], label: str) -> None:
    """Plot the error at validation points, the unrefined network's as a line, the best step as a dot."""
    axes.set_ylabel(f"{label}, validation points", fontsize=12)
    known = [(step, value) for step, value in validation if math.isfinite(value)]
    if not known:
        return
    steps, values = zip(*known, strict=True)
    axes.plot(steps, values, color="#c2541b", linewidth=2, marker=".", markersize=5)
    if steps[0] == 0:
        axes.axhline(values[0], color="#7a808c", linewidth=1, linestyle="--", label=f"unrefined {values[0]:.4f}")
    best = int(np.argmin(values))
    label = f"best {values[best]:.4f} at step {steps[best]}"
    axes.plot(steps[best], values[best], "o", color="#0a8f5b", markersize=9, label=label)
    axes.set_ylim(bottom=0)


def _drawn(figure: Figure) -> np.ndarray:
    """Return the figure as (H, W, 3) uint8, without pyplot, whose global state is not thread-safe."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
