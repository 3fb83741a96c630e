"""Rendered clips as files: images, video, ground truth."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from sfmttr.types import FrameSet
from tools.synthetic.clip import RenderedClip


def write_frames(clip: RenderedClip, folder: Path) -> FrameSet:
    """Write the frames as PNGs into `folder`, and return them as frames of a video at 10 Hz."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    files = tuple(f"{i:06d}.png" for i in range(len(clip)))
    for file, rgb in zip(files, clip.rgb, strict=True):
        Image.fromarray(rgb).save(folder / file, compress_level=1)
        digest.update(repr(rgb.shape).encode())
        digest.update(rgb.tobytes())
    count, hw = len(clip), clip.camera.hw
    return FrameSet(
        folder=folder,
        files=files,
        names=clip.names,
        numbers=tuple(range(count)),
        time_s=tuple(i / 10 for i in range(count)),
        hw=hw,
        source_hw=hw,
        source_count=count,
        from_video=True,
        content_hash=digest.hexdigest(),
        focal_prior_px=None,
    )


def write_video(clip: RenderedClip, path: Path, fps: float = 10, codec: str = "libx264") -> Path:
    """Write the frames as a high-quality video, one video frame each. Height and width must be even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream), codec
        stream.height, stream.width = clip.camera.hw
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 20_000_000  # for codecs that do not know crf
        if codec in ("libx264", "libx265"):
            stream.options = {"crf": "8", "preset": "veryfast"}
        for rgb in clip.rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_ground_truth(clip: RenderedClip, folder: Path, scale: float = 1000) -> Path:
    """Write 16-bit PNGs named by frame number: value = meters * scale, 0 where that exceeds 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, depth in zip(clip.names, clip.depth, strict=True):
        values = np.rint(depth.astype(np.float64) * scale)
        values[values > np.iinfo(np.uint16).max] = 0
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{name}.png")
    return folder
