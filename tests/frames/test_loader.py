"""Clips, folders and zip files to frames: real little files, made here."""

from __future__ import annotations

import errno
import os
import stat
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from sfmttr.config import VideoConfig
from sfmttr.errors import Cancelled, ClipError, ConfigError, RunFolderError
from sfmttr.frames import hdr, images, selection, video
from sfmttr.frames.loader import ClipKind, frame_set_from_folder, load_frames, probe
from sfmttr.frames.timeline import decode_segments
from sfmttr.types import Frame, Progress

CONFIG = VideoConfig()
H, W = 96, 128
DATA = Path(os.environ.get("SFMTTR_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (set SFMTTR_DATA)")


def picture(i: int, hw: tuple[int, int] = (H, W)) -> np.ndarray:
    """A smooth texture that moves by 3 pixels from one picture to the next."""
    y, x = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    x += 3 * i
    channels = [np.sin(x / 5) * np.cos(y / 7), np.sin(x / 9 + y / 4), np.cos((x - y) / 6)]
    return np.stack([128 + 100 * channel for channel in channels], axis=-1).astype(np.uint8)


def blurred(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(4)))


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    rotation: int = 0,
    gop: int = 12,
    container: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
) -> Path:
    fast = {
        "libx264": {"preset": "ultrafast", "bf": "2"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    }
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=10, options=fast.get(codec, {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = (times_ms[i] if times_ms else 100 * i), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def write_images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir()
    for i, name in enumerate(names):
        Image.fromarray(picture(i)).save(folder / name)
    return folder


def write_zip(path: Path, images: Path, names: dict[str, str]) -> Path:
    """`names` maps a name in the archive to a file of `images`."""
    with zipfile.ZipFile(path, "w") as archive:
        for inside, outside in names.items():
            archive.writestr(zipfile.ZipInfo(inside), (images / outside).read_bytes())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", [picture(i) for i in range(20)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", ["1.png", "2.png", "10.png", "11.png"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run" / "frames"


def assert_nothing_left(out: Path) -> None:
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


# ---------------------------------------------------------------------------------------- video


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libx264", "yuv420p10le", "mkv"),
        ("libx264", "yuv420p", "ts"),
        ("libx265", "yuv420p", "mp4"),
        ("libx265", "yuv420p10le", "mov"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("libsvtav1", "yuv420p10le", "mp4"),
        ("mpeg4", "yuv420p", "avi"),
        ("libx264", "yuv420p", "avi"),  # B-frames where the file cannot say when they are shown
        ("libx264", "yuv420p", "h264"),  # no times at all
    ],
)
def test_every_codec_gives_the_pictures_that_went_in(tmp_path: Path, out: Path, codec: str, pix_fmt: str, suffix: str):
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    pictures = [picture(i) for i in range(6)]
    frames = load_frames(write_video(tmp_path / f"a.{suffix}", pictures, codec=codec, pix_fmt=pix_fmt), CONFIG, out)
    assert frames.names == ("0", "1", "2", "3", "4", "5")
    assert frames.numbers == (0, 1, 2, 3, 4, 5)
    assert frames.hw == frames.source_hw == (H, W)
    assert frames.from_video
    assert frames.source_count == 6
    for i, rgb in enumerate(pictures):
        assert np.abs(frames.read(i).rgb.astype(int) - rgb).mean() < 12  # 4:2:0 and coding


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_applied(tmp_path: Path, out: Path, rotation: int):
    pictures = [picture(i) for i in range(4)]
    clip = write_video(tmp_path / "a.mov", pictures, rotation=rotation)
    frames = load_frames(clip, CONFIG, out)
    expected = np.rot90(pictures[0], round(rotation / 90))
    assert frames.hw == probe(clip, CONFIG).hw == expected.shape[:2]
    assert np.abs(frames.read(0).rgb.astype(int) - expected).mean() < 12


def padded(rgb: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.pad(rgb, ((0, rows), (0, columns), (0, 0)))


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, 1), (1, 1)])
def test_black_line_that_makes_a_size_even_is_cut_off(
    tmp_path: Path, out: Path, rows: int, columns: int, rotation: int
):
    pictures = [picture(i, (H - rows, W - columns)) for i in range(4)]
    clip = write_video(tmp_path / "a.mov", [padded(rgb, rows, columns) for rgb in pictures], rotation=rotation)
    frames = load_frames(clip, CONFIG, out)
    expected = np.rot90(pictures[0], rotation // 90)
    assert frames.hw == frames.source_hw == probe(clip, CONFIG).hw == expected.shape[:2]
    assert np.abs(frames.read(0).rgb.astype(int) - expected).mean() < 12
    small = load_frames(clip, replace(CONFIG, long_side=64), out)
    assert small.source_hw == expected.shape[:2]
    assert max(small.hw) == 64
    assert small.read(0).rgb.mean(axis=(1, 2)).min() > 60  # no black is smeared into the picture's edge


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "h264"])
def test_padding_is_found_in_every_container(tmp_path: Path, out: Path, suffix: str):
    faded_in = [np.zeros((H - 1, W, 3), np.uint8), *(picture(i, (H - 1, W)) for i in range(40))]
    clip = write_video(tmp_path / f"a.{suffix}", [padded(rgb, 1, 0) for rgb in faded_in], gop=100)
    assert load_frames(clip, CONFIG, out).hw == probe(clip, CONFIG).hw == (H - 1, W)


