"""Speed and accuracy of structure-from-motion for named settings.

    python -m benchmarks.sfm --json out.json [--clips drive_0002 redkitchen] [--settings default stock]

Prints a table and writes JSON. Ground truth serves only for measuring: the depths of the SfM points are compared with
it at their pixels after per-frame median scaling (drive_0002: KITTI's annotated maps; RedKitchen: the Kinect's). The
default was chosen by registered frames, points, reprojection error and time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.config import SfmConfig
from sfmttr.sfm.protocol import Extractor, Mapper, SfmSettings
from sfmttr.sfm.retry_policy import attempt_settings
from sfmttr.sfm.single_attempt import SingleAttempt, run_one_attempt
from sfmttr.sfm.sparse import Sparse
from sfmttr.types import FrameSet

DATA = Path(os.environ.get("SFMTTR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MAX_FRAMES = 80


@dataclass(frozen=True)
class Clip:
    """A folder of images with what is known about it."""

    images: str
    focal_px: float
    ordered: bool = True
    truth: str = ""
    """Folder of 16-bit depth PNGs with the stems of the images; empty: none."""
    truth_per_m: float = 1.0
    """Their unit: values a metre."""


CLIPS = {
    "drive_0002": Clip("kitti_drive_0002/image_02", 721.5377, True, "kitti_drive_0002/groundtruth", 256.0),
    "redkitchen": Clip("redkitchen/rgb", 528.0, True, "redkitchen/depth", 1000.0),
    "fountain": Clip("fountain", 1379.74, ordered=False),
}

_STOCK = {
    "extractor": Extractor.COLMAP,
    "max_features": 8192,
    "long_side": 3200,
    "contrast": 0.02,
    "max_forward_motion": 0.95,
    "min_first_angle_deg": 16.0,
    "ba_ratio": 1.1,
    "ba_refinements": 5,
    "ba_iterations": -1,
    "local_ba_iterations": 25,
    "polish_iterations": 0,
    "retriangulate": False,
    "first_pair_trials": 200,
    "first_pairs": 0,
    "focal_guess": None,
    "least_trials": 100,
    "overlap": 11,  # up to 10 after each, as the library counts
}
# What differs from the default settings of the clip. `overlap` is set only where frames are matched in sequence.
SETTINGS: dict[str, dict[str, object]] = {
    "default": {},
    "library's features": {"extractor": Extractor.COLMAP},
    "stock": _STOCK,
    "stock, forward": {**_STOCK, "max_forward_motion": 1.0, "min_first_angle_deg": 4.0},
    "no final_bundle_adjustment": {"polish_iterations": 0, "retriangulate": False},
    "final_bundle_adjustment 10": {"polish_iterations": 10},
    "final_bundle_adjustment 50": {"polish_iterations": 50},
    "features 1500": {"max_features": 1500},
    "features 3000": {"max_features": 3000},
    "features 2500": {"max_features": 2500},
    "features 8192": {"max_features": 8192},
    "overlap 2": {"overlap": 2},
    "overlap 4": {"overlap": 4},
    "overlap 8": {"overlap": 8},
    "long side 960": {"long_side": 960},
    "guided": {"guided_matching": True},
    "max error 2 px": {"max_error_px": 2.0},
    "no retriangulation": {"retriangulate": False},
    "library's first pair": {"first_pairs": 0},
    "library's focal guess": {"focal_guess": None},
    "library's guess and first pair": {"focal_guess": None, "first_pairs": 0},
    "long side 800": {"long_side": 800},
    "contrast 0.02": {"contrast": 0.02},
    "longer adjustments": {"ba_refinements": 2, "local_ba_iterations": 8},
    "ba often": {"ba_ratio": 1.2, "ba_refinements": 5, "ba_iterations": -1},
    "global": {"mapper": Mapper.GLOBAL},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go; rows already there are kept")
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default"])
    parser.add_argument("--threads", type=int, default=SfmConfig().threads)
    parser.add_argument("--seed", type=int, default=SfmConfig().seed)
    arguments = parser.parse_args()
    config = SfmConfig(threads=arguments.threads, seed=arguments.seed)
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    print(header(), flush=True)
    for name in arguments.clips:
        frames = frame_set(CLIPS[name])
        for setting in arguments.settings:
            row = measure(name, setting, frames, config)
            rows = [r for r in rows if (r["clip"], r["setting"]) != (name, setting)] + [row]
            arguments.json.write_text(json.dumps(rows, indent=1))
            print(line(row), flush=True)


def frame_set(clip: Clip) -> FrameSet:
    """The clip's images where they lie, at most `MAX_FRAMES` of them from the beginning."""
    folder = DATA / clip.images
    files = tuple(sorted(p.name for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg"}))[:MAX_FRAMES]
    with Image.open(folder / files[0]) as image:
        hw = image.height, image.width
    return FrameSet(
        folder=folder,
        files=files,
        names=tuple(Path(file).stem for file in files),
        numbers=tuple(range(len(files))),
        time_s=tuple(0.1 * i for i in range(len(files))),
        hw=hw,
        source_hw=hw,
        source_count=len(files),
        from_video=clip.ordered,
        content_hash=hashlib.sha256(str(folder).encode()).hexdigest(),
        focal_prior_px=None,
    )


def settings_for(setting: str, frames: FrameSet, config: SfmConfig) -> SfmSettings:
    """The first rung of these frames with the setting's changes."""
    settings = attempt_settings(frames, config)[0]
    changes = {k: v for k, v in SETTINGS[setting].items() if k != "overlap" or settings.overlap > 0}
    return replace(settings, **changes)  # type: ignore[arg-type]


def measure(name: str, setting: str, frames: FrameSet, config: SfmConfig) -> dict[str, object]:
    """One row of the table."""
    settings = settings_for(setting, frames, config)
    trial = run_one_attempt(frames, config, settings)
    row: dict[str, object] = {
        "clip": name,
        "setting": setting,
        "recipe": asdict(settings),
        "frames": len(frames),
        "seconds": trial.statistics.seconds,
        "cpu_seconds": trial.statistics.cpu_seconds,
        "threads": config.threads,
        "registered": trial.attempt.registered,
        "note": trial.attempt.note,
    }
    return row | _figures(trial, CLIPS[name], frames)


def _figures(trial: SingleAttempt, clip: Clip, frames: FrameSet) -> dict[str, object]:
    if trial.sparse is None or trial.health is None:
        return {}
    return {
        "points": trial.health.points,
        "observations": sum(len(view.depth) for view in trial.sparse.views),
        "reprojection_px": trial.health.mean_reprojection_error_px,
        "track_length": trial.health.mean_track_length,
        "angle_deg": trial.health.median_triangulation_angle_deg,
        "focal_px": trial.health.focal_px,
        "focal_true_px": clip.focal_px,
        "degenerate_ratio": trial.statistics.degenerate_ratio,
        "step_evenness": trial.health.step_evenness,
        "score": trial.health.score,
        **depth_error(trial.sparse, clip, frames),
    }


def depth_error(sparse: Sparse, clip: Clip, frames: FrameSet) -> dict[str, float]:
    """Relative error of the points' depths after per-frame median scaling; empty without ground truth."""
    errors, scales = [], []
    for view in sparse.views if clip.truth else ():
        path = DATA / clip.truth / f"{frames.names[view.frame]}.png"
        if not path.exists():
            continue
        with Image.open(path) as image:
            truth_m = np.asarray(image).astype(np.float64) / clip.truth_per_m
        x, y = np.floor(view.xy_px).astype(int).T
        at_points = truth_m[np.minimum(y, truth_m.shape[0] - 1), np.minimum(x, truth_m.shape[1] - 1)]
        known = (at_points > 1e-3) & (at_points < 60.0)  # 65.535 m is the Kinect's "unknown"
        if known.sum() < 5:
            continue
        ratio = at_points[known] / view.depth[known]
        scales.append(np.log(np.median(ratio)))
        errors.append(np.abs(np.median(ratio) / ratio - 1))
    if not errors:
        return {}
    return {
        "compared": int(sum(map(len, errors))),
        "abs_rel": float(np.mean([e.mean() for e in errors])),
        "abs_rel_median": float(np.median(np.concatenate(errors))),
        "scale_spread": float(np.std(scales)),
    }


_COLUMNS = (
    "clip",
    "setting",
    "cpu s",
    "feat",
    "match",
    "map",
    "reg",
    "points",
    "obs",
    "repr px",
    "focal/true",
    "compared",
    "AbsRel",
    "median",
    "scales",
)
_WIDTHS = (11, 16, 6, 6, 6, 6, 6, 7, 7, 8, 11, 9, 7, 7, 7)


def header() -> str:
    return " ".join(name.rjust(width) for name, width in zip(_COLUMNS, _WIDTHS, strict=True))


def line(row: dict[str, object]) -> str:
    """One row of the table; seconds are processor time over all threads, which neighbours disturb least."""
    cpu = row["cpu_seconds"]
    assert isinstance(cpu, dict)

    def number(key: str, form: str) -> str:
        return format(row[key], form) if key in row else "-"

    focal = f"{row['focal_px'] / row['focal_true_px']:.3f}" if "focal_px" in row else "-"  # type: ignore[operator]
    cells = (
        str(row["clip"]),
        str(row["setting"]),
        f"{sum(cpu.values()):.0f}",
        *(f"{cpu.get(stage, 0):.0f}" for stage in ("features", "matching", "mapping")),
        f"{row['registered']}/{row['frames']}",
        number("points", "d"),
        number("observations", "d"),
        number("reprojection_px", ".3f"),
        focal,
        number("compared", "d"),
        number("abs_rel", ".4f"),
        number("abs_rel_median", ".4f"),
        number("scale_spread", ".3f"),
    )
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


if __name__ == "__main__":
    main()
