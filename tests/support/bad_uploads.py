"""Ten uploads that cannot end well, each with what the page has to say about it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tools.synthetic import RenderedClip, write_video


@dataclass(frozen=True)
class BadUpload:
    """A file, what else the form says, and the sentence (a pattern)."""

    file: Path
    sentence: str
    intrinsics: str = ""


def _video(path: Path, hw: tuple[int, int], count: int, apart_s: float = 0.1) -> Path:
    """`count` grey frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10), options={"preset": "ultrafast"})
        stream.height, stream.width = hw
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        picture = np.full((*hw, 3), 90, np.uint8)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * apart_s * i), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _png(size: tuple[int, int] = (64, 48), seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def bad_uploads(room: RenderedClip, folder: Path) -> dict[str, BadUpload]:
    """By name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.mp4"
    text.write_text("this is no video\n" * 50)
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    good = _zip(folder / "whole.zip", {f"{i}.png": _png(seed=i) for i in range(5)})
    corrupt = folder / "corrupt.zip"
    corrupt.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    bomb = {"0.png": bytes(400_000_000)} | {f"{i}.png": _png(seed=i) for i in range(1, 5)}
    outside = {"../../../outside.png": _png()} | {f"{i}.png": _png(seed=i) for i in range(4)}
    return {
        "text named mp4": BadUpload(text, "not a video that can be read"),
        "empty file": BadUpload(empty, "is empty|not a video|no video"),
        "one frame": BadUpload(_video(folder / "one.mp4", (48, 64), 1), "usable frames"),
        "static": BadUpload(_video(folder / "static.mp4", (48, 64), 30), "camera does not move"),
        "three hours": BadUpload(_video(folder / "long.mp4", (48, 64), 4, 3600.0), "lasts longer than"),
        "8K frames": BadUpload(_video(folder / "huge.mp4", (4320, 7680), 3), "frames of more than"),
        "corrupt zip": BadUpload(corrupt, "not a zip file, or it is damaged"),
        "zip bomb": BadUpload(_zip(folder / "bomb.zip", bomb), "unpacks to"),
        "path traversal": BadUpload(_zip(folder / "outside.zip", outside), "leaves its folder"),
        "wrong intrinsics": BadUpload(
            write_video(room, folder / "fine.mp4"), "Intrinsics|intrinsics", intrinsics="5000,5000,-3,12"
        ),
    }
