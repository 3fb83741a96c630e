"""SIFT features (Lowe, IJCV 2004) of an image, by OpenCV. Used in the child process only.

It takes a third of the time of the extractor in pycolmap's wheels. With the same settings a reconstruction has 10 to
25 % fewer points, which are about as accurate (`benchmarks.sfm --settings default "library's features"`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_DESCRIPTOR_SCALE = 512
"""Factor of unit-length descriptors before conversion to uint8, as in COLMAP."""


@dataclass(frozen=True)
class Features:
    """SIFT features of one image."""

    keypoints: np.ndarray
    """(K, 4) float32: x and y in pixels at the image's full size, the center of the top-left pixel at (0.5, 0.5);
    scale in the same pixels; orientation in radians."""
    descriptors: np.ndarray
    """(K, 128) uint8: RootSIFT descriptors ( Arandjelovic and Zisserman, CVPR 2012)."""


def sift(image: Path, long_side: int, most: int, contrast: float) -> Features:
    """Return about `most` features of an image, of highest contrast, at least `contrast` (`SfmSettings.contrast`).

    The image is scaled down to at most `long_side`; SIFT then doubles it once. A keypoint with several dominant
    orientations gives several features, all of which are kept.
    """
    with Image.open(image) as picture:
        grey = np.asarray(picture.convert("L"))
    height, width = grey.shape
    ratio = min(1.0, long_side / max(height, width))
    if ratio < 1:
        small_wh = round(ratio * width), round(ratio * height)
        grey = cv2.resize(grey, small_wh, interpolation=cv2.INTER_AREA)
    # Without `enable_precise_upscale` all positions are off by a quarter of a pixel.
    finder = cv2.SIFT.create(nfeatures=most, contrastThreshold=contrast, enable_precise_upscale=True)
    points, descriptors = finder.detectAndCompute(grey, None)
    if not points:
        return Features(np.empty((0, 4), np.float32), np.empty((0, 128), np.uint8))
    found = np.array([(*p.pt, p.size / 2, np.radians(p.angle)) for p in points])
    found[:, :2] = (found[:, :2] + 0.5) * (width / grey.shape[1], height / grey.shape[0])  # OpenCV: centers at integers
    found[:, 2] /= ratio
    return Features(found.astype(np.float32), _root(descriptors))


def _root(descriptors: np.ndarray) -> np.ndarray:
    share = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.rint(_DESCRIPTOR_SCALE * np.sqrt(share)).clip(0, 255).astype(np.uint8)
