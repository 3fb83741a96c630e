"""Videos that browsers play."""

import errno

import av
import numpy as np
import pytest

from sfmttr.errors import RunFolderError
from sfmttr.io import video_writer
from sfmttr.io.video_writer import write_comparison_video


def _frames(count=12, hw=(61, 83)):
    for i in range(count):
        frame = np.full((*hw, 3), (200, 60, 20), np.uint8)
        frame[:, : 4 * i] = (20, 90, 220)
        yield frame


def test_video_is_what_browsers_want(tmp_path):
    path = tmp_path / "c.mp4"
    assert write_comparison_video(path, _frames(), 12.5) == 12
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width, float(stream.average_rate)) == (62, 84, 12.5)
        assert len(list(container.decode(video=0))) == 12
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_colours_come_back(tmp_path):
    write_comparison_video(tmp_path / "c.mp4", _frames(3, (64, 64)), 10)
    with av.open(str(tmp_path / "c.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == video_writer.BT709
        rgb = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert np.abs(rgb[40, 40].astype(int) - [200, 60, 20]).max() < 8


@pytest.mark.parametrize("failure", [ValueError, RunFolderError])
def test_a_failing_source_leaves_no_file(tmp_path, failure):
    def frames():
        yield from _frames(3)
        raise failure

    with pytest.raises(failure):
        write_comparison_video(tmp_path / "c.mp4", frames(), 10)
    assert not list(tmp_path.iterdir())


def test_no_frames_or_changing_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_comparison_video(tmp_path / "c.mp4", [], 10)
    with pytest.raises(ValueError, match="expected"):
        write_comparison_video(tmp_path / "c.mp4", [*_frames(1), *_frames(1, (64, 64))], 10)
    assert not list(tmp_path.iterdir())


def test_missing_encoder_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "ENCODER", "libnothing")
    with pytest.raises(RunFolderError, match=r"no H\.264 encoder"):
        write_comparison_video(tmp_path / "c.mp4", _frames(), 10)


def test_full_disk(tmp_path, monkeypatch):
    def full(*_args):
        raise av.error.OSError(errno.ENOSPC, "No space left on device", "c.mp4")

    monkeypatch.setattr(video_writer, "_video_frame", full)
    with pytest.raises(RunFolderError, match="is full; free some space"):
        write_comparison_video(tmp_path / "c.mp4", _frames(), 10)
    assert not list(tmp_path.iterdir())
