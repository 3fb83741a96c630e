"""Frame source for video files. The only module that decodes with PyAV.

A first pass over the packets (no decoding) gives the time and number of every frame. Windows are cut by these times,
and only the candidates of each window are decoded, one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from PIL import Image

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError
from sfmttr.frames.clip_info import ClipInfo, ClipKind
from sfmttr.frames.hdr import ARIB_STD_B67_HLG, SMPTE2084_PQ, srgb_from_hdr
from sfmttr.frames.padding import Padding, padding_of
from sfmttr.frames.selection import GRAY_LONG_SIDE, Candidate, fitted_hw, subsample_window, windows_in_time
from sfmttr.frames.timeline import DecodeSegment, Timeline, decode_segments
from sfmttr.types import HW, SkippedFrame

# About 0.4 s, in which a shaking hand comes to rest at least once.
CANDIDATES_PER_WINDOW = 12
"""Maximum number of frames decoded per window: about 0.4 s, in which a shaking hand comes to rest once."""
DECODER_THREADS = 4
"""Maximum number of decoder threads. Each holds a frame; more cost memory and decode 4K hardly faster."""
OPEN_OPTIONS = {
    # Only formats that contain the pictures themselves: a text file named .mp4 may be a playlist of other files.
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,ivf,obu,mxf,gif",
    "protocol_whitelist": "file",
}
UNTIMED_FORMATS = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo", "obu"})
"""Formats without presentation timestamps: at best they give decoding times, in another order."""
SEEK_MARGIN_S = 1.0
PROBE_FRAMES = 5
"""Number of frames, spread over the video, from which padding is detected."""
PROBE_STRIDE = 4
"""Minimum distance between probe frames, in frames, with a single keyframe or without seeking."""
COLORSPACE_UNSPECIFIED = 2
"""FFmpeg's identifier of an unspecified color space."""
FOCAL_KEY = "com.apple.quicktime.camera.focal_length.35mm_equivalent"


class VideoSource:
    """Frame source of an open video."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        used: range,
        padding: Padding,
        config: VideoConfig,
    ) -> None:
        self._container, self._stream, self._timeline = container, stream, timeline
        self._used = used
        self._padding = padding
        self._config = config
        self._aspect = _aspect(stream)
        self._hw: HW | None = None
        self.names = [str(number) for number in range(len(timeline.pts))]
        self.skipped: list[SkippedFrame] = []
        if timeline.missing_frames:
            reason = f"the file ends early: {timeline.missing_frames} frames that its header promises are missing"
            self.skipped.append(SkippedFrame(str(len(timeline.pts)), reason))

    @property
    def source_hw(self) -> HW:
        return self._hw or (0, 0)

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels from the 35 mm equivalent that phones write, or None.

        The equivalent refers to the width: video keeps the sensor's width and crops its height.
        """
        value = _metadata(self._container, self._stream).get(FOCAL_KEY, "")
        try:
            equivalent_mm = float(value)
        except ValueError:
            return None
        return equivalent_mm / 36.0 * max(self.source_hw) if 1.0 < equivalent_mm < 1000.0 else None

    def window_candidates(self) -> list[range]:
        first, pts = self._used.start, self._timeline.pts[self._used.start : self._used.stop]
        windows = windows_in_time(pts, self._config.max_frames)
        shifted = [range(first + window.start, first + window.stop) for window in windows]
        return [subsample_window(window, self._timeline.keyframes, CANDIDATES_PER_WINDOW) for window in shifted]

    def candidates(self, numbers: Sequence[int]) -> Iterator[Candidate]:
        for segment in decode_segments(numbers, self._timeline.keyframes):
            if segment.start > 0:
                self._seek(segment.start)
            for number, frame in self._decoded(segment):
                if self._has_first_size(number, frame):
                    image = partial(_upright_rgb, frame, self._padding, self._aspect, self._config.long_side)
                    yield Candidate(number, self._timeline.time_s(number), _gray(frame, self._padding), image)

    def _decoded(self, segment: DecodeSegment) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the requested frames of a segment with their numbers. Frames that cannot be decoded are left out."""
        wanted = {self._timeline.pts[number]: number for number in segment.numbers}
        last = self._timeline.pts[segment.numbers[-1]]
        for count, frame in enumerate(_decoded_frames(self._container, self._stream)):
            pts = count if self._timeline.synthetic_pts else frame.pts
            if pts in wanted and not frame.is_corrupt:
                yield wanted[pts], frame
            if pts is not None and pts >= last:
                return

    def _seek(self, keyframe: int) -> None:
        margin = 0 if _has_index(self._container) else round(SEEK_MARGIN_S / self._timeline.time_base)
        self._container.seek(self._timeline.pts[keyframe] - margin, stream=self._stream)

    def _has_first_size(self, number: int, frame: VideoFrame) -> bool:
        """Return whether a frame has the size of the first; some recorders change size within a file."""
        hw = _upright_hw(frame, self._padding, self._aspect)
        self._hw = self._hw or hw
        if hw != self._hw:
            self.skipped.append(SkippedFrame(str(number), f"is {hw[1]} x {hw[0]} pixels, unlike the first frame"))
        return hw == self._hw


@contextmanager
def video_source(clip: Path, config: VideoConfig) -> Iterator[VideoSource]:
    """Open a video as a source of frames. Raises `ClipError` when it cannot be used."""
    with _open_video(clip, config) as (container, stream):
        _share_in_use(_header_duration_s(container, stream), clip, config)  # fails before all packets are read
        timeline = _timeline(container, stream, clip)
    used = timeline.between(config.start_s, config.end_s)
    if not used:
        raise ClipError(f"{clip.name} has no frames after {config.start_s:g} s; choose another start and end")
    _check_duration(timeline.time_s(used[-1]) - timeline.time_s(used[0]), clip, config)
    with _open_video(clip, config) as (container, stream):
        padding = _padding(_probe_frames(container, stream))
    with _open_video(clip, config) as (container, stream):
        yield VideoSource(container, stream, timeline, used, padding, config)


@contextmanager
def _open_video(clip: Path, config: VideoConfig) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file and its first video stream that is not a cover picture, and check its size. Raises `ClipError`."""
    try:
        container = av.open(str(clip.absolute()), options=OPEN_OPTIONS)
    except (av.error.FFmpegError, ValueError) as error:
        raise ClipError(f"{clip.name} is not a video that can be read, or it is damaged; save it as MP4") from error
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams or streams[0].codec_context is None:
            raise ClipError(f"{clip.name} holds no video that can be decoded; save it as MP4 (H.264)")
        stream = streams[0]
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > config.max_source_pixels:
            raise ClipError(f"{clip.name} has frames of more than {config.max_source_pixels:,} pixels; make it smaller")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(DECODER_THREADS, os.cpu_count() or 1)
        yield container, stream