def _dark(i: int) -> np.ndarray:
    rgb = picture(i) // 24
    rgb[-1:], rgb[:, -1:] = 0, 0
    return rgb


def _letterboxed(i: int) -> np.ndarray:
    return np.pad(picture(i, (H - 20, W)), ((10, 10), (0, 0), (0, 0)))


def _three_black_lines(i: int) -> np.ndarray:
    return padded(picture(i, (H - 3, W - 3)), 3, 3)


def _black_line_in_one_frame_only(i: int) -> np.ndarray:
    return picture(i) if i else padded(picture(i, (H - 1, W)), 1, 0)


@pytest.mark.parametrize("make", [_dark, _letterboxed, _three_black_lines, _black_line_in_one_frame_only])
def test_pictures_that_are_dark_at_the_edge_stay_whole(tmp_path: Path, out: Path, make):
    clip = write_video(tmp_path / "a.mp4", [make(i) for i in range(20)])
    assert load_frames(clip, replace(CONFIG, duplicate_threshold=0), out).hw == probe(clip, CONFIG).hw == (H, W)


def test_times_of_variable_frame_rate_are_those_of_the_file(tmp_path: Path, out: Path):
    times_ms = [0, 40, 80, 400, 900, 1000]
    frames = load_frames(
        write_video(tmp_path / "a.mkv", [picture(i) for i in range(6)], times_ms=times_ms), CONFIG, out
    )
    assert frames.time_s == pytest.approx([time / 1000 for time in times_ms], abs=1e-3)


def test_windows_are_even_in_time_not_in_count(tmp_path: Path, out: Path):
    times_ms = [*range(0, 1000, 50), *range(1000, 4000, 500)]
    clip = write_video(tmp_path / "a.mkv", [picture(i) for i in range(len(times_ms))], times_ms=times_ms)
    frames = load_frames(clip, replace(CONFIG, max_frames=4), out)
    assert [int(time) for time in frames.time_s] == [0, 1, 2, 3]


def test_sharpest_frame_of_each_window_is_kept(tmp_path: Path, out: Path):
    sharp = {1, 6, 8, 13}
    pictures = [picture(i) if i in sharp else blurred(picture(i)) for i in range(16)]
    frames = load_frames(write_video(tmp_path / "a.mp4", pictures, gop=1), replace(CONFIG, max_frames=4), out)
    assert set(frames.numbers) == sharp


