"""Photometric loss of Ph-TTR, the baseline that the paper compares SfM-TTR with.

Depth and the cameras of the SfM model project each pixel of a target frame into source frames, where the image should
look the same. As in Monodepth2 (Godard et al., "Digging into self-supervised monocular depth estimation", ICCV 2019):
SSIM and L1, the minimum over source frames, and auto-masking of pixels that match better without warping.
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

MIN_SHARED_POINTS = 20
"""Points that a source frame must have in common with the target frame."""
_C1, _C2 = 0.01**2, 0.03**2
"""Constants of SSIM, for values in [0, 1]."""
_MIN_DEPTH = 1e-6
_ROUNDING = 1e-5
"""Errors that differ by less than this count as equal."""


@dataclass(frozen=True)
class SourceView:
    """A source frame of a target frame."""

    frame: int
    camera: Camera
    source_from_target: np.ndarray
    """(4, 4) float64, rigid, translation in network units."""


@dataclass(frozen=True)
class TargetView:
    """Camera of a target frame, and its source frames."""

    camera: Camera
    sources: tuple[SourceView, ...]


def photometric_views(model: SparseModel, scale: float, excluded_frames: Collection[int] = ()) -> dict[int, TargetView]:
    """Return the source views of each frame: of the frames before and after it, those that share most points with it.

    In a video these are its neighbors. `excluded_frames` are neither targets nor sources. `scale` is in network units
    per SfM unit (`Alignment.scale`). Frames without a source are missing from the result. Raises `AlignmentError` when
    no frame has a source.
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
            if len(others) and shared[i, others].max() >= MIN_SHARED_POINTS:
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
    """Means over 3 x 3 windows, mirrored at the border, of an image and its square: (B, 3, h, w) each."""

    mean: Tensor
    mean_square: Tensor

    @staticmethod
    def of(image: Tensor) -> Moments:
        return Moments(*_window_mean(torch.cat((image, image * image))).chunk(2))


def _window_mean(values: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(values, (1, 1, 1, 1), "reflect"), 3, 1)


def photometric_error(
    warped: Tensor, target: Tensor, config: PhotometricConfig, target_moments: Moments | None = None
) -> Tensor:
    """Return the photometric error (B, h, w) of two images (B, 3, h, w) in [0, 1]; 0 where they are equal.

    `target_moments` saves time when the target's moments are known.
    """
    ssim = _ssim(warped, target, target_moments or Moments.of(target)).mean(dim=1)
    difference = (warped - target).abs().mean(dim=1)
    return config.ssim_weight * ((1 - ssim) / 2).clamp(0, 1) + (1 - config.ssim_weight) * difference


def _ssim(a: Tensor, b: Tensor, b_moments: Moments) -> Tensor:
    """Return the structural similarity (B, 3, h, w)."""
    mean_a, aa, ab = _window_mean(torch.cat((a, a * a, a * b))).chunk(3)
    luminance = (2 * mean_a * b_moments.mean + _C1) / (mean_a**2 + b_moments.mean**2 + _C1)
    variances = aa - mean_a**2 + b_moments.mean_square - b_moments.mean**2
    return luminance * (2 * (ab - mean_a * b_moments.mean) + _C2) / (variances + _C2)


def _erode(inside: Tensor) -> Tensor:
    """Return (h, w) bool: True where the whole 3 x 3 window, clipped to the image, is `inside`."""
    return functional.max_pool2d((~inside)[None, None].float(), 3, 1, 1)[0, 0] == 0


class PhotometricLoss:
    """Photometric loss of the frames of a clip.

    `images` (N, 3, h, w) in [0, 1] are all frames, on the device that computes; `views` are by frame; `valid_mask`
    (h, w) bool is True where the network predicts depth. Cameras are scaled to the images' size.
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
        mask = np.ones(self._hw, bool) if valid_mask is None else valid_mask
        self._valid_mask = torch.from_numpy(mask).to(images.device)
        self._rays: dict[Camera, Tensor] = {}
        self._identity_errors: dict[int, Tensor] = {}
        self._moments: dict[int, Moments] = {}

    @property
    def frames(self) -> frozenset[int]:
        """Frames that have source views."""
        return frozenset(self._views)

    def __call__(self, frame: int, depth: Tensor) -> Tensor:
        """Return the mean reprojection error over the unmasked pixels of a frame, for its depth (1, h', w').

        Depth is in network units. A pixel is unmasked when its window projects into at least one source frame and its
        reprojection error is below its identity reprojection error: otherwise nothing moves there, or it moves with the
        camera. 0 when all pixels are masked.
        """
        error = self.reprojection_error(frame, depth)
        unmasked = (error < self._identity_reprojection_error(frame) - _ROUNDING) & self._valid_mask
        return torch.where(unmasked, error, 0.0).sum() / unmasked.sum().clamp(min=1)

    def reprojection_error(self, frame: int, depth: Tensor) -> Tensor:
        """Return the minimum error over source frames (h, w); infinite for pixels that project into none of them."""
        view, target = self._views[frame], self._images[frame : frame + 1]
        z = resize_depth(depth[None], self._hw).reshape(-1)
        xyz = self._rays_of(view.camera) * z[:, None]
        moments = self._moments_of(frame)
        errors = [self._error_in(source, xyz, target, moments) for source in view.sources]
        return torch.stack(errors).amin(dim=0)

    def _error_in(self, source: SourceView, xyz: Tensor, target: Tensor, moments: Moments) -> Tensor:
        """Return the error (h, w) of points `xyz` (h w, 3) in the target camera, against one source frame."""
        motion = torch.from_numpy(source.source_from_target).to(xyz)
        in_source = xyz @ motion[:3, :3].T + motion[:3, 3]
        in_front = in_source[:, 2] > _MIN_DEPTH
        safe = torch.cat((in_source[:, :2], in_source[:, 2:].clamp(min=_MIN_DEPTH)), dim=1)
        grid = grid_of_points(source.camera, safe)
        inside = _erode((in_front & (grid.abs() <= 1).all(dim=1)).reshape(self._hw))
        image = self._images[source.frame : source.frame + 1]
        grid = grid.clamp(-2, 2).reshape(1, *self._hw, 2)
        warped = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
        error = photometric_error(warped, target, self._config, moments)[0]
        return torch.where(inside, error, torch.inf)

    @torch.no_grad()
    def _identity_reprojection_error(self, frame: int) -> Tensor:
        """Return the minimum error over unwarped source frames (h, w). It does not depend on depth, so it is cached."""
        if frame not in self._identity_errors:
            target = self._images[frame : frame + 1]
            sources = [self._images[source.frame : source.frame + 1] for source in self._views[frame].sources]
            moments = self._moments_of(frame)
            errors = [photometric_error(source, target, self._config, moments)[0] for source in sources]
            self._identity_errors[frame] = torch.stack(errors).amin(dim=0)
        return self._identity_errors[frame]

    @torch.no_grad()
    def _moments_of(self, frame: int) -> Moments:
        if frame not in self._moments:
            self._moments[frame] = Moments.of(self._images[frame : frame + 1])
        return self._moments[frame]

    def _rays_of(self, camera: Camera) -> Tensor:
        """Return the points (h w, 3) at depth 1 behind each pixel."""
        if camera not in self._rays:
            at_size = camera.scaled_to(self._hw)
            rays = unproject(at_size, pixel_centers(self._hw), np.ones(self._hw[0] * self._hw[1]))
            self._rays[camera] = torch.from_numpy(rays.astype(np.float32)).to(self._images.device)
        return self._rays[camera]
