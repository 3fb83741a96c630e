"""Training loss of a frame: residuals at its sparse points, photometric error, or both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfmttr.config import LossForm, Objective
from sfmttr.errors import AlignmentError
from sfmttr.geometry import grid_from_pixels, pixel_centers, sample
from sfmttr.refinement.photometric_loss import PhotometricLoss
from sfmttr.refinement.targets import FrameTargets
from sfmttr.refinement.task import RefineTask


@dataclass(frozen=True)
class TargetTensors:
    """`FrameTargets` as tensors on the device."""

    frame: int
    grid: Tensor
    reference: Tensor
    weight: Tensor

    @staticmethod
    def of(targets: FrameTargets, device: torch.device) -> TargetTensors:
        arrays = (targets.grid, targets.reference, targets.weight)
        return TargetTensors(targets.frame, *(torch.from_numpy(a).to(device) for a in arrays))


def point_loss(
    depth: Tensor, reference: Tensor, weight: Tensor, form: LossForm, *, in_inverse_depth: bool = False
) -> Tensor:
    """Return the mean weighted residual over one frame's points (M,), of depth or of inverse depth.

    `LossForm.ABSOLUTE` is the loss of Izquierdo and Civera, CVPR 2023, section 3.3.
    """
    if in_inverse_depth:
        depth, reference = 1 / depth, 1 / reference
    if form is LossForm.LOG:
        residual = (reference.log() - depth.log()).abs()
    else:
        residual = (reference - depth).abs()
        if form is LossForm.RELATIVE:
            residual = residual / reference
    return (weight * residual).mean()


class FrameLoss:
    """Loss of one frame under the objective of a task.

    `images` (N, 3, h, w) are the task's, on the device. Raises ValueError when a photometric objective has no views.
    """

    def __init__(self, task: RefineTask, images: Tensor) -> None:
        self._config = task.config
        self._in_inverse_depth = task.network.loss_in_inverse_depth
        self._photometric: PhotometricLoss | None = None
        if task.config.objective is not Objective.SFM:
            if task.views is None:
                raise ValueError(f"objective {task.config.objective} needs views")
            hw = (images.shape[-2], images.shape[-1])
            valid_mask = task.network.valid_region(grid_from_pixels(pixel_centers(hw), hw), hw).reshape(hw)
            self._photometric = PhotometricLoss(images, task.views, task.config.photometric, valid_mask)

    def supervised_frames(self, targets: Iterable[FrameTargets]) -> list[FrameTargets]:
        """Return the targets of the frames that the objective is defined for.

        Raises `AlignmentError` when there are none.
        """
        if self._photometric is None or self._config.objective is not Objective.PHOTOMETRIC:
            return list(targets)
        chosen = [each for each in targets if each.frame in self._photometric.frames]
        if not chosen:
            raise AlignmentError("No frame that is trained on can be compared with another; use objective sfm.")
        return chosen

    def __call__(self, targets: TargetTensors, depth: Tensor) -> Tensor:
        """Return the loss of one frame for its predicted `depth` (h', w')."""
        config, depth = self._config, depth.float()[None]
        photometric_term = depth.new_zeros(())
        if self._photometric is not None and targets.frame in self._photometric.frames:
            photometric_term = self._photometric(targets.frame, depth)
        if config.objective is Objective.PHOTOMETRIC:
            return photometric_term
        at_points = sample(depth, targets.grid, mode=config.sampling)[0]
        loss = point_loss(
            at_points, targets.reference, targets.weight, config.loss, in_inverse_depth=self._in_inverse_depth
        )
        return loss if self._photometric is None else loss + config.photometric.joint_weight * photometric_term
