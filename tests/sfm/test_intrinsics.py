"""Intrinsics that users type or bring as a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfmttr.errors import IntrinsicsError
from sfmttr.sfm.intrinsics import parse_intrinsics

HW = (375, 1242)


def test_numbers_refer_to_the_source_and_come_back_at_the_stored_size() -> None:
    camera = parse_intrinsics(" 721.5, 720, 609.6, 172.9 ", HW, (750, 2484))
    assert camera.hw == (750, 2484)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((1443, 1440, 1219.2, 345.8))
    assert (camera.k1, camera.k2) == (0, 0)


def test_distortion_is_optional_and_not_scaled() -> None:
    assert parse_intrinsics("700,700,600,180,-0.1", HW, HW).k1 == -0.1
    both = parse_intrinsics("700,700,600,180,-0.1,0.02", HW, (188, 621))
    assert (both.k1, both.k2) == (-0.1, 0.02)


@pytest.mark.parametrize("name", ["camera.json", "camera.txt"])
def test_file_with_its_own_size(tmp_path: Path, name: str) -> None:
    values = {"fx": 350, "fy": 350, "cx": 310, "cy": 90, "k1": 0.01, "width": 621, "height": 188}
    (tmp_path / name).write_text(json.dumps(values))
    camera = parse_intrinsics(str(tmp_path / name), HW, HW)
    assert camera.fx == pytest.approx(700)
    assert camera.fy == pytest.approx(350 * 375 / 188)
    assert camera.k1 == 0.01


def test_file_without_size_refers_to_the_source(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"fx": 700, "fy": 700, "cx": 600, "cy": 180}')
    assert parse_intrinsics(str(tmp_path / "c.json"), HW, HW).fx == 700


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("700,700,600", "3 values"),
        ("700,700,600,180,0,0,0", "7 values"),
        ("seven,700,600,180", "fx must be a number"),
        ("700,nan,600,180", "fy must be finite"),
        ("inf,700,600,180", "fx must be finite"),
        ("-700,700,600,180", "fx = -700 is implausible"),
        ("20,700,600,180", "fx = 20 is implausible"),
        ("700,90000,600,180", "fy = 90000 is implausible"),
        ("700,700,1300,180", "outside the image"),
        ("700,700,600,-1", "outside the image"),
        ("no/such/file.json", "cannot be read"),
    ],
)
def test_bad_text_is_explained_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(IntrinsicsError, match=says) as caught:
        parse_intrinsics(text, HW, HW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "one object"),
        ('{"fx": 1}', "lacks fy, cx, cy"),
        ('{"fx": 700, "fy": 700, "cx": 600, "cy": 180, "f": 1}', "unknown keys: f"),
        ('{"fx": null, "fy": 700, "cx": 600, "cy": 180}', "fx must be a number"),
        ('{"fx": true, "fy": 700, "cx": 600, "cy": 180}', "fx must be a number"),
        ('{"fx": 700, "fy": 700, "cx": 600, "cy": 180, "width": 1242}', "both width and height"),
        ('{"fx": 700, "fy": 700, "cx": 300, "cy": 180, "width": 640, "height": 480}', "another aspect"),
        ('{"fx": 700, "fy": 700, "cx": 300, "cy": 180, "width": 0, "height": 480}', "0 x 480"),
    ],
)
def test_bad_file_is_explained(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(IntrinsicsError, match=says):
        parse_intrinsics(str(tmp_path / "c.json"), HW, HW)
