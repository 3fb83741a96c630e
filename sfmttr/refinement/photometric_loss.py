"""Ph-TTR: test-time refinement by photometric consistency, which SfM-TTR is compared with (DESIGN section 4).

A frame's depth says where each of its pixels lies in neighbouring frames, whose cameras structure-from-motion knows;
what is seen there should look the same. SSIM and L1, the better of the source frames, and pixels left out that look
more alike unmoved (Godard et al., "Digging into self-supervised monocular depth estimation", ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from sfmttr.config import PhotometricConfig
from sfmttr.errors import AlignmentError
from sfmttr.geometry import grid_of_points, inverse_rigid, pixel_centers, unproject
from sfmttr.networks.base import resize_depth
from sfmttr.types import HW, Camera, SparseModel

_MIN_SHARED = 20
"""A source frame has to see this many points of the frame."""
_C1, _C2 = 0.01**2, 0.03**2
"""SSIM's, for values in [0, 1]."""
_MIN_DEPTH = 1e-6
_ROUNDING = 1e-5
"""Errors that differ by less than this are equal."""


@dataclass(frozen=True)
class SourceView:
    """A frame that another is compared with."""

    frame: int
    camera: Camera
    source_from_target: np.ndarray
    """(4, 4) float64, rigid, network units."""


@dataclass(frozen=True)
class TargetView:
    """A frame, and what it is compared with."""

    camera: Camera
    sources: tuple[SourceView, ...]


def photometric_views(model: SparseModel, scale: float, excluded_frames: Collection[int] = ()) -> dict[int, TargetView]:
    """By frame: the one before and the one after that share most points with it, of those that are not excluded.

    In a video these are its neighbours. `scale` is the network's units in one SfM unit (`Alignment.scale`). Frames
    without any such source are not in it. Raises `AlignmentError` when none has one.
    """
    views = [view for view in model.views if view.frame not in excluded_frames]
    rows = np.repeat(np.arange(len(views)), [len(view.point) for view in views])
    points = np.concatenate([np.zeros(0, np.int64), *(view.point for view in views)])
    sees = sparse.csr_array((np.ones(len(points)), (rows, points)), shape=(len(views), len(model.points)))
    shared = (sees @ sees.T).toarray()
    result = {}
    for i, view in enumerate(views):
        chosen = []
        for others in (np.arange(i)[::-1], np.arange(i + 1, len(views))):  # the nearest first: it wins a tie
            if len(others) and shared[i, others].max() >= _MIN_SHARED:
                source = views[others[shared[i, others].argmax()]]
                motion = source.cam_from_world @ inverse_rigid(view.cam_from_world)
                motion[:3, 3] *= scale
                chosen.append(SourceView(source.frame, source.camera, motion))
        if chosen:
            result[view.frame] = TargetView(view.camera, tuple(chosen))
    if not result:
        raise AlignmentError("No two frames share enough points to be compared: use a longer clip, or objective sfm.")
    return result


@dataclass(frozen=True)
class Moments:
    """What SSIM needs of a picture, of windows of 3 x 3, mirrored at the border: (B, 3, h, w) each."""

    mean: Tensor
    mean_square: Tensor

    @staticmethod
    def of(picture: Tensor) -> Moments:
        return Moments(*_windowed(torch.cat((picture, picture * picture))).chunk(2))


def _windowed(values: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(values, (1, 1, 1, 1), "reflect"), 3, 1)


def photometric_error(
    seen: Tensor, target: Tensor, config: PhotometricConfig, of_target: Moments | None = None
) -> Tensor:
    """(B, h, w): how unlike two pictures (B, 3, h, w) in [0, 1] are at each pixel; 0 where they are the same.

    `of_target`, when it is known already, saves time.
    """
    ssim = _ssim(seen, target, of_target or Moments.of(target)).mean(dim=1)
    difference = (seen - target).abs().mean(dim=1)
    return config.ssim_weight * ((1 - ssim) / 2).clamp(0, 1) + (1 - config.ssim_weight) * difference


def _ssim(a: Tensor, b: Tensor, of_b: Moments) -> Tensor:
    """Structural similarity (B, 3, h, w)."""
    mean_a, aa, ab = _windowed(torch.cat((a, a * a, a * b))).chunk(3)
    luminance = (2 * mean_a * of_b.mean + _C1) / (mean_a**2 + of_b.mean**2 + _C1)
    variances = aa - mean_a**2 + of_b.mean_square - of_b.mean**2
    return luminance * (2 * (ab - mean_a * of_b.mean) + _C2) / (variances + _C2)


