"""KITTI as published: raw drives, annotated depth, and the frames of the Eigen split.

RAW/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000006.png   (or .jpg)
DEPTH/{train,val}/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000006.png

https://www.cvlibs.net/datasets/kitti/raw_data.php and eval_depth.php ("annotated depth maps data set").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sfmttr.errors import ClipError, GroundTruthError
from sfmttr.evaluation.ground_truth import GroundTruth
from sfmttr.kitti.config import KittiSplit
from sfmttr.types import FrameSet

DEPTH_SCALE = 256.0
"""Depth in meters = value / 256."""
FRAMES_A_SECOND = 10.0
EIGEN = {
    "2011_09_26_drive_0002_sync": "6-63/3 69",
    "2011_09_26_drive_0009_sync": "16-176/16 196-388/16",
    "2011_09_26_drive_0013_sync": "5-10/5 20 30-50/5 60-70/5 80-135/5",
    "2011_09_26_drive_0020_sync": "6-21/3 27 33-36/3 42-78/3",
    "2011_09_26_drive_0023_sync": "18-216/18 252-468/18",
    "2011_09_26_drive_0027_sync": "7-98/7 112-147/7 161-182/7",
    "2011_09_26_drive_0029_sync": "14-196/14 268 296-408/14",
    "2011_09_26_drive_0036_sync": "32-704/32 768",
    "2011_09_26_drive_0046_sync": "5-115/5",
    "2011_09_26_drive_0048_sync": "5-16/1",
    "2011_09_26_drive_0052_sync": "6-22/2 26-32/2 36-52/2",
    "2011_09_26_drive_0056_sync": "11-121/11 143-286/11",
    "2011_09_26_drive_0059_sync": "14-154/14 182-238/14 274-358/14",
    "2011_09_26_drive_0064_sync": "22-110/22 154-550/22",
    "2011_09_26_drive_0084_sync": "49-153/13 179-374/13",
    "2011_09_26_drive_0086_sync": "7-520/27 574-682/27",
    "2011_09_26_drive_0093_sync": "16-256/16 305-417/16",
    "2011_09_26_drive_0096_sync": "19-456/19",
    "2011_09_26_drive_0101_sync": "80-216/34 284-930/34",
    "2011_09_26_drive_0106_sync": "15 35-219/8",
    "2011_09_26_drive_0117_sync": "26-494/26 546-650/26",
    "2011_09_28_drive_0002_sync": "6-12/3 18-24/3 30-39/3 45-63/3 72 78-90/3",
    "2011_09_29_drive_0071_sync": "36-612/36 735-807/36 879-951/36",
    "2011_09_30_drive_0016_sync": "11-88/11 110-264/11",
    "2011_09_30_drive_0018_sync": "107-214/107 428-2247/107 2419-2740/107",
    "2011_09_30_drive_0027_sync": "41-656/41 753-958/41 1040-1081/41",
    "2011_10_03_drive_0027_sync": "181-543/181 734-2001/181 2363-4535/181",
    "2011_10_03_drive_0047_sync": "32-224/32 288-800/32",
}
"""The 652 test frames of Eigen, Puhrsch, Fergus (NeurIPS 2014) that have improved ground truth (Uhrig et al., 3DV
2017), by drive: numbers, and first-last/step."""


def eigen_numbers(drive: str) -> tuple[int, ...]:
    """Return the frame numbers of the Eigen split in a drive; empty for a drive outside the split."""
    numbers: list[int] = []
    for part in EIGEN.get(drive, "").split():
        ends, _, step = part.partition("/")
        first, _, last = ends.partition("-")
        numbers += range(int(first), int(last or first) + 1, int(step or 1))
    return tuple(numbers)


def frame_name(number: int) -> str:
    """Return the file name of a frame, without suffix."""
    return f"{number:010d}"


@dataclass(frozen=True)
class Drive:
    """Images of one drive and their ground truth."""

    name: str
    folder: Path
    """Folder of the images of the left color camera."""
    files: tuple[str, ...]
    """Image files, in order."""
    ground_truth_folder: Path | None
    """Folder of the annotated depth maps."""
    evaluated: tuple[str, ...]
    """Names of the frames that are in the split and have ground truth."""

    @property
    def names(self) -> tuple[str, ...]:
        """File names without suffix."""
        return tuple(Path(file).stem for file in self.files)

    def frames(self) -> FrameSet:
        """Return all frames of the drive in place, without a copy. Raises `ClipError` if there are no images."""
        if not self.files:
            raise ClipError(f"{self.folder} holds no images; unzip the drive's synced and rectified data again.")
        try:
            with Image.open(self.folder / self.files[0]) as image:
                hw = (image.height, image.width)
        except (OSError, UnidentifiedImageError) as error:
            raise ClipError(f"{self.folder / self.files[0]} cannot be read as an image ({error}).") from error
        numbers = tuple(range(len(self.files)))
        times = tuple(i / FRAMES_A_SECOND for i in numbers)
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file} {(self.folder / file).stat().st_size}\n".encode())
        return FrameSet(
            self.folder,
            self.files,
            self.names,
            numbers,
            times,
            hw,
            hw,
            len(self.files),
            from_video=True,
            content_hash=digest.hexdigest(),
            focal_prior_px=None,
        )

    def ground_truth(self, frames: FrameSet) -> GroundTruth:
        """Return the ground truth of the evaluated frames among `frames`."""
        assert self.ground_truth_folder is not None, "evaluated frames have ground truth"
        wanted = set(self.evaluated)
        files = {i: self.ground_truth_folder / f"{name}.png" for i, name in enumerate(frames.names) if name in wanted}
        return GroundTruth(files, DEPTH_SCALE)


def find_drives(raw: Path, depth: Path, split: KittiSplit, sequences: Sequence[str] = ()) -> list[Drive]:
    """Return the drives below `raw` that have frames to evaluate, or those of `sequences` (full names, or "0002").

    Raises `ClipError` if a folder or a sequence is missing, `GroundTruthError` if no frame has ground truth.
    """
    for folder, title in ((raw, "KITTI's raw data"), (depth, "KITTI's annotated depth maps")):
        if not folder.is_dir():
            raise ClipError(f"There is no folder {folder}: give the one that {title} were unzipped into.")
    found = {path.parents[1].name: path for path in sorted(raw.glob("*/*_sync/image_02/data"))}
    if not found:
        raise ClipError(f"{raw} holds no drives: expected {raw}/DATE/DATE_drive_NNNN_sync/image_02/data.")
    wanted = [name for given in sequences for name in _matching(given, found)] or [
        name for name in found if split is KittiSplit.ALL or name in EIGEN
    ]
    drives = [_drive(name, found[name], depth, split) for name in dict.fromkeys(wanted)]
    evaluated = [drive for drive in drives if drive.evaluated]
    if not evaluated:
        raise GroundTruthError(
            f"No frame of the split {split} has both an image in {raw} and a depth map in {depth} "
            "(expected {train,val}/DRIVE/proj_depth/groundtruth/image_02/NNNNNNNNNN.png)."
        )
    return evaluated


def missing_drives(drives: Iterable[Drive]) -> tuple[str, ...]:
    """Return the drives of the Eigen split that are not among `drives`."""
    available = {drive.name for drive in drives}
    return tuple(name for name in EIGEN if name not in available)


def _matching(given: str, available: dict[str, Path]) -> list[str]:
    found = [name for name in available if name == given or f"_drive_{given}_" in name]
    if not found:
        some = ", ".join(list(available)[:5]) + " ..." * (len(available) > 5)
        raise ClipError(f"There is no drive {given!r}; available: {some}.")
    return found


def _drive(name: str, folder: Path, depth: Path, split: KittiSplit) -> Drive:
    files = tuple(sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg")))
    folders = (depth / part / name / "proj_depth" / "groundtruth" / "image_02" for part in ("val", "train"))
    ground_truth = next((path for path in folders if path.is_dir()), None)
    known = {path.stem for path in ground_truth.glob("*.png")} if ground_truth else set()
    listed = {frame_name(number) for number in eigen_numbers(name)} if split is KittiSplit.EIGEN else known
    evaluated = tuple(Path(file).stem for file in files if Path(file).stem in known & listed)
    return Drive(name, folder, files, ground_truth, evaluated)