def _timeline(container: InputContainer, stream: VideoStream, clip: Path) -> Timeline:
    """Read all packets, without decoding, into a timeline. Raises `ClipError` when there are none.

    Reading the file once is cheap compared with decoding, and numbers every frame exactly. Counting while seeking would
    not, and ground truth is matched by frame number.
    """
    is_key: dict[int, bool] = {}
    count, untimed = 0, container.format.name in UNTIMED_FORMATS
    for packet in _packets(container, stream):
        count += 1
        if packet.pts is None:
            untimed = True
        else:
            is_key[packet.pts] = is_key.get(packet.pts, False) or packet.is_keyframe
    if count == 0 or stream.time_base is None:
        raise ClipError(f"{clip.name} holds no frames that can be read; copy or export it again")
    if untimed:
        rate = stream.average_rate or stream.guessed_rate or 25
        return Timeline.evenly_timed(count, _header_duration_s(container, stream) or float(count / rate))
    pts = tuple(sorted(is_key))
    keyframes = tuple(number for number, time in enumerate(pts) if is_key[time])
    promised = stream.frames if _counts_frames(container) else 0
    return Timeline(pts, keyframes, stream.time_base, max(0, promised - len(pts)))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Yield the stream's non-empty packets that are shown. Iteration ends where the file is damaged or truncated."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        if packet.size and not packet.is_discard:
            yield packet


def _decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield all frames from the current position, in presentation order.

    Damaged packets are skipped; iteration ends where the file is truncated.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from frames


def _probe_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield a few frames spread over a video just opened, or from its start where seeking is unreliable."""
    start, duration_s = container.start_time or 0, _header_duration_s(container, stream) or 0.0
    for look in range(PROBE_FRAMES):
        if look and _has_index(container):
            with suppress(av.error.FFmpegError):  # then decoding continues from the current position
                container.seek(start + round(duration_s * look / PROBE_FRAMES * av.time_base))
        frames = _decoded_frames(container, stream)
        yield from islice(frames, look * PROBE_STRIDE, look * PROBE_STRIDE + 1)


def _padding(probes: Iterable[VideoFrame]) -> Padding:
    return padding_of(frame.reformat(format="gray").to_ndarray() for frame in probes if not frame.is_corrupt)


def probe_video(clip: Path, config: VideoConfig) -> ClipInfo:
    """Return a video's properties from its header and a few frames. Raises `ClipError`."""
    with _open_video(clip, config) as (container, stream):
        duration_s = _header_duration_s(container, stream)
        probes = _probe_frames(container, stream)
        first = next(probes, None)
        if first is None:
            raise ClipError(f"no frame of {clip.name} can be decoded; copy or export it again")
        share = _share_in_use(duration_s, clip, config)
        count = (stream.frames or None) if _counts_frames(container) else None
        to_use = min(config.max_frames, round(count * share)) if count else config.max_frames
        name = stream.codec_context.codec.canonical_name
        hw = _upright_hw(first, _padding(chain([first], probes)), _aspect(stream))
        return ClipInfo(ClipKind.VIDEO, duration_s, hw, count, to_use, name)