def test_near_duplicates_are_dropped_and_reported(tmp_path: Path, out: Path):
    pictures = [picture(0), picture(1), picture(1), picture(2), picture(3)]
    frames = load_frames(write_video(tmp_path / "a.mp4", pictures), CONFIG, out)
    assert frames.numbers == (0, 1, 3, 4)
    assert [(frame.name, frame.reason) for frame in frames.skipped] == [("2", "hardly differs from the frame before")]


def test_still_camera_is_named_as_the_cause(tmp_path: Path, out: Path):
    clip = write_video(tmp_path / "a.mp4", [picture(0)] * 8)
    with pytest.raises(ClipError, match="camera does not move"):
        load_frames(clip, CONFIG, out)
    assert_nothing_left(out)


def test_start_and_end_keep_numbers_and_times_of_the_file(clip: Path, out: Path):
    frames = load_frames(clip, replace(CONFIG, start_s=0.5, end_s=0.9), out)
    assert frames.numbers == (5, 6, 7, 8)
    assert frames.time_s == pytest.approx((0.5, 0.6, 0.7, 0.8))
    with pytest.raises(ClipError, match="start and end"):
        load_frames(clip, replace(CONFIG, start_s=50), out)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_frames": 2}, "allow 3"),
        ({"start_s": -1.0}, "there is nothing"),
        ({"start_s": 3.0, "end_s": 2.0}, "from 3 s to 2 s there is nothing"),
        ({"start_s": 1.0}, "times of a video"),
        ({"end_s": 1.0}, "times of a video"),
    ],
)
def test_settings_that_no_clip_of_images_can_be_used_with(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    with pytest.raises(ConfigError, match=sentence):
        load_frames(tmp_path / "clip", replace(CONFIG, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_same_clip_gives_the_same_frames(clip: Path, out: Path):
    config = replace(CONFIG, max_frames=7)
    first, second = load_frames(clip, config, out), load_frames(clip, config, out)  # the second replaces the first
    assert first == second
    assert load_frames(clip, replace(config, max_frames=6), out).content_hash != first.content_hash


def test_only_a_few_full_frames_are_ever_held(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    alive: weakref.WeakSet[selection.Candidate] = weakref.WeakSet()
    most = 0  # the best of a window, its last rival, the next being handed over, and the one stored before
    original = video.VideoSource.candidates

    def watched(self: video.VideoSource, numbers: Sequence[int]) -> Iterator[selection.Candidate]:
        nonlocal most
        for candidate in original(self, numbers):
            alive.add(candidate)
            most = max(most, len(alive))
            yield candidate

    monkeypatch.setattr(video.VideoSource, "candidates", watched)
    load_frames(clip, replace(CONFIG, max_frames=3), out)
    assert most <= 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_long_clip_is_not_decoded_whole(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    decoded = []
    original = video._decoded_frames
    monkeypatch.setattr(video, "_decoded_frames", lambda *a: (decoded.append(f.pts) or f for f in original(*a)))
    clip = write_video(tmp_path / f"a.{suffix}", [picture(i) for i in range(400)], gop=20)
    frames = load_frames(clip, replace(CONFIG, max_frames=4), out)
    assert len(frames) == 4
    assert len(decoded) <= 4 * (video.CANDIDATES_PER_WINDOW + 40)  # the margin of a seek, too
    expected = picture(frames.numbers[2])
    assert np.abs(frames.read(2).rgb.astype(int) - expected).mean() < 12  # the number is right after seeking


def test_seeks_only_over_long_gaps():
    plan = decode_segments([0, 1, 2, 14, 90, 91], keyframes=[0, 12, 24, 84])
    assert [(segment.start, segment.numbers) for segment in plan] == [(0, (0, 1, 2)), (12, (14,)), (84, (90, 91))]
    assert len(decode_segments(range(50), keyframes=range(0, 50, 5))) == 1


def test_windows_of_a_steady_clip_are_even():
    windows = selection.windows_in_time([7 * i for i in range(120)], 80)
    assert len(windows) == 80
    assert {len(window) for window in windows} == {1, 2}
    assert [i for window in windows for i in window] == list(range(120))


def test_competitors_start_at_the_keyframe_nearest_the_middle():
    assert selection.subsample_window(range(100, 200), [0, 110, 140, 195], 12) == range(140, 152)
    assert selection.subsample_window(range(100, 200), [0], 12) == range(144, 156)
    assert selection.subsample_window(range(5), [0], 12) == range(5)


def test_frames_are_made_smaller_never_larger(clip: Path, out: Path):
    frames = load_frames(clip, replace(CONFIG, long_side=64), out)
    assert frames.hw == (48, 64)
    assert frames.read(0).rgb.shape == (48, 64, 3)
    assert frames.source_hw == (H, W)


def test_phone_videos_say_their_focal_length(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "FOCAL_KEY", "major_brand")  # any key that a file made here has
    assert load_frames(clip, CONFIG, out).focal_prior_px is None  # it is no number
    key = {video.FOCAL_KEY: "27"}
    monkeypatch.setattr(video, "_metadata", lambda *_: key)
    assert load_frames(clip, replace(CONFIG, long_side=64), out).focal_prior_px == pytest.approx(27 / 36 * 64)


@pytest.mark.parametrize(("transfer", "white"), [(hdr.ARIB_STD_B67_HLG, 0.75), (hdr.SMPTE2084_PQ, 0.58)])
def test_high_dynamic_range_becomes_srgb(transfer: int, white: float):
    codes = np.array([0.0, white / 2, white, 1.0])
    gray = np.repeat((codes * 65535).astype(np.uint16)[None, :, None], 3, axis=2)
    srgb = hdr.srgb_from_hdr(gray, transfer).astype(int)
    assert np.ptp(srgb, axis=2).max() <= 1  # gray stays gray
    levels = srgb[0, :, 1]
    assert levels[0] == 0
    assert 20 < levels[1] < 140
    assert 235 < levels[2] < levels[3] <= 255


def test_phone_hdr_video_is_converted(tmp_path: Path, out: Path):
    pictures = [picture(i) for i in range(4)]
    plain = load_frames(write_video(tmp_path / "a.mov", pictures, codec="libx265", pix_fmt="yuv420p10le"), CONFIG, out)
    before = plain.read(0).rgb
    tags = {"color_trc": hdr.ARIB_STD_B67_HLG, "color_primaries": 9, "colorspace": 9}
    clip = write_video(tmp_path / "b.mov", pictures, codec="libx265", pix_fmt="yuv420p10le", tags=tags)
    after = load_frames(clip, CONFIG, out).read(0).rgb
    assert after.shape == before.shape
    assert after.std() > 1.1 * before.std()  # colours and contrast that the wide gamut had squeezed


def test_video_that_breaks_off_gives_what_there_is(tmp_path: Path, out: Path):
    whole = write_video(tmp_path / "a.mp4", [picture(i) for i in range(40)], container={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    frames = load_frames(cut, CONFIG, out)
    assert 10 < len(frames) < 35
    assert any("ends early" in frame.reason for frame in frames.skipped)


def _text(path: Path) -> None:
    path.write_text("this is not a video")


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n")


def _header_only(path: Path) -> None:
    whole = write_video(path, [picture(i) for i in range(9)], container={"movflags": "faststart"}).read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") + 4])


def _tail_missing(path: Path) -> None:
    whole = write_video(path, [picture(i) for i in range(9)]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _two_frames(path: Path) -> None:
    write_video(path, [picture(i) for i in range(2)])


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux([*stream.encode(frame), *stream.encode()])


@pytest.mark.parametrize(
    "make", [_text, _playlist, _header_only, _tail_missing, _two_frames, _sound_only, Path.touch, lambda path: None]
)
def test_unusable_video_is_refused_in_one_sentence(tmp_path: Path, out: Path, make):
    path = tmp_path / "a.mp4"
    make(path)
    with pytest.raises(ClipError) as caught:
        load_frames(path, CONFIG, out)
    assert "\n" not in str(caught.value)
    assert "a.mp4" in str(caught.value)
    assert_nothing_left(out)


@pytest.mark.parametrize(
    ("limit", "words"), [({"max_duration_s": 1.0}, "start and an end"), ({"max_source_pixels": 9}, "smaller")]
)
def test_limits_are_checked_before_decoding(clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch, limit, words: str):
    monkeypatch.setattr(video, "_decoded_frames", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ClipError, match=words):
        load_frames(clip, replace(CONFIG, **limit), out)


def test_probe_tells_what_the_header_says(clip: Path):
    info = probe(clip, replace(CONFIG, max_frames=8))
    assert (info.kind, info.hw, info.frames, info.frames_to_use, info.codec) == (ClipKind.VIDEO, (H, W), 20, 8, "h264")
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    assert probe(clip, replace(CONFIG, start_s=0.5, end_s=1.0)).frames_to_use == 5


# --------------------------------------------------------------------------------------- images


def test_folder_is_read_in_natural_order(photos: Path, out: Path):
    frames = load_frames(photos, CONFIG, out)
    assert frames.names == ("1", "2", "10", "11")
    assert not frames.from_video
    assert all((frames.read(i).rgb == picture(i)).all() for i in range(4))  # lossless
    assert probe(photos, CONFIG).frames == 4
    assert probe(photos, CONFIG).hw == (H, W)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_image_formats(tmp_path: Path, out: Path, suffix: str):
    names = [f"a.{suffix}", f"b.{suffix.upper()}", f"c.{suffix}"]
    frames = load_frames(write_images(tmp_path / "photos", names), CONFIG, out)
    assert frames.names == ("a", "b", "c")
    assert np.abs(frames.read(0).rgb.astype(int) - picture(0)).mean() < 12


def test_more_photos_than_wanted_are_thinned_to_the_sharpest(tmp_path: Path, out: Path):
    folder = write_images(tmp_path / "photos", [f"{i}.png" for i in range(9)])
    for i in (0, 2, 3, 4, 7, 8):
        Image.fromarray(blurred(picture(i))).save(folder / f"{i}.png")
    assert load_frames(folder, replace(CONFIG, max_frames=3), out).names == ("1", "5", "6")


def test_exif_orientation_and_focal_length_are_applied(photos: Path, out: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it upright
    exif.get_ifd(0x8769)[0xA405] = 28
    for i, name in enumerate(("1", "2", "10", "11")):
        Image.fromarray(picture(i)).save(photos / f"{name}.png", exif=exif)
    frames = load_frames(photos, replace(CONFIG, long_side=W // 2), out)
    assert frames.source_hw == (W, H)
    assert np.abs(frames.read(0).rgb.astype(int) - np.rot90(picture(0), -1)[::2, ::2]).mean() < 30
    assert frames.focal_prior_px == pytest.approx(28 / 43.27 * np.hypot(H, W) / 2)


def test_focal_length_from_the_sensor_follows_a_resize():
    image = Image.fromarray(picture(0))
    ifd = image.getexif().get_ifd(0x8769)
    ifd.update({0x920A: 50.0, 0xA20E: 100.0, 0xA210: 4, 0xA002: 4 * W})  # 50 mm, 100 pixels a mm, taken 4 times as wide
    assert images._focal_px(image) == pytest.approx(5000 / 4)
    ifd[0xA20E] = 0
    assert images._focal_px(image) is None


def test_sixteen_bit_images_keep_their_brightness(tmp_path: Path, out: Path):
    folder = write_images(tmp_path / "photos", [])
    for i in range(3):
        Image.fromarray(picture(i)[..., 0].astype(np.uint16) * 257).save(folder / f"{i}.png")
    assert (load_frames(folder, CONFIG, out).read(1).rgb[..., 0] == picture(1)[..., 0]).all()


def test_damaged_image_is_skipped_and_named(photos: Path, out: Path):
    (photos / "5.png").write_bytes((photos / "2.png").read_bytes()[:3000])
    (photos / "6.jpg").write_text("not a picture")
    frames = load_frames(photos, CONFIG, out)
    assert frames.names == ("1", "2", "10", "11")
    assert [frame.name for frame in frames.skipped] == ["5", "6"]
    assert all("cannot be read" in frame.reason for frame in frames.skipped)


def test_images_of_two_sizes_are_refused_by_name(photos: Path, out: Path):
    Image.fromarray(np.rot90(picture(2))).save(photos / "10.png")
    with pytest.raises(ClipError, match=r"1\.png is 128 x 96 .* 10\.png is 96 x 128.*resize them to one size"):
        load_frames(photos, CONFIG, out)
    assert_nothing_left(out)


def test_too_large_image_is_refused_undecoded(photos: Path, out: Path):
    with pytest.raises(ClipError, match="make it smaller"):
        load_frames(photos, replace(CONFIG, max_source_pixels=H * W - 1), out)


def test_folder_without_images(tmp_path: Path, out: Path):
    with pytest.raises(ClipError, match="holds no images"):
        load_frames(write_images(tmp_path / "photos", []), CONFIG, out)


# ------------------------------------------------------------------------------------------ zip


def test_zip_of_nested_folders(tmp_path: Path, photos: Path, out: Path):
    names = {
        "a/2.png": "2.png",
        "a/10.png": "10.png",
        "b/1.png": "11.png",
        "__MACOSX/a/._2.png": "1.png",
        ".x.png": "1.png",
    }
    frames = load_frames(write_zip(tmp_path / "a.zip", photos, names), CONFIG, out)
    assert frames.names == ("2", "10", "1")
    assert (frames.read(0).rgb == picture(1)).all()
    assert probe(tmp_path / "a.zip", CONFIG).kind is ClipKind.ZIP


def test_stems_that_clash_become_whole_names(tmp_path: Path, photos: Path, out: Path):
    names = {"a/1.png": "1.png", "b/1.png": "2.png", "b/2.png": "10.png"}
    assert load_frames(write_zip(tmp_path / "a.zip", photos, names), CONFIG, out).names == tuple(names)


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "C:/1.png", "..\\1.png"])
def test_zip_names_that_leave_the_folder(tmp_path: Path, photos: Path, out: Path, name: str):
    path = write_zip(tmp_path / "a.zip", photos, {"1.png": "1.png", name: "2.png"})
    with pytest.raises(ClipError, match="leaves its folder"):
        load_frames(path, CONFIG, out)


def test_zip_with_a_link(tmp_path: Path, out: Path):
    link = zipfile.ZipInfo("1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ClipError, match="holds a link"):
        load_frames(tmp_path / "a.zip", CONFIG, out)


def test_encrypted_zip(tmp_path: Path, photos: Path, out: Path):
    path = write_zip(tmp_path / "a.zip", photos, {"1.png": "1.png"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ClipError, match="encrypted"):
        load_frames(path, CONFIG, out)


@pytest.mark.parametrize(
    ("limit", "words"),
    [({"max_archive_files": 3}, "more than 3 files"), ({"max_archive_bytes": 9999}, "unpacks to more")],
)
def test_zip_limits(tmp_path: Path, photos: Path, out: Path, limit, words: str):
    path = write_zip(tmp_path / "a.zip", photos, {path.name: path.name for path in photos.iterdir()})
    with pytest.raises(ClipError, match=words):
        load_frames(path, replace(CONFIG, **limit), out)
    assert_nothing_left(out)


def test_zip_bomb(tmp_path: Path, out: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.bmp", bytes(40 << 20))
    with pytest.raises(ClipError, match="far more than an image needs"):
        load_frames(tmp_path / "a.zip", CONFIG, out)


def test_zip_packed_with_lzma(tmp_path: Path, out: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("1.png", b"x")
    with pytest.raises(ClipError, match="ordinary zip"):
        load_frames(tmp_path / "a.zip", CONFIG, out)


def test_damaged_member_is_skipped(tmp_path: Path, photos: Path, out: Path):
    path = write_zip(tmp_path / "a.zip", photos, {path.name: path.name for path in sorted(photos.iterdir())})
    raw = bytearray(path.read_bytes())
    raw[500:520] = bytes(20)  # within the first member: its checksum no longer fits
    path.write_bytes(raw)
    frames = load_frames(path, CONFIG, out)
    assert len(frames) == 3
    assert frames.skipped[0].reason == "damaged in the zip file"


@pytest.mark.parametrize("content", [b"PK\3\4 and then nothing", b"no zip at all", b"PK\5\6" + bytes(18)])
def test_broken_or_empty_zip(tmp_path: Path, out: Path, content: bytes):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ClipError, match=r"a\.zip"):
        load_frames(tmp_path / "a.zip", CONFIG, out)


# --------------------------------------------------------------------------------------- storage


def test_stored_frames_reload_without_the_clip(clip: Path, out: Path):
    frames = load_frames(clip, CONFIG, out)
    clip.unlink()
    moved = out.rename(out.with_name("moved"))
    reloaded = frame_set_from_folder(moved)
    assert reloaded == replace(frames, folder=moved)
    assert isinstance(reloaded.read(3), Frame)


@pytest.mark.parametrize("damage", ["", "[]", '{"version": 1}', '{"version": 99}'])
def test_damaged_index_is_a_run_folder_error(tmp_path: Path, damage: str):
    (tmp_path / "frames.json").write_text(damage)
    with pytest.raises(RunFolderError, match="start the run again"):
        frame_set_from_folder(tmp_path)


def test_missing_or_foreign_frame_files_are_noticed(clip: Path, out: Path):
    load_frames(clip, CONFIG, out)
    index = out / "frames.json"
    index.write_text(index.read_text().replace("000003.png", "../000003.png"))
    with pytest.raises(RunFolderError, match="lacks"):
        frame_set_from_folder(out)


def test_progress_counts_windows_and_cancel_leaves_nothing(clip: Path, out: Path):
    seen: list[Progress] = []
    load_frames(clip, replace(CONFIG, max_frames=4), out, seen.append)
    assert seen == [Progress("frames", done, 4) for done in (1, 2, 3, 4)]
    other = out.with_name("other")

    def cancel(progress: Progress) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        load_frames(clip, CONFIG, other, cancel)
    assert [path.name for path in out.parent.iterdir()] == ["frames"]


def test_full_disk_is_said_and_nothing_stays(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunFolderError, match="full; free some space"):
        load_frames(photos, CONFIG, out)
    assert_nothing_left(out)


def test_folder_of_other_things_is_not_overwritten(clip: Path, out: Path):
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="choose an empty folder"):
        load_frames(clip, CONFIG, out)
    assert (out / "thesis.txt").exists()


# ------------------------------------------------------------------------------------- real data


@needs_data
def test_kitti_clip_keeps_all_frames_under_their_numbers(out: Path):
    frames = load_frames(DATA / "clips" / "kitti_drive_0002.mp4", CONFIG, out)
    assert frames.names == tuple(str(i) for i in range(77))
    assert frames.hw == frames.source_hw == (375, 1242)  # without the row that the encoder added to make 376
    original = np.asarray(Image.open(DATA / "kitti_drive_0002" / "image_02" / "0000000040.png").convert("RGB"))
    assert np.abs(frames.read(40).rgb.astype(int) - original).mean() < 6


@needs_data
def test_fountain_photos_are_all_used(out: Path):
    frames = load_frames(DATA / "fountain", CONFIG, out)
    assert frames.names == tuple(f"{i:04d}" for i in range(11))
    assert frames.hw == (853, 1280)
