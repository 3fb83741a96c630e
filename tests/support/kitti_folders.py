"""Clips laid out as KITTI publishes its drives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.kitti.dataset import DEPTH_SCALE, frame_name
from tools.synthetic import RenderedClip

DRIVE = "2011_09_26_drive_0002_sync"


@dataclass(frozen=True)
class KittiFolders:
    """Roots of the raw data and the annotated depth."""

    raw: Path
    depth: Path

    def pictures(self, drive: str = DRIVE) -> Path:
        return self.raw / drive[:10] / drive / "image_02" / "data"

    def truth(self, drive: str = DRIVE, part: str = "val") -> Path:
        return self.depth / part / drive / "proj_depth" / "groundtruth" / "image_02"


def empty(folder: Path) -> KittiFolders:
    folders = KittiFolders(folder / "raw", folder / "depth")
    for path in (folders.raw, folders.depth):
        path.mkdir(parents=True)
    return folders


def lay_out_drive(folders: KittiFolders, data: Path, drive: str = DRIVE) -> None:
    """Link the real drive: `data` has `image_02` and `groundtruth`."""
    for target, source in ((folders.pictures(drive), "image_02"), (folders.truth(drive), "groundtruth")):
        target.parent.mkdir(parents=True)
        target.symlink_to(data / source, target_is_directory=True)


def lay_out_clip(folders: KittiFolders, clip: RenderedClip, with_truth: Iterable[int], drive: str = DRIVE) -> None:
    """Write a rendered clip as a drive; `with_truth` are the frames with depth maps."""
    folders.pictures(drive).mkdir(parents=True)
    folders.truth(drive).mkdir(parents=True)
    for i, rgb in enumerate(clip.rgb):
        Image.fromarray(rgb).save(folders.pictures(drive) / f"{frame_name(i)}.png")
    for i in with_truth:
        values = np.round(clip.depth[i] * DEPTH_SCALE).astype(np.uint16)
        Image.fromarray(values).save(folders.truth(drive) / f"{frame_name(i)}.png")