def _header_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _share_in_use(duration_s: float | None, clip: Path, config: VideoConfig) -> float:
    """Return the fraction of the header's duration between the configured start and end.

    Raises `ClipError` when this part is too long.
    """
    if not duration_s:
        return 1.0
    end_s = duration_s if config.end_s is None else min(config.end_s, duration_s)
    _check_duration(end_s - config.start_s, clip, config)
    return max(0.0, end_s - config.start_s) / duration_s


def _check_duration(used_s: float, clip: Path, config: VideoConfig) -> None:
    if used_s > config.max_duration_s:
        raise ClipError(f"{clip.name} lasts longer than {config.max_duration_s:g} s; set a start and an end")


def _metadata(container: InputContainer, stream: VideoStream) -> dict[str, str]:
    return {**container.metadata, **stream.metadata}


def _has_index(container: InputContainer) -> bool:
    """Return whether seeking is exact; in broadcast streams it may end up after the requested time."""
    return any(name in container.format.name for name in ("mov", "matroska"))


def _counts_frames(container: InputContainer) -> bool:
    """Return whether the header's number of frames is reliable; AVI counts pauses as well."""
    return "mov" in container.format.name


def _quarter_turns(frame: VideoFrame) -> int:
    """Return the number of 90-degree counterclockwise rotations that make the stored picture upright."""
    return round(frame.rotation / 90) % 4


def _square_hw(frame: VideoFrame, padding: Padding, aspect: float) -> HW:
    """Return the size with square pixels, before rotation; `aspect` is width over height of a stored pixel."""
    return frame.height - padding.rows, round((frame.width - padding.columns) * aspect)


def _upright_hw(frame: VideoFrame, padding: Padding, aspect: float) -> HW:
    hw = _square_hw(frame, padding, aspect)
    return hw[::-1] if _quarter_turns(frame) % 2 else hw


def _upright_rgb(frame: VideoFrame, padding: Padding, aspect: float, long_side: int) -> Image.Image:
    """Convert a frame of any pixel format to 8-bit sRGB, scaled to at most `long_side` before color conversion.

    Rotation metadata is applied here, because PyAV does not. Padding is cropped first, or scaling would blur it in.
    """
    hw = fitted_hw(_square_hw(frame, padding, aspect), long_side)
    height, width = hw if padding == Padding() else (frame.height, frame.width)
    hdr = frame.color_trc in (SMPTE2084_PQ, ARIB_STD_B67_HLG)
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if hdr else "rgb24",
        src_colorspace=_colorspace(frame),
        interpolation=Interpolation.LANCZOS,
    ).to_ndarray()
    if hdr:
        rgb = srgb_from_hdr(rgb, frame.color_trc)
    rgb = _scaled(padding.cut(rgb), hw, Image.Resampling.LANCZOS)
    return Image.fromarray(np.ascontiguousarray(np.rot90(rgb, _quarter_turns(frame))))


def _scaled(picture: np.ndarray, hw: HW, resampling: Image.Resampling) -> np.ndarray:
    if picture.shape[:2] == hw:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(hw[::-1], resampling))


def _aspect(stream: VideoStream) -> float:
    """Return the pixel aspect ratio; implausible values in the header count as square."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 else 1.0


def _colorspace(frame: VideoFrame) -> Colorspace | None:
    """Return BT.709 for high definition without a declared color space, where FFmpeg would assume BT.601."""
    unsaid = frame.colorspace == COLORSPACE_UNSPECIFIED
    return Colorspace.ITU709 if unsaid and min(frame.height, frame.width) >= 720 else None


def _gray(frame: VideoFrame, padding: Padding) -> np.ndarray:
    """Return the luma plane, (h, w) float32, scaled down; colors are computed for kept frames only."""
    hw = fitted_hw((frame.height - padding.rows, frame.width - padding.columns), GRAY_LONG_SIDE)
    height, width = hw if padding == Padding() else (frame.height, frame.width)
    gray = frame.reformat(width=width, height=height, format="gray", interpolation=Interpolation.AREA).to_ndarray()
    return _scaled(padding.cut(gray), hw, Image.Resampling.BOX).astype(np.float32)
