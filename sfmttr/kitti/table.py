"""The paper's table beside measured rows, as text, CSV and JSON.

Izquierdo, Civera: "SfM-TTR: using structure from motion for test-time refinement of single-view depth networks", CVPR
2023, KITTI, Eigen split, improved ground truth (the figures are those of the authors' talk).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfmttr.evaluation.comparison import DistanceErrors
from sfmttr.evaluation.metrics import MEASURES, DepthMetrics

FAR_M = 30.0
"""Distance that separates near from far errors."""
TITLES = {"none": "no", "aligned": "scale alone", "photometric": "Ph-TTR", "sfm": "SfM-TTR", "both": "SfM- and Ph-TTR"}


@dataclass(frozen=True)
class PublishedRow:
    """One row of the paper's table."""

    objective: str
    network: str
    errors: tuple[float, float, float, float, float, float, float]


PUBLISHED = (
    PublishedRow("none", "adabins", (0.058, 0.190, 2.360, 0.088, 0.964, 0.995, 0.999)),
    PublishedRow("sfm", "adabins", (0.054, 0.138, 1.885, 0.078, 0.978, 0.996, 0.999)),
    PublishedRow("none", "manydepth", (0.059, 0.297, 2.960, 0.097, 0.954, 0.991, 0.998)),
    PublishedRow("photometric", "manydepth", (0.053, 0.252, 2.774, 0.089, 0.962, 0.993, 0.998)),
    PublishedRow("sfm", "manydepth", (0.054, 0.252, 2.510, 0.089, 0.966, 0.992, 0.998)),
    PublishedRow("none", "cadepth", (0.073, 0.359, 3.287, 0.112, 0.941, 0.990, 0.997)),
    PublishedRow("photometric", "cadepth", (0.082, 0.426, 3.565, 0.124, 0.923, 0.986, 0.997)),
    PublishedRow("sfm", "cadepth", (0.060, 0.263, 2.620, 0.096, 0.962, 0.992, 0.997)),
    PublishedRow("none", "diffnet", (0.066, 0.318, 3.078, 0.103, 0.953, 0.992, 0.998)),
    PublishedRow("photometric", "diffnet", (0.053, 0.252, 2.778, 0.090, 0.965, 0.993, 0.998)),
    PublishedRow("sfm", "diffnet", (0.052, 0.229, 2.444, 0.085, 0.973, 0.994, 0.998)),
)
PUBLISHED_FRAMES, PUBLISHED_DRIVES = 652, 28


@dataclass(frozen=True)
class Row:
    """Errors of one network with one objective over all drives."""

    network: str
    objective: str
    setting: str
    """"paper" or "ours"; empty where nothing was refined."""
    scaling: str
    """Scaling of predictions before the comparison: "median" or "none"."""
    metrics: DepthMetrics
    """Mean over frames."""
    by_distance: tuple[DistanceErrors, ...]
    """Pooled over frames."""
    frames: int
    drives: int
    unrefined: tuple[str, ...]
    """Drives without a trusted reconstruction, evaluated with the original network."""

    @property
    def near_and_far(self) -> tuple[float, float]:
        """AbsRel over all values nearer and all farther than `FAR_M`; nan where there are none."""
        return tuple(_pooled([d for d in self.by_distance if (d.near >= FAR_M) == far]) for far in (False, True))  # type: ignore[return-value]


def _pooled(parts: Sequence[DistanceErrors]) -> float:
    known = [part.metrics for part in parts if part.metrics.count]
    total = sum(metrics.count for metrics in known)
    return sum(metrics.abs_rel * metrics.count for metrics in known) / total if total else float("nan")


@dataclass(frozen=True)
class PaperTable:
    """Measured rows and what they were measured on."""

    rows: tuple[Row, ...]
    protocol: str
    split: str
    missing: tuple[str, ...]
    """Drives of the Eigen split that were not found."""

    @property
    def comparable(self) -> bool:
        """True if every row covers the frames of the published figures."""
        return bool(self.rows) and all(row.frames == PUBLISHED_FRAMES for row in self.rows)

    def text(self) -> str:
        """Return the table in fixed-width columns, with notes."""
        heads = ("TTR", "network", "setting", "scaling", *(measure.title for measure in MEASURES))
        lines = [[*heads, f"< {FAR_M:g} m", f"> {FAR_M:g} m", "frames", "drives", "unrefined"]]
        for published in PUBLISHED:
            errors = [f"{value:.3f}" for value in published.errors]
            scaling = "none" if published.network == "adabins" else "median"
            where = [str(PUBLISHED_FRAMES), str(PUBLISHED_DRIVES)]
            lines.append(
                [TITLES[published.objective], published.network, "published", scaling, *errors, "", "", *where, ""]
            )
        for row in self.rows:
            errors = [_number(getattr(row.metrics, measure.name)) for measure in MEASURES]
            far = [_number(value) for value in row.near_and_far]
            where = [str(row.frames), str(row.drives), str(len(row.unrefined) or "")]
            lines.append([TITLES[row.objective], row.network, row.setting, row.scaling, *errors, *far, *where])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [
            "  ".join(
                _aligned(cell, width, i) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        text.insert(1 + len(PUBLISHED), "-" * len(text[0]))
        return "\n".join([*text, "", *self._notes()]) + "\n"

    def _notes(self) -> list[str]:
        notes = [f"Protocol: {self.protocol}; split {self.split}. AbsRel by distance is pooled over frames."]
        if not self.comparable:
            notes.append(
                "The published rows (the paper's, by its authors' talk) are of all "
                f"{PUBLISHED_FRAMES} frames of {PUBLISHED_DRIVES} drives, ours of those named above: not comparable."
            )
        for row in self.rows:
            if row.unrefined:
                what = f"{row.network}, {TITLES[row.objective]}, {row.setting}"
                notes.append(f"Not refined, and scored as it was ({what}): {', '.join(row.unrefined)}.")
        if self.missing and self.split == "eigen":
            notes.append(f"Not here: {', '.join(self.missing)}.")
        return notes

    def csv(self) -> str:
        """Return the table as CSV, published rows first."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        names = (measure.name for measure in MEASURES)
        far = (f"abs_rel_below_{FAR_M:g}_m", f"abs_rel_above_{FAR_M:g}_m")
        writer.writerow(
            ["source", "objective", "network", "setting", "scaling", *names, *far, "frames", "drives", "unrefined"]
        )
        for published in PUBLISHED:
            scaling = "none" if published.network == "adabins" else "median"
            head = ["published", published.objective, published.network, "paper", scaling]
            writer.writerow([*head, *published.errors, "", "", PUBLISHED_FRAMES, PUBLISHED_DRIVES, ""])
        for row in self.rows:
            errors = [f"{getattr(row.metrics, measure.name):.6f}" for measure in MEASURES]
            head = ["sfmttr", row.objective, row.network, row.setting, row.scaling]
            split = [f"{value:.6f}" for value in row.near_and_far]
            writer.writerow([*head, *errors, *split, row.frames, row.drives, " ".join(row.unrefined)])
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return everything for JSON, including errors by distance."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "comparable_with_published": self.comparable,
            "missing_drives": self.missing,
            "published": [
                {"objective": row.objective, "network": row.network, **_by_name(row.errors)} for row in PUBLISHED
            ],
            "rows": self.rows,
        }


def _by_name(errors: Sequence[float]) -> dict[str, float]:
    return {measure.name: error for measure, error in zip(MEASURES, errors, strict=True)}


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _aligned(cell: str, width: int, column: int) -> str:
    """Left-align words, right-align figures."""
    return cell.ljust(width) if column < 4 else cell.rjust(width)
