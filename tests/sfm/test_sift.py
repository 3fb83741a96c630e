"""Features: where they lie, what they say, and how they come into COLMAP's database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from sfmttr.sfm import database as sfm_database
from sfmttr.sfm.protocol import Extractor, SfmJob, SfmSettings
from sfmttr.sfm.sift import sift

HW = 240, 320
SIGMA_PX = 4.0


def blobs(centres: Sequence[tuple[float, float]], hw: tuple[int, int] = HW, factor: float = 1.0) -> np.ndarray:
    """(h, w) uint8: round blobs at (x, y), in pixels with the centre of the top-left pixel at (0.5, 0.5)."""
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    grey = np.full(hw, 40.0)
    for cx, cy in centres:
        grey += 180 * np.exp(-((x - factor * cx) ** 2 + (y - factor * cy) ** 2) / (2 * (factor * SIGMA_PX) ** 2))
    return grey.round().astype(np.uint8)


def saved(folder: Path, name: str, grey: np.ndarray) -> Path:
    path = folder / name
    Image.fromarray(grey).save(path)
    return path


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (60, 80), dtype=np.uint8))
    return np.asarray(coarse.resize((HW[1], HW[0]), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [1.0, 1.5])
def test_positions_and_scales_are_those_of_blobs(tmp_path: Path, size: float) -> None:
    """In pixels of the image's own size, whatever size it is looked at."""
    centres = [(60.5, 50.5), (120.2, 80.9), (200.75, 130.25), (255.0, 190.5)]
    hw = (round(size * HW[0]), round(size * HW[1]))
    found = sift(saved(tmp_path, "blobs.png", blobs(centres, hw, size)), max(HW), 100, 0.02).keypoints
    largest = found[found[:, 2] > 0.5 * size * SIGMA_PX]
    for x, y in centres:
        at = np.linalg.norm(largest[:, :2] - (size * x, size * y), axis=1)
        assert at.min() < 0.15 * size
        # A blob's scale in the difference of Gaussians, and that as the sigma of the level it is found at.
        assert largest[at.argmin(), 2] == pytest.approx(size * SIGMA_PX, rel=0.25)


def test_positions_have_no_bias(tmp_path: Path, noise: np.ndarray) -> None:
    """Features of the mirrored image are the mirrored features."""
    one = sift(saved(tmp_path, "one.png", noise), max(HW), 4000, 0.02).keypoints
    other = sift(saved(tmp_path, "other.png", noise[::-1, ::-1]), max(HW), 4000, 0.02).keypoints
    back = np.array([HW[1], HW[0]]) - other[:, :2]
    offset = one[:, None, :2] - back[None]
    nearest = np.linalg.norm(offset, axis=2).argmin(axis=1)
    near = offset[np.arange(len(one)), nearest]
    same = np.linalg.norm(near, axis=1) < 0.5
    assert same.mean() > 0.9
    assert np.abs(near[same].mean(axis=0)).max() < 0.02


def test_most_contrast_first_and_no_more_than_asked(tmp_path: Path, noise: np.ndarray) -> None:
    path = saved(tmp_path, "noise.png", noise)
    everything = sift(path, max(HW), 100_000, 0.01)
    assert len(everything.keypoints) > 200
    few = sift(path, max(HW), 100, 0.01)
    assert 100 <= len(few.keypoints) <= 110  # one place may have several orientations
    assert len(sift(path, max(HW), 100_000, 0.08).keypoints) < len(everything.keypoints)
    places = {tuple(row) for row in np.round(everything.keypoints[:, :2], 3).tolist()}
    assert {tuple(row) for row in np.round(few.keypoints[:, :2], 3).tolist()} <= places


def test_descriptors_are_square_roots_of_shares(tmp_path: Path, noise: np.ndarray) -> None:
    found = sift(saved(tmp_path, "noise.png", noise), max(HW), 500, 0.02).descriptors
    assert found.dtype == np.uint8
    assert found.shape[1] == 128
    np.testing.assert_allclose(np.linalg.norm(found.astype(float), axis=1), 512, rtol=0.01)


