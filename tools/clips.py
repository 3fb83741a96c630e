"""The clips that the benchmarks run on, and how each is compared with its ground truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sfmttr.config import GroundTruthConfig

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DATA = Path(os.environ.get("SFMTTR_DATA", SHARED / "data"))
WEIGHTS = Path(os.environ.get("SFMTTR_WEIGHTS", SHARED / "weights"))


@dataclass(frozen=True)
class Clip:
    """A clip and its truth."""

    path: Path
    truth: GroundTruthConfig | None


CLIPS = {
    "drive_0002": Clip(
        DATA / "clips/kitti_drive_0002.mp4", GroundTruthConfig(DATA / "kitti_drive_0002/groundtruth", 256.0, "kitti")
    ),
    "redkitchen": Clip(DATA / "clips/redkitchen.mp4", GroundTruthConfig(DATA / "redkitchen/depth", 1000.0, "indoor")),
    "fountain": Clip(DATA / "fountain", None),
    # Generated, and in this repository; their truth lies beside them.
    "street": Clip(ROOT / "examples/street.mp4", GroundTruthConfig(ROOT / "examples/street.depth")),
    "room": Clip(ROOT / "examples/room.mp4", GroundTruthConfig(ROOT / "examples/room.depth")),
}
