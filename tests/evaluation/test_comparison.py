"""The columns of a comparison: what they are measured against, by distance, and as JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfmttr.config import SplitConfig
from sfmttr.errors import DepthKindError, GroundTruthError
from sfmttr.evaluation.comparison import Column, Comparison, compare_at_points, compare_with_ground_truth
from sfmttr.evaluation.ground_truth import GroundTruth, match_ground_truth
from sfmttr.evaluation.metrics import apply_protocol, depth_metrics, protocol
from sfmttr.refinement.observations import Observations, observe
from sfmttr.types import DepthKind, FrameSet
from tests.support.fakes import sparse_model_from_truth
from tools.synthetic import RenderedClip, write_ground_truth

MEASURES = {"abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "count"}
KIND = DepthKind.SCALE_INVARIANT


@pytest.fixture(scope="module")
def truth(room: RenderedClip, room_frames: FrameSet, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    return match_ground_truth(room_frames, write_ground_truth(room, tmp_path_factory.mktemp("truth")), 1000)


@pytest.fixture(scope="module")
def observations(room: RenderedClip, room_frames: FrameSet) -> Observations:
    model = sparse_model_from_truth(room, room_frames, unit=2.0)
    return observe(model, len(room), (96, 128), SplitConfig(), np.random.default_rng(0))


def maps(room: RenderedClip) -> dict[Column, np.ndarray]:
    """`before` is ten percent too far, `after` is right."""
    return {Column.BEFORE: 1.1 * room.depth, Column.AFTER: room.depth}


def points_comparison(room: RenderedClip, observations: Observations) -> Comparison:
    found = compare_at_points(maps(room), observations, 2.0, "m", "held out")
    assert found is not None
    return found


def test_points_are_compared_without_scaling(room: RenderedClip, observations: Observations) -> None:
    found = points_comparison(room, observations)
    before, after = (found.columns[column].overall for column in (Column.BEFORE, Column.AFTER))
    assert before.abs_rel == pytest.approx(0.1, abs=0.01)
    assert after.abs_rel < 0.01
    assert before.count == after.count == len(observations)


def test_points_by_distance_are_quartiles(room: RenderedClip, observations: Observations) -> None:
    for errors in points_comparison(room, observations).columns.values():
        counts = [part.metrics.count for part in errors.by_distance]
        assert sum(counts) == errors.overall.count
        assert max(counts) - min(counts) < 0.02 * sum(counts)
        assert errors.by_distance[0].near == pytest.approx(2 * observations.z.min())


def test_no_points_no_comparison(room: RenderedClip, observations: Observations) -> None:
    nothing = observations.where(np.zeros(len(observations), bool))
    assert compare_at_points(maps(room), nothing, 2.0, "m", "held out") is None


def test_truth_takes_out_scale_by_frame(room: RenderedClip, truth: GroundTruth) -> None:
    found = compare_with_ground_truth(maps(room), KIND, truth, protocol("plain"))
    assert found is not None
    for errors in found.columns.values():
        assert errors.overall.abs_rel < 0.001
        assert errors.overall.count == room.depth.size


def test_truth_is_the_mean_over_frames(room: RenderedClip, truth: GroundTruth) -> None:
    rng = np.random.default_rng(0)
    values = room.depth * rng.uniform(0.8, 1.2, room.depth.shape).astype(np.float32)
    rules = protocol("indoor")
    found = compare_with_ground_truth({Column.BEFORE: values}, KIND, truth, rules)
    each = [apply_protocol(d, KIND, truth.read(i), rules) for i, d in enumerate(values)]
    expected = np.mean([depth_metrics(pair.predicted, pair.true).rmse for pair in each])
    assert found is not None
    assert found.columns[Column.BEFORE].overall.rmse == pytest.approx(expected)


def test_distance_ranges_are_the_protocols(room: RenderedClip, truth: GroundTruth) -> None:
    found = compare_with_ground_truth(maps(room), KIND, truth, protocol("indoor"))
    assert found is not None
    parts = found.columns[Column.AFTER].by_distance
    assert [part.near for part in parts] == [0, 1, 2, 3, 5]
    assert [part.far for part in parts] == [1, 2, 3, 5, 10]
    for part in parts:
        inside = (room.depth >= part.near) & (room.depth < part.far)
        assert part.metrics.count == pytest.approx(inside.sum(), abs=0.002 * room.depth.size)  # truth is in millimetres


def test_only_the_frames_asked_for(room: RenderedClip, truth: GroundTruth) -> None:
    chosen = np.arange(len(room)) == 4
    found = compare_with_ground_truth(maps(room), KIND, truth, protocol("plain"), chosen)
    assert found is not None
    assert found.columns[Column.AFTER].overall.count == room.depth[4].size
    assert "(1 frames)" in found.protocol
    assert compare_with_ground_truth(maps(room), KIND, truth, protocol("plain"), np.zeros(len(room), bool)) is None


def test_frames_without_truth_do_not_count(room: RenderedClip, truth: GroundTruth) -> None:
    few = replace(truth, files={i: truth.files[i] for i in (1, 5)})
    found = compare_with_ground_truth(maps(room), KIND, few, protocol("plain"))
    assert found is not None
    assert found.columns[Column.BEFORE].overall.count == 2 * room.depth[0].size


def test_truth_of_another_size_is_met_by_resizing(room: RenderedClip, truth: GroundTruth) -> None:
    small = {Column.BEFORE: room.depth[:, ::2, ::2]}
    found = compare_with_ground_truth(small, KIND, truth, protocol("plain"))
    assert found is not None
    assert found.columns[Column.BEFORE].overall.count == room.depth.size


def test_no_unit_no_unscaled_comparison(room: RenderedClip, truth: GroundTruth) -> None:
    with pytest.raises(DepthKindError, match="median scaling"):
        compare_with_ground_truth(maps(room), KIND, truth, protocol("plain", median_scaling=False))


def test_truth_without_any_depth(tmp_path: Path, room: RenderedClip, room_frames: FrameSet) -> None:
    empty = write_ground_truth(replace(room, depth=0 * room.depth), tmp_path / "empty")
    with pytest.raises(GroundTruthError, match="no positive depth"):
        compare_with_ground_truth(maps(room), KIND, match_ground_truth(room_frames, empty, 1000), protocol("plain"))
