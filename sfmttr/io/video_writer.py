"""Write pictures as a video that plays in browsers: H.264, yuv420p, even sizes, index at the front."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.stream import VideoStream

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file

ENCODER: Final = "libx264"
BT709 = 1
"""Code of BT.709 in H.264's tables of primaries, transfer functions and matrices."""


def write_comparison_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write `frames` (H, W, 3 uint8, all of one size) as MP4, one at a time, atomically, and return their number.

    Odd sizes are padded by repeating the last row or column. Raises RunFolderError when PyAV comes without the
    encoder or the disk is full, ValueError when there are no frames or they differ in size.
    """
    _need_encoder()
    count = 0
    # The index goes to the front, or a browser has to load the whole file before it can start.
    with (
        atomic_file(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream: VideoStream | None = None
        for rgb in frames:
            if stream is None:
                stream, hw = _add_stream(container, rgb, fps), rgb.shape
            if rgb.shape != hw:
                raise ValueError(f"{rgb.shape=}, expected {hw} as the first frame has")
            for packet in stream.encode(_video_frame(rgb)):
                container.mux(packet)
            count += 1
        if stream is None:
            raise ValueError("no frames to write")
        for packet in stream.encode():
            container.mux(packet)
    return count


def _need_encoder() -> None:
    """Raise RunFolderError without an H.264 encoder. No other codec plays everywhere, so there is no fallback."""
    try:
        av.codec.Codec(ENCODER, "w")
    except ValueError as error:
        message = f"this PyAV has no H.264 encoder ({ENCODER}); install the wheel from PyPI: pip install --force av"
        raise RunFolderError(message) from error


def _add_stream(container: av.container.OutputContainer, rgb: np.ndarray, fps: float) -> VideoStream:
    """Add the only stream of the container, for pictures of the size of `rgb`."""
    options = {"crf": "20", "preset": "superfast"}
    stream = container.add_stream(ENCODER, rate=Fraction(fps).limit_denominator(1001), options=options)
    stream.height, stream.width = rgb.shape[0] + rgb.shape[0] % 2, rgb.shape[1] + rgb.shape[1] % 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    # Players guess a color space that is not stated by the picture's size: colors would depend on it.
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = 1
    return stream


def _video_frame(rgb: np.ndarray) -> av.VideoFrame:
    """Convert to yuv420p in BT.709, padded to the even sizes that its halved chroma planes need."""
    padding = ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(rgb, padding, mode="edge")), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