def _window_in(inside: Tensor) -> Tensor:
    """(h, w) bool: where all of a window of 3 x 3, as far as it lies in the picture, is `inside`."""
    return functional.max_pool2d((~inside)[None, None].float(), 3, 1, 1)[0, 0] == 0


class PhotometricLoss:
    """The objective for every frame of a clip.

    `images` (N, 3, h, w) in [0, 1] are the whole frames, on the device where it is computed; `views` by frame;
    `valid_mask` (h, w) bool says where depth is the network's own. Cameras are brought to the images' size.
    """

    def __init__(
        self,
        images: Tensor,
        views: Mapping[int, TargetView],
        config: PhotometricConfig,
        valid_mask: np.ndarray | None = None,
    ) -> None:
        self._images, self._views, self._config = images, views, config
        self._hw: HW = (images.shape[-2], images.shape[-1])
        all_of_it = np.ones(self._hw, bool) if valid_mask is None else valid_mask
        self._valid_mask = torch.from_numpy(all_of_it).to(images.device)
        self._rays: dict[Camera, Tensor] = {}
        self._unmoved: dict[int, Tensor] = {}
        self._moments: dict[int, Moments] = {}

    @property
    def frames(self) -> frozenset[int]:
        """Those that have something to be compared with."""
        return frozenset(self._views)

    def __call__(self, frame: int, depth: Tensor) -> Tensor:
        """Mean error over the pixels of a frame that count, of its depth (1, h', w') in network units.

        A pixel counts when it lies, with its neighbours, within at least one source frame and looks more like what is
        seen there than like the same pixel of any: else nothing moves there, or it moves with the camera. 0 when none
        does.
        """
        moved = self.reprojection_error(frame, depth)
        counts = (moved < self._identity_reprojection_error(frame) - _ROUNDING) & self._valid_mask
        return torch.where(counts, moved, 0.0).sum() / counts.sum().clamp(min=1)

    def reprojection_error(self, frame: int, depth: Tensor) -> Tensor:
        """(h, w): the least error over source frames; infinite where the pixel lies in none of them."""
        view, target = self._views[frame], self._images[frame : frame + 1]
        whole = resize_depth(depth[None], self._hw).reshape(-1)
        xyz = self._rays_of(view.camera) * whole[:, None]
        of_target = self._moments_of(frame)
        errors = [self._error_in(source, xyz, target, of_target) for source in view.sources]
        return torch.stack(errors).amin(dim=0)

    def _error_in(self, source: SourceView, xyz: Tensor, target: Tensor, of_target: Moments) -> Tensor:
        motion = torch.from_numpy(source.source_from_target).to(xyz)
        in_source = xyz @ motion[:3, :3].T + motion[:3, 3]
        in_front = in_source[:, 2] > _MIN_DEPTH
        safe = torch.cat((in_source[:, :2], in_source[:, 2:].clamp(min=_MIN_DEPTH)), dim=1)
        grid = grid_of_points(source.camera, safe)
        inside = _window_in((in_front & (grid.abs() <= 1).all(dim=1)).reshape(self._hw))
        image = self._images[source.frame : source.frame + 1]
        grid = grid.clamp(-2, 2).reshape(1, *self._hw, 2)
        seen = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
        error = photometric_error(seen, target, self._config, of_target)[0]
        return torch.where(inside, error, torch.inf)

    @torch.no_grad()
    def _identity_reprojection_error(self, frame: int) -> Tensor:
        """(h, w): the least error over source frames as if nothing had moved. It does not depend on depth: kept."""
        if frame not in self._unmoved:
            target = self._images[frame : frame + 1]
            sources = [self._images[source.frame : source.frame + 1] for source in self._views[frame].sources]
            known = self._moments_of(frame)
            errors = [photometric_error(source, target, self._config, known)[0] for source in sources]
            self._unmoved[frame] = torch.stack(errors).amin(dim=0)
        return self._unmoved[frame]

    @torch.no_grad()
    def _moments_of(self, frame: int) -> Moments:
        if frame not in self._moments:
            self._moments[frame] = Moments.of(self._images[frame : frame + 1])
        return self._moments[frame]

    def _rays_of(self, camera: Camera) -> Tensor:
        """(h w, 3): what is at depth 1 behind each pixel."""
        if camera not in self._rays:
            at_size = camera.scaled_to(self._hw)
            rays = unproject(at_size, pixel_centers(self._hw), np.ones(self._hw[0] * self._hw[1]))
            self._rays[camera] = torch.from_numpy(rays.astype(np.float32)).to(self._images.device)
        return self._rays[camera]
