"""Figures behind the trust gate: which reconstructions may teach a network.

    python -m benchmarks.trust [--json out.json] [--clips street traffic-0 ...]

Rendered clips (tools/synthetic: true depth is known) and short stretches of real ones. Prints a table and writes
JSON. "cheap" is the health without comparing parts of the clip, "parts" how much the depths of its earlier and later
part differ, "score" the health with it; "asked" whether a run would have paid for it; "error" the median relative error
of the points' depths after the best scale for the clip. Real clips are listed without error: see `benchmarks.sfm`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.sfm import CLIPS as REAL
from benchmarks.sfm import frame_set
from sfmttr.config import SfmConfig
from sfmttr.sfm.health import POOR, HealthFigures, health_score, split_half_can_decide
from sfmttr.sfm.retry_policy import attempt_settings, is_sequential
from sfmttr.sfm.single_attempt import run_one_attempt
from sfmttr.sfm.sparse import Sparse
from sfmttr.types import FrameSet, SfmHealth
from tools import synthetic
from tools.synthetic import RenderedClip


def stop_and_go() -> RenderedClip:
    """The street from a car that creeps and goes: steps as uneven as in the traffic clips, and nothing moves."""
    speed = np.maximum(0.0, np.sin(np.arange(40) * 2 * np.pi / 14 + 0.3))
    chosen = np.cumsum(np.maximum(1, np.rint(8 * speed))).astype(int)
    clip = synthetic.render_street(int(chosen[-1]) + 1, step_m=0.06)
    arrays = {name: getattr(clip, name)[chosen] for name in ("rgb", "depth", "cam_from_world", "static")}
    return replace(clip, **arrays, names=tuple(clip.names[i] for i in chosen))


RENDERED: dict[str, Callable[[], RenderedClip]] = {
    "street": synthetic.render_street,
    "stop-and-go": stop_and_go,
    "room": synthetic.render_room,
    **{f"traffic-{seed}": lambda seed=seed: synthetic.render_traffic(seed=seed) for seed in range(4)},  # type: ignore[misc]
    "rotation": lambda: synthetic.render_rotation(horizontal_view_deg=62),
}
# Real clips: every n-th frame, and how many of them at most.
STRETCHES = {"redkitchen": (3, 24), "drive_0002": (1, 24), "fountain": (1, 11)}
MAY_TEACH = {"street", "stop-and-go", "room", *STRETCHES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*RENDERED, *STRETCHES]
    parser.add_argument("--json", type=Path, help="where the figures go; rows already there are kept")
    parser.add_argument("--clips", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", type=int, default=1, help="1: the figures repeat")
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    print(" ".join(name.rjust(width) for name, width in _COLUMNS.items()), flush=True)
    for name in arguments.clips:
        row = measure(name, SfmConfig(threads=arguments.threads))
        rows = [r for r in rows if r["clip"] != name] + [row]
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))
        print(line(row), flush=True)


def measure(name: str, config: SfmConfig) -> dict[str, object]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="sfmttr-trust-") as temporary:
        clip = RENDERED[name]() if name in RENDERED else None
        frames = _stretch(name) if clip is None else synthetic.write_frames(clip, Path(temporary) / "frames")
        sequence = is_sequential(frames, config)
        trial = run_one_attempt(frames, config, attempt_settings(frames, config)[0], split_half=sequence)
    row: dict[str, object] = {"clip": name, "may teach": name in MAY_TEACH}
    if trial.sparse is None or trial.health is None:
        return row | {"registered": 0, "total": len(frames)}
    card = trial.health
    cheap = _cheap(card, ordered=sequence)
    return row | {
        "registered": card.registered,
        "total": card.total,
        "repr px": card.mean_reprojection_error_px,
        "uneven": cheap.step_evenness,
        "view": card.horizontal_view_deg,
        "angle": card.median_triangulation_angle_deg,
        "planar": card.degenerate_pair_ratio,
        "cheap": health_score(cheap).score,
        "parts": float("nan") if card.halves_disagreement is None else card.halves_disagreement,
        "score": card.score,
        "asked": sequence and split_half_can_decide(cheap),
        "error": float("nan") if clip is None else depth_error(trial.sparse, clip),
        "seconds": trial.attempt.seconds,
        "parts s": trial.split_half_s,
    }


def _stretch(name: str) -> FrameSet:
    whole, (step, count) = frame_set(REAL[name]), STRETCHES[name]
    chosen = range(0, len(whole), step)[:count]
    fields = ("files", "names", "numbers", "time_s")
    return replace(whole, **{field: tuple(getattr(whole, field)[i] for i in chosen) for field in fields})


def _cheap(card: SfmHealth, *, ordered: bool) -> HealthFigures:
    """Return the health score without the split-half comparison."""
    return HealthFigures(
        card.mean_reprojection_error_px,
        card.step_evenness if ordered else float("nan"),
        card.horizontal_view_deg,
        card.median_triangulation_angle_deg,
        card.degenerate_pair_ratio,
        card.registered / card.total,
        card.mean_track_length,
    )


def depth_error(sparse: Sparse, clip: RenderedClip) -> float:
    """Median relative error of the points' depths after one scale for the clip."""
    logs = []
    for view in sparse.views:
        x, y = np.floor(view.xy_px).astype(int).T
        logs.append(np.log(view.depth / clip.depth[view.frame][y, x]))
    log = np.concatenate(logs)
    return float(np.median(np.abs(np.expm1(log - np.median(log)))))


_COLUMNS = {
    "clip": 12,
    "reg": 6,
    "repr px": 8,
    "uneven": 7,
    "view": 6,
    "angle": 6,
    "planar": 7,
    "cheap": 6,
    "parts": 7,
    "asked": 6,
    "score": 6,
    "error": 7,
    "seconds": 8,
    "parts s": 8,
    "verdict": 8,
}
_DIGITS = {"view": 0, "angle": 1, "parts": 4, "error": 3, "repr px": 3, "seconds": 1, "parts s": 1}


def line(row: dict[str, object]) -> str:
    """One row of the table; the verdict is that of a run, which asks the parts only in doubt."""
    cells = dict(row, reg=f"{row['registered']}/{row['total']}")
    if "score" in row:
        verdict = row["score" if row["asked"] else "cheap"]
        assert isinstance(verdict, float)
        healthy = verdict >= POOR
        cells["verdict"] = ("healthy" if healthy else "poor") + ("" if healthy == row["may teach"] else " !")
        cells["asked"] = "yes" if row["asked"] else "no"

    def text(name: str) -> str:
        value = cells.get(name, "-")
        return f"{value:.{_DIGITS.get(name, 2)}f}" if isinstance(value, float) else str(value)

    return " ".join(text(name).rjust(width) for name, width in _COLUMNS.items())


if __name__ == "__main__":
    main()
