"""Targets and held-out points: nothing is ever on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfmttr.config import DenseConfig, LossForm, SplitConfig, WeightConfig
from sfmttr.errors import AlignmentError
from sfmttr.refinement.alignment import Alignment
from sfmttr.refinement.losses import point_loss
from sfmttr.refinement.observations import (
    Observations,
    Split,
    held_out_frames,
    merge_observations,
    observe,
    propagate_observations,
    relative_sigma,
    sample_at,
    split_points,
)
from sfmttr.refinement.targets import FrameTargets, Targets, add_dense_targets, make_targets, select_observations
from sfmttr.refinement.weighting import point_weights
from sfmttr.types import FrameSet, SparseModel
from tests.support.fakes import sparse_model_from_truth
from tools.synthetic import RenderedClip

BLOCKS = SplitConfig(hold_out_frames=3)


@pytest.fixture(scope="module")
def model(room: RenderedClip, room_frames: FrameSet) -> SparseModel:
    return sparse_model_from_truth(room, room_frames)


def observed(model: SparseModel, config: SplitConfig = BLOCKS, seed: int = 0) -> Observations:
    return observe(model, 12, (96, 128), config, np.random.default_rng(seed))


def targets_of(observations: Observations, keep: np.ndarray | None = None) -> Targets:
    everything = np.ones(len(observations), bool)
    alignment = Alignment(2.0, everything, everything, 1.1)
    return make_targets(observations if keep is None else observations.where(keep), alignment, WeightConfig())


def test_shares_of_the_split_are_exact() -> None:
    split = split_points(1230, SplitConfig(validation=0.1, test=0.2), np.random.default_rng(0))
    assert np.bincount(split).tolist() == [861, 123, 246]


def test_split_follows_the_seed() -> None:
    first, same, other = (split_points(500, SplitConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def without(observations: Observations, frame: int) -> Observations:
    """As if no detector had fired in that frame."""
    return observations.where(observations.frame != frame)


def test_a_point_is_carried_to_where_it_was_not_found(model: SparseModel) -> None:
    truth = observed(model, SplitConfig())
    missing = truth.where(truth.frame == 5)
    more = propagate_observations(model, without(truth, 5), 12, (96, 128), 1)
    here = more.where(more.frame == 5)
    rows = {int(point): row for row, point in enumerate(here.point)}
    both = [(row, rows[int(point)]) for row, point in enumerate(missing.point) if int(point) in rows]
    assert len(both) > 0.5 * len(missing)
    was, now = (np.array(side) for side in zip(*both, strict=True))
    np.testing.assert_allclose(here.z[now], missing.z[was], rtol=1e-5)
    np.testing.assert_allclose(here.grid[now], missing.grid[was], atol=1e-4)
    np.testing.assert_array_equal(here.split[now], missing.split[was])
    np.testing.assert_array_equal(here.error_px[now], missing.error_px[was])


def test_carrying_reaches_so_far_and_adds_no_row_twice(model: SparseModel) -> None:
    o = observed(model, SplitConfig())
    assert len(propagate_observations(model, o, 12, (96, 128), 0)) == 0
    found = set(zip(o.frame.tolist(), o.point.tolist(), strict=True))
    counts = []
    for reach in (1, 2, 50):
        more = propagate_observations(model, o, 12, (96, 128), reach)
        pairs = list(zip(more.frame.tolist(), more.point.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        assert found.isdisjoint(pairs)
        for frame, point in pairs[::97]:
            assert np.abs(o.frame[o.point == point] - frame).min() <= reach
        assert (np.abs(more.grid) <= 1).all()
        assert (more.z > 0).all()
        counts.append(len(more))
    assert counts[0] < counts[1] <= counts[2]


def test_num_excluded_frames_neither_give_nor_get(model: SparseModel) -> None:
    o = observed(model)
    more = propagate_observations(model, o, 12, (96, 128), 2)
    assert len(more)
    assert not held_out_frames(12, 3)[more.frame].any()
    elsewhere = np.unique(o.point[~o.frame_held_out])
    assert np.isin(more.point, elsewhere).all()


def test_merged_rows_are_sorted_and_all_there(model: SparseModel) -> None:
    o = observed(model)
    more = propagate_observations(model, o, 12, (96, 128), 1)
    both = merge_observations(o, more)
    assert len(both) == len(o) + len(more)
    assert (np.diff(both.frame) >= 0).all()
    assert both.z.sum(dtype=np.float64) == pytest.approx(o.z.sum(dtype=np.float64) + more.z.sum(dtype=np.float64))


def test_every_track_is_on_one_side(model: SparseModel) -> None:
    observations = observed(model)
    for point in np.unique(observations.point):
        assert len(np.unique(observations.split[observations.point == point])) == 1


def test_held_out_blocks_alternate() -> None:
    assert held_out_frames(8, 2).tolist() == [False, False, True, True, False, False, True, True]
    assert held_out_frames(5, 4).tolist() == [False, False, False, False, True]
    assert not held_out_frames(8, 0).any()


def test_the_four_uses_share_no_row_and_no_point(model: SparseModel) -> None:
    o = observed(model)
    uses = [o.trainable, o.validation, o.test, o.test_on_held_out_frames]
    assert all(use.any() for use in uses)
    assert np.sum(uses, axis=0).max() == 1
    points = [set(o.point[use]) for use in uses[:3]]
    assert not points[0] & points[1]
    assert not points[0] & points[2]
    assert not points[1] & points[2]
    assert not set(o.point[o.test_on_held_out_frames]) & (points[0] | points[1])


def test_no_target_lies_in_a_held_out_frame(model: SparseModel) -> None:
    targets = targets_of(observed(model))
    assert {t.frame for t in targets.train + targets.validation} == {0, 1, 2, 6, 7, 8}


def test_targets_are_the_training_rows_in_network_units(model: SparseModel) -> None:
    o = observed(model)
    targets = targets_of(o)
    rows = o.trainable
    np.testing.assert_array_equal(np.concatenate([t.grid for t in targets.train]), o.grid[rows])
    np.testing.assert_allclose(np.concatenate([t.reference for t in targets.train]), 2 * o.z[rows])
    assert sum(len(t.grid) for t in targets.validation) == o.validation.sum()
    assert targets.network_scale == 1.1


def test_rejected_rows_are_in_no_target(model: SparseModel) -> None:
    o = observed(model)
    keep = np.random.default_rng(0).random(len(o)) < 0.5
    targets = targets_of(o, keep)
    assert sum(len(t.grid) for t in targets.train) == (keep & o.trainable).sum()
    assert sum(len(t.grid) for t in targets.validation) == (keep & o.validation).sum()


def test_observations_are_what_the_views_hold(room: RenderedClip, model: SparseModel) -> None:
    o = observed(model)
    assert len(o) == sum(len(view.depth) for view in model.views)
    assert (np.diff(o.frame) >= 0).all()
    read = sample_at(room.depth, o, mode="nearest")
    np.testing.assert_allclose(read, o.z, rtol=0.021)


def test_no_points_at_all(model: SparseModel) -> None:
    empty = tuple(
        replace(view, xy_px=view.xy_px[:0], depth=view.depth[:0], point=view.point[:0]) for view in model.views
    )
    with pytest.raises(AlignmentError, match="no points"):
        observed(replace(model, views=empty))


# ---------------------------------------------------------------------------------------- weights


def few(count: int = 4, **columns: list[float]) -> Observations:
    """Rows of one frame, point i in row i unless told otherwise."""
    base = {
        "frame": np.zeros(count, np.int64),
        "grid": np.zeros((count, 2), np.float32),
        "z": np.ones(count, np.float32),
        "error_px": np.zeros(count, np.float32),
        "track_length": np.full(count, 3, np.int32),
        "relative_sigma": np.zeros(count, np.float32),
        "point": np.arange(count),
        "split": np.zeros(count, np.uint8),
        "frame_held_out": np.zeros(count, bool),
    }
    return Observations(**base | {name: np.array(values, base[name].dtype) for name, values in columns.items()})


def test_paper_weights() -> None:
    weight = point_weights(few(error_px=[0, 0.5, 1, 2]), WeightConfig())
    np.testing.assert_allclose(weight, np.exp([0, -0.25, -1, -4]), rtol=1e-6)


def test_uncertain_points_count_less() -> None:
    rows = few(error_px=[0, 0, 0, 1], relative_sigma=[0, 0.02, 0.06, 0.02])
    weight = point_weights(rows, WeightConfig(sigma_scale=0.02))
    np.testing.assert_allclose(weight, [1, 0.5, 0.1, np.exp(-1) / 2], rtol=1e-6)


def test_uncertainty_is_pixel_error_over_parallax(model: SparseModel) -> None:
    angle_deg = model.points.triangulation_angle_deg
    expected = (0.3 + model.points.error_px) / (model.views[0].camera.fx * np.radians(np.maximum(angle_deg, 0.01)))
    np.testing.assert_allclose(relative_sigma(model), expected, rtol=1e-5)


def test_reliable_by_the_reconstructions_word_alone() -> None:
    rows = few(error_px=[0, 2, 0, 1.4], relative_sigma=[0.01, 0.01, 0.06, 0.049])
    assert rows.reliable.tolist() == [True, False, False, True]


# ----------------------------------------------------------------------------------------- select


def test_healthy_reconstructions_keep_what_is_relaxed() -> None:
    relaxed = np.array([True, False, True, True])
    selection = select_observations(few(), relaxed, {0: 5.0}, low_confidence=False, keep_reliable_outliers=False)
    np.testing.assert_array_equal(selection.mask, relaxed)
    assert (selection.num_excluded_frames, selection.num_excluded_tracks) == (0, 0)


def test_doubtful_tracks_go_when_most_of_them_is_rejected() -> None:
    rows = few(6, point=[0, 0, 0, 1, 1, 2])
    relaxed = np.array([False, False, True, False, True, True])
    selection = select_observations(rows, relaxed, {0: 1.0}, low_confidence=True, keep_reliable_outliers=False)
    assert selection.mask.tolist() == [False, False, False, False, True, True]  # a half is not most
    assert selection.num_excluded_tracks == 1


def test_doubtful_frames_go_when_their_scale_is_off_by_two() -> None:
    rows = few(5, frame=[0, 1, 2, 3, 4])
    selection = select_observations(
        rows, np.ones(5, bool), {0: 1.0, 1: 2.1, 2: 0.45, 3: 1.9}, low_confidence=True, keep_reliable_outliers=False
    )
    assert selection.mask.tolist() == [True, False, False, True, True]
    assert selection.num_excluded_frames == 2


def test_splits_are_numbered_as_stored() -> None:
    assert [Split.TRAIN, Split.VALIDATION, Split.TEST] == [0, 1, 2]


def test_own_word_keeps_reliable_points_that_the_network_rejects() -> None:
    rows = few(relative_sigma=[0.01, 0.2, 0.01, 0.01])
    none = np.zeros(len(rows), bool)
    kept = select_observations(rows, none, {}, low_confidence=False, keep_reliable_outliers=True).mask
    np.testing.assert_array_equal(kept, rows.reliable)
    assert kept.any()
    assert not kept.all()
    assert not select_observations(rows, none, {}, low_confidence=True, keep_reliable_outliers=True).mask.any()


def dense_case() -> tuple[Targets, np.ndarray]:
    """Two frames with points at depth 2, and dense maps that say 8 on the left and 4 on the right."""
    frames = tuple(
        FrameTargets(i, np.zeros((n, 2), np.float32), np.full(n, 2, np.float32), np.full(n, 0.5, np.float32))
        for i, n in ((0, 30), (3, 50))
    )
    maps = np.full((4, 10, 20), 8, np.float32)
    maps[:, :, 10:] = 4
    return Targets(frames, frames, 1.0), maps


def test_dense_targets_weigh_what_they_are_told_to_beside_all_points() -> None:
    targets, maps = dense_case()
    config = DenseConfig(weight=0.1, pixels=4000)
    dense = add_dense_targets(targets, maps, config, lambda grid: np.ones(len(grid), bool), np.random.default_rng(0))
    assert dense.validation is targets.validation  # what chooses the best step stays as it was
    for frame, sparse in zip(dense.train, targets.train, strict=True):
        depth = torch.full((len(frame.reference),), 1.0)
        loss = point_loss(depth, torch.from_numpy(frame.reference), torch.from_numpy(frame.weight), LossForm.LOG)
        at_points = 0.5 * np.log(2)
        between = 0.5 * (np.log(8) + np.log(4))  # as many pixels left as right
        assert float(loss) == pytest.approx(at_points + 0.1 * between, rel=0.01)
        np.testing.assert_array_equal(frame.reference[: len(sparse.reference)], sparse.reference)


def test_dense_targets_lie_only_where_the_network_sees() -> None:
    targets, maps = dense_case()
    config = DenseConfig(weight=0.1, pixels=500)
    right = add_dense_targets(targets, maps, config, lambda grid: grid[:, 0] > 0.1, np.random.default_rng(0))
    np.testing.assert_allclose(right.train[0].reference[30:], 4, rtol=1e-5)
    blind = add_dense_targets(targets, maps, config, lambda grid: np.zeros(len(grid), bool), np.random.default_rng(0))
    assert len(blind.train[1].reference) == 50