def test_nothing_to_see_is_no_feature(tmp_path: Path) -> None:
    found = sift(saved(tmp_path, "grey.png", np.full(HW, 90, np.uint8)), max(HW), 500, 0.02)
    assert found.keypoints.shape == (0, 4)
    assert found.descriptors.shape == (0, 128)


# ------------------------------------------------------------------------------------ the database


@pytest.fixture
def job(tmp_path: Path, noise: np.ndarray) -> SfmJob:
    files = tuple(f"{i}.png" for i in range(4))
    for i, file in enumerate(files):
        saved(tmp_path, file, np.roll(noise, 3 * i, axis=1))
    return SfmJob(
        "reconstruct",
        output=str(tmp_path),
        images=str(tmp_path),
        files=files,
        database=str(tmp_path / "features.db"),
        camera_params=(300.0, 160.0, 120.0, 0.0),
        settings=SfmSettings(max_features=300),
        threads=2,
    )


def test_database_is_as_colmap_s_own_but_for_the_features(job: SfmJob) -> None:
    theirs = replace(job, database=job.database + ".colmap", settings=replace(job.settings, extractor=Extractor.COLMAP))
    told: list[tuple[str, int, int]] = []
    for each in (job, theirs):
        sfm_database.extract(each, lambda *progress: told.append(progress))
    assert told[:5] == [("features", done, 4) for done in range(5)]
    with (
        closing(pycolmap.Database.open(job.database)) as ours,
        closing(pycolmap.Database.open(theirs.database)) as reference,
    ):
        for database in (ours, reference):
            (camera,) = database.read_all_cameras()
            assert (camera.model.name, camera.width, camera.height) == ("SIMPLE_RADIAL", HW[1], HW[0])
            assert list(camera.params) == list(job.camera_params)
            assert camera.has_prior_focal_length
            assert {image.name for image in database.read_all_images()} == {*job.files}
            assert [database.read_descriptors(i).data.shape[1] for i in range(1, 5)] == [128] * 4
        counts = [(d.num_cameras(), d.num_rigs(), d.num_frames(), d.num_images()) for d in (ours, reference)]
        assert counts == [(1, 1, 4, 4)] * 2


def test_without_a_focal_length_the_camera_is_the_library_s_guess(job: SfmJob) -> None:
    sfm_database.extract(replace(job, camera_params=()), lambda *_: None)
    with closing(pycolmap.Database.open(job.database)) as database:
        (camera,) = database.read_all_cameras()
    assert list(camera.params) == pytest.approx([1.2 * max(HW), HW[1] / 2, HW[0] / 2, 0.0])
    assert not camera.has_prior_focal_length


def test_what_is_there_is_not_searched_again(job: SfmJob, monkeypatch: pytest.MonkeyPatch) -> None:
    sfm_database.extract(replace(job, files=job.files[:2]), lambda *_: None)
    asked: list[str] = []
    monkeypatch.setattr(sfm_database, "sift", lambda path, *rest: asked.append(path.name) or sift(path, *rest))
    told: list[int] = []
    sfm_database.extract(job, lambda _, done, __: told.append(done))
    assert sorted(asked) == list(job.files[2:])
    assert told == [0, 3, 4]
    with closing(pycolmap.Database.open(job.database)) as database:
        assert (database.num_images(), database.num_cameras()) == (4, 1)


def test_shifted_pictures_match_where_they_show_the_same(job: SfmJob) -> None:
    """The library's matcher takes our features for what they are."""
    sfm_database.extract(job, lambda *_: None)
    sfm_database.match(job, lambda *_: None)
    with closing(pycolmap.Database.open(job.database)) as database:
        pairs = dict(zip(*database.read_all_matches(), strict=True))
        matches = np.asarray(pairs[pycolmap.image_pair_to_pair_id(1, 2)])
        xy = [database.read_keypoints(i)[:, :2] for i in (1, 2)]
    offset = xy[1][matches[:, 1]] - xy[0][matches[:, 0]]
    assert len(matches) > 100
    assert (np.abs(offset - (3, 0)).max(axis=1) < 0.2).mean() > 0.95
