"""Ph-TTR: losses with known answers, and refinements that follow them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sfmttr.config import Objective, PhotometricConfig
from sfmttr.errors import AlignmentError
from sfmttr.geometry import grid_from_pixels, grid_of_points, project, sample_numpy
from sfmttr.networks.inference import predict_maps
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.photometric_loss import (
    PhotometricLoss,
    SourceView,
    TargetView,
    photometric_error,
    photometric_views,
)
from sfmttr.refinement.task import RefineResult
from sfmttr.types import Camera, FrameSet
from tests.refinement.test_loop import CPU, QUICK, Case, case_of, half_fit
from tests.support.fakes import TinyNetwork, sparse_model_from_truth
from tools.synthetic import RenderedClip

CONFIG = PhotometricConfig()
HW = (24, 40)
CAMERA = Camera(HW, 32.0, 32.0, 20.0, 12.0)
PLANE_DEPTH = 8.0
SHIFT_PX = 3
_ = half_fit  # a fixture


def texture(hw: tuple[int, int], left: float = 0.0) -> Tensor:
    """(3, h, w) in [0, 1], what a camera sees of a wall whose pattern begins `left` pixels to the left."""
    rows, columns = np.mgrid[: hw[0], : hw[1]].astype(float)
    x = columns + left
    waves = [np.sin(0.9 * x + 0.4 * rows), np.cos(0.5 * x - 0.7 * rows), np.sin(1.3 * x) * np.cos(0.6 * rows)]
    return torch.from_numpy(0.5 + 0.4 * np.stack(waves)).float()


def moved(x: float = 0.0, z: float = 0.0) -> np.ndarray:
    """`source_from_target` of a camera that went that far to the right, and ahead."""
    motion = np.eye(4)
    motion[:3, 3] = -x, 0, -z
    return motion


def wall(sides: tuple[int, ...] = (1,), camera: Camera = CAMERA) -> PhotometricLoss:
    """A wall at `PLANE_DEPTH`; source cameras went sideways by what moves it by `SHIFT_PX` pixels."""
    step = SHIFT_PX * PLANE_DEPTH / camera.fx
    images = torch.stack([texture(HW), *(texture(HW, side * SHIFT_PX) for side in sides)])
    sources = tuple(SourceView(i, camera, moved(side * step)) for i, side in enumerate(sides, start=1))
    return PhotometricLoss(images, {0: TargetView(camera, sources)}, CONFIG)


def depth_of(value: float, hw: tuple[int, int] = HW) -> Tensor:
    return torch.full((1, *hw), value, requires_grad=True)


# ---------------------------------------------------------------------------------------- the loss


def test_true_depth_costs_nothing() -> None:
    assert wall()(0, depth_of(PLANE_DEPTH)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("value", [0.5 * PLANE_DEPTH, 0.9 * PLANE_DEPTH, 1.1 * PLANE_DEPTH, 3 * PLANE_DEPTH])
def test_wrong_depth_costs(value: float) -> None:
    assert wall()(0, depth_of(value)).item() > 0.01


@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_gradient_pulls_depth_to_the_truth(factor: float) -> None:
    depth = depth_of(factor * PLANE_DEPTH)
    wall()(0, depth).backward()
    assert depth.grad is not None
    assert (float(depth.grad.sum()) > 0) == (factor > 1), "going against the gradient, depth comes nearer"


def test_depth_at_a_fraction_of_the_size_is_enough() -> None:
    assert wall()(0, depth_of(PLANE_DEPTH, (6, 10))).item() == pytest.approx(0, abs=1e-5)


def test_units_of_depth_and_of_motion_belong_together() -> None:
    model_units, scale = wall(), 5.0
    (source,) = model_units._views[0].sources
    motion = source.source_from_target.copy()
    motion[:3, 3] *= scale
    view = TargetView(CAMERA, (replace(source, source_from_target=motion),))
    network_units = PhotometricLoss(model_units._images, {0: view}, CONFIG)
    for value in (0.8 * PLANE_DEPTH, PLANE_DEPTH):
        expected = float(model_units(0, depth_of(value)).detach())
        assert float(network_units(0, depth_of(scale * value)).detach()) == pytest.approx(expected, abs=1e-5)


def test_a_static_camera_teaches_nothing() -> None:
    images = texture(HW).repeat(2, 1, 1, 1)
    loss = PhotometricLoss(images, {0: TargetView(CAMERA, (SourceView(1, CAMERA, moved()),))}, CONFIG)
    depth = depth_of(PLANE_DEPTH)
    value = loss(0, depth)
    value.backward()
    assert value.item() == 0
    assert depth.grad is not None
    assert not depth.grad.any()


def test_what_moves_with_the_camera_is_left_out() -> None:
    loss = wall()
    images = loss._images.clone()
    images[1, :, 8:16, 10:30] = images[0, :, 8:16, 10:30]  # a car ahead, at the camera's own speed
    depth = depth_of(0.9 * PLANE_DEPTH)
    PhotometricLoss(images, loss._views, CONFIG)(0, depth).backward()
    assert depth.grad is not None
    assert not depth.grad[0, 10:14, 12:28].any()
    assert depth.grad[0, :6].any()


def test_pixels_that_leave_the_source_frame_do_not_count() -> None:
    error = wall().reprojection_error(0, depth_of(PLANE_DEPTH))
    first = SHIFT_PX + 1  # windows of SSIM reach one pixel out
    assert torch.isinf(error[:, :first]).all(), "the camera went right: what is left of it is gone"
    assert float(error[:, first:].max()) < 1e-5


def test_the_better_source_frame_is_believed() -> None:
    error = wall((1, -1)).reprojection_error(0, depth_of(PLANE_DEPTH))
    assert torch.isfinite(error).all(), "what leaves one side is still seen from the other"
    assert float(error.max()) < 1e-5


def test_places_behind_the_source_camera_do_not_count() -> None:
    images = torch.stack((texture(HW), texture(HW, 1.0)))
    view = TargetView(CAMERA, (SourceView(1, CAMERA, moved(z=2 * PLANE_DEPTH)),))
    value = PhotometricLoss(images, {0: view}, CONFIG)(0, depth_of(PLANE_DEPTH))
    value.backward()
    assert value.item() == 0


def test_depth_that_is_not_the_networks_own_does_not_count() -> None:
    loss, valid_mask = wall(), np.zeros(HW, bool)
    valid_mask[:, 20:] = True
    depth = depth_of(0.9 * PLANE_DEPTH)
    PhotometricLoss(loss._images, loss._views, CONFIG, valid_mask)(0, depth).backward()
    assert depth.grad is not None
    assert not depth.grad[0, :, :19].any(), "windows of SSIM reach one pixel out"
    assert depth.grad[0, :, 20:].any()


def test_error_is_between_pictures_at_every_pixel() -> None:
    a, b = texture(HW)[None], texture(HW, 2.0)[None]
    assert photometric_error(a, a, CONFIG).max() < 1e-6
    error = photometric_error(a, b, CONFIG)
    assert error.shape == (1, *HW)
    torch.testing.assert_close(error, photometric_error(b, a, CONFIG))
    l1 = photometric_error(a, b, replace(CONFIG, ssim_weight=0.0))
    torch.testing.assert_close(l1, (a - b).abs().mean(dim=1))
    grey, brighter = torch.full((1, 3, 9, 9), 0.4), torch.full((1, 3, 9, 9), 0.6)
    similarity = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    expected = 0.85 * (1 - similarity) / 2 + 0.15 * 0.2
    torch.testing.assert_close(
        photometric_error(grey, brighter, CONFIG), torch.full((1, 9, 9), expected), rtol=1e-3, atol=0
    )


def test_projection_in_torch_is_that_in_numpy() -> None:
    camera = Camera((48, 64), 50.0, 55.0, 31.0, 25.0, k1=0.1, k2=-0.02, p1=0.003, p2=-0.002)
    xyz = np.random.default_rng(0).uniform((-2, -2, 3), (2, 2, 9), (50, 3))
    expected = grid_from_pixels(project(camera, xyz), camera.hw)
    np.testing.assert_allclose(grid_of_points(camera, torch.from_numpy(xyz)), expected, atol=1e-6)


# ----------------------------------------------------------------------------------------- sources


def test_sources_are_the_neighbours_in_network_units(room: RenderedClip, room_frames: FrameSet) -> None:
    model = sparse_model_from_truth(room, room_frames, unit=2.0)
    views = photometric_views(model, scale=6.0)
    assert set(views) == set(range(len(room)))
    assert [[source.frame for source in views[i].sources] for i in (0, 5, 11)] == [[1], [4, 6], [10]]
    (source,) = views[0].sources
    expected = room.cam_from_world[1] @ np.linalg.inv(room.cam_from_world[0])
    np.testing.assert_allclose(source.source_from_target[:3, :3], expected[:3, :3], atol=1e-9)
    np.testing.assert_allclose(source.source_from_target[:3, 3], 3.0 * expected[:3, 3], atol=1e-9)


def test_excluded_frames_are_no_sources(room: RenderedClip, room_frames: FrameSet) -> None:
    views = photometric_views(sparse_model_from_truth(room, room_frames), 1.0, excluded_frames={4, 5})
    used = {source.frame for view in views.values() for source in view.sources}
    assert used.isdisjoint({4, 5})
    assert set(views).isdisjoint({4, 5})
    assert [source.frame for source in views[6].sources] == [3, 7]


def test_frames_that_share_nothing_cannot_be_compared(room: RenderedClip, room_frames: FrameSet) -> None:
    model = sparse_model_from_truth(room, room_frames, points=12)
    with pytest.raises(AlignmentError, match="share enough points"):
        photometric_views(model, 1.0)


# -------------------------------------------------------------------------------------- refinement


@pytest.fixture(scope="module")
def case(half_fit: TinyNetwork, room: RenderedClip, room_frames: FrameSet) -> Case:
    return case_of(half_fit, room, room_frames)


def refine(case: Case, room: RenderedClip, frames: FrameSet, objective: Objective, steps: int = 40) -> RefineResult:
    model = sparse_model_from_truth(room, frames, noise=0.01, outliers=0.1, unit=3.0)
    views = photometric_views(model, case.scale)
    config = replace(QUICK, objective=objective, steps=steps)
    refinement = Refinement(replace(case.task(config), views=views), CPU)
    for _ in refinement.steps():
        pass
    return refinement.result()


@pytest.mark.parametrize("objective", [Objective.PHOTOMETRIC, Objective.BOTH])
def test_refinement_lowers_the_objective_and_the_error(
    case: Case, room: RenderedClip, room_frames: FrameSet, objective: Objective
) -> None:
    result = refine(case, room, room_frames, objective)
    assert np.mean(result.losses[-12:]) < np.mean(result.losses[:12])
    assert not result.rolled_back
    aligned = case.error_at_test_points(factor=case.targets.network_scale)
    assert case.error_at_test_points(dict(result.weights)) < aligned


def test_photometric_needs_no_point_but_to_choose(case: Case, room: RenderedClip, room_frames: FrameSet) -> None:
    wrong = tuple(replace(target, reference=7 * target.reference) for target in case.targets.train)
    other = replace(case, targets=replace(case.targets, train=wrong))
    losses = [refine(each, room, room_frames, Objective.PHOTOMETRIC, 3).losses for each in (case, other)]
    assert losses[0] == losses[1]
    assert (
        refine(other, room, room_frames, Objective.BOTH, 3).losses
        != refine(case, room, room_frames, Objective.BOTH, 3).losses
    )


def test_photometric_rolls_back_like_any_other(case: Case, room: RenderedClip, room_frames: FrameSet) -> None:
    maps = predict_maps(case.network, case.images, CPU, "own")
    own = tuple(
        replace(target, reference=sample_numpy(maps[target.frame], target.grid)) for target in case.targets.validation
    )
    targets = replace(case.targets, validation=own, network_scale=1.0)
    result = refine(replace(case, targets=targets), room, room_frames, Objective.PHOTOMETRIC, 3)
    assert result.rolled_back


def test_photometric_without_views_is_a_mistake(case: Case) -> None:
    with pytest.raises(ValueError, match="needs views"):
        Refinement(case.task(replace(QUICK, objective=Objective.BOTH)), CPU)


def test_frames_without_sources_are_not_trained_on(case: Case, room: RenderedClip, room_frames: FrameSet) -> None:
    model = sparse_model_from_truth(room, room_frames)
    views = {5: photometric_views(model, case.scale)[5]}
    config = replace(QUICK, objective=Objective.PHOTOMETRIC, steps=2)
    refinement = Refinement(replace(case.task(config), views=views), CPU)
    assert [target.frame for target in refinement._train] == [5]
    with pytest.raises(AlignmentError, match="objective sfm"):
        Refinement(replace(case.task(config), views={}), CPU)
