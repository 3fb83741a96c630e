"""Make the pictures at the top of the page from a finished run of the street example and its exact depth:

    python -m sfmttr refine examples/street.mp4 --out RUN && python -m tools.hero RUN

Written to demo/static/: the frame, and the depth error before and after (blue: none, red: `MAX_ERROR` or more).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.frames import loader
from sfmttr.geometry import resize_numpy
from sfmttr.io import depth_maps
from sfmttr.io.depth_files import read_depth_png
from sfmttr.viz import overlays

STATIC = Path(__file__).resolve().parents[1] / "demo" / "static"
TRUTH = Path(__file__).resolve().parents[1] / "examples" / "street.depth"
FRAME, WIDTH = 25, 832
NO_TRUTH = (221, 227, 235)


def error_picture(depth: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Color the relative error of depth (any size) against true depth (h, w; 0: none), with equal medians.

    Returns (h, w, 3) uint8.
    """
    known = true > 0
    depth = resize_numpy(depth, (true.shape[0], true.shape[1]))
    depth = depth * np.median(true[known]) / np.median(depth[known])
    error = np.abs(depth / np.where(known, true, 1.0) - 1)
    table = overlays.error_table()
    rgb = table[np.rint(np.clip(error / overlays.MAX_ERROR, 0, 1) * (len(table) - 1)).astype(int)]
    return np.where(known[..., None], rgb, np.array(NO_TRUTH, np.uint8))


def main(run: Path) -> None:
    frames = loader.frame_set_from_folder(run / "frames")
    true = read_depth_png(TRUTH / f"{frames.numbers[FRAME]:06d}.png").values
    pictures = {"hero-photo": frames.read(FRAME).rgb} | {
        f"hero-{name}": error_picture(depth_maps.read_maps(run / "depth" / f"{name}.npz")[FRAME], true)
        for name in ("before", "after")
    }
    for name, rgb in pictures.items():
        height = round(WIDTH * frames.hw[0] / frames.hw[1])
        Image.fromarray(rgb).resize((WIDTH, height), Image.Resampling.LANCZOS).save(
            STATIC / f"{name}.webp", quality=84, method=6
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
