"""Settings of the paper's experiment on KITTI, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sfmttr.config import Objective, SfmConfig
from sfmttr.errors import ConfigError


class KittiSplit(StrEnum):
    """Frames of KITTI's drives that are evaluated."""

    EIGEN = "eigen"
    ALL = "all"
    """Every frame that has ground truth."""


class Setting(StrEnum):
    """Training frames and preset of a refinement; see `sfmttr.kitti.experiment`."""

    PAPER = "paper"
    OURS = "ours"


NONE, ALIGNED = "none", "aligned"
"""Columns without a refinement: the original network, and the original network with its aligned scale."""
SCORED = (NONE, ALIGNED, *map(str, (Objective.PHOTOMETRIC, Objective.SFM, Objective.BOTH)))


@dataclass(frozen=True)
class KittiConfig:
    """Settings of `evaluate kitti`."""

    raw: Path
    depth: Path
    """Folder of the annotated depth maps, with train/ and val/."""
    out: Path = Path("results/kitti")
    split: KittiSplit = KittiSplit.EIGEN
    networks: tuple[str, ...] = ("adabins", "manydepth", "cadepth", "diffnet")
    objectives: tuple[str, ...] = SCORED[:-1]
    settings: tuple[Setting, ...] = (Setting.PAPER,)
    sequences: tuple[str, ...] = ()
    """Drives, by name or number; empty: all that are found."""
    models: Path | None = None
    """Folder with a COLMAP model per drive, `DRIVE/` or `DRIVE/sparse/`, used instead of a reconstruction."""
    clip_frames: int = 200
    """Maximum number of frames in setting "ours"; a longer drive is subsampled."""
    steps: int | None = None
    """Refinement steps; None: set by the preset."""
    weights_dir: Path | None = None
    device: str = "auto"
    seed: int = 0
    # Drives are long: one has 4544 frames.
    sfm: SfmConfig = SfmConfig(time_limit_s=24 * 3600.0)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        unknown = [name for name in self.objectives if name not in SCORED]
        if unknown:
            raise ConfigError(f"There is no objective {unknown[0]!r}: choose from {', '.join(SCORED)}.")
