"""Every setting and its default, once. Command line, page and tests read them from here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sfmttr.config import Objective, SfmConfig
from sfmttr.errors import ConfigError


class KittiSplit(StrEnum):
    """Which frames of KITTI's drives are scored."""

    EIGEN = "eigen"
    ALL = "all"
    """Every frame that has ground truth."""


class Setting(StrEnum):
    """How a drive becomes a refined network (`reproduce`)."""

    PAPER = "paper"
    OURS = "ours"


NONE, ALIGNED = "none", "aligned"
"""What may be scored beside refinements: the network as it is, and with its best scale."""
SCORED = (NONE, ALIGNED, *map(str, (Objective.PHOTOMETRIC, Objective.SFM, Objective.BOTH)))


@dataclass(frozen=True)
class KittiConfig:
    """`evaluate kitti`."""

    raw: Path
    depth: Path
    """Folder of the annotated depth maps."""
    out: Path = Path("results/kitti")
    split: KittiSplit = KittiSplit.EIGEN
    networks: tuple[str, ...] = ("adabins", "manydepth", "cadepth", "diffnet")
    objectives: tuple[str, ...] = SCORED[:-1]
    settings: tuple[Setting, ...] = (Setting.PAPER,)
    sequences: tuple[str, ...] = ()
    """Drives; none: all that are there."""
    models: Path | None = None
    """Folder with a COLMAP model for each drive, `DRIVE/` or `DRIVE/sparse/`, instead of a reconstruction."""
    clip_frames: int = 200
    """A drive of at most so many frames is a clip as it is; of a longer one, this many make up setting "ours"."""
    steps: int | None = None
    """Instead of the presets' numbers."""
    weights_dir: Path | None = None
    device: str = "auto"
    seed: int = 0
    sfm: SfmConfig = SfmConfig(time_limit_s=24 * 3600.0)  # noqa: RUF009 - frozen
    """Drives are long: one of 4544 frames is among them."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.objectives if name not in SCORED]
        if unknown:
            raise ConfigError(f"There is no objective {unknown[0]!r}: choose from {', '.join(SCORED)}.")
