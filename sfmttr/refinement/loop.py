"""The test-time loop (paper, section 3.3): a generator of steps. The input network is never changed.

    refinement = Refinement(network, images, targets, config, compute, seed)
    for step in refinement.steps():
        ...  # draw it; stop iterating to stop
    result = refinement.result()

The result is the best step on the validation points; when no step beats the unrefined network times its best scale, it
is the original weights, and says so.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfmttr.config import LossForm, Objective, RefineConfig, Schedule, Trained, Training
from sfmttr.errors import AlignmentError, NetworkError
from sfmttr.geometry import grid_from_pixels, pixel_centers, sample
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.inference import EarlyFeatures, of_each
from sfmttr.networks.lora import add_low_rank, merged_state
from sfmttr.refinement.photometric_loss import PhotometricLoss, TargetView
from sfmttr.refinement.targets import FrameTargets, Targets
from sfmttr.utils.device import Compute


@dataclass(frozen=True)
class RefineStep:
    """What a page draws."""

    index: int
    """1 for the first step."""
    total: int
    loss: float
    validation: float | None
    """Weighted mean relative error at validation points, when it was measured after this step."""
    seconds: float
    """Since the refinement was set up, that included."""


@dataclass(frozen=True)
class RefineResult:
    """Refined weights and how they came about."""

    weights: Mapping[str, Tensor]
    """State dict on the CPU."""
    steps: int
    """Steps made."""
    best_step: int
    """The step that the weights are from; 0 means unrefined."""
    rolled_back: bool
    """No step beat the unrefined network times its best scale; `weights` are the original ones."""
    seconds: float
    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    """(step, error) for each time that it was measured; step 0 is the unrefined network with its best scale."""


@dataclass(frozen=True)
class RefineCheckpoint:
    """Where a refinement stands, on the CPU: another process can go on from here as if nothing had happened."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """State dict of the optimiser."""
    best: tuple[int, float, Mapping[str, Tensor]]
    """Step, validation error and weights."""
    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    seconds: float


@dataclass(frozen=True)
class _DeviceTargets:
    """`FrameTargets` as tensors on the device."""

    frame: int
    grid: Tensor
    reference: Tensor
    weight: Tensor

    @staticmethod
    def of(targets: FrameTargets, device: torch.device) -> _DeviceTargets:
        arrays = (targets.grid, targets.reference, targets.weight)
        return _DeviceTargets(targets.frame, *(torch.from_numpy(a).to(device) for a in arrays))


def point_loss(
    depth: Tensor, reference: Tensor, weight: Tensor, form: LossForm, *, in_inverse_depth: bool = False
) -> Tensor:
    """Mean over one frame's points (M,) of the weighted residual, of depth or `in_inverse_depth` depth."""
    if in_inverse_depth:
        depth, reference = 1 / depth, 1 / reference
    if form is LossForm.LOG:
        residual = (reference.log() - depth.log()).abs()
    else:
        residual = (reference - depth).abs()
        if form is LossForm.RELATIVE:
            residual = residual / reference
    return (weight * residual).mean()


def learning_rate_factor(step: int, config: RefineConfig) -> float:
    """What the learning rate is multiplied by at `step` (0-based)."""
    if config.schedule is Schedule.CONSTANT:
        return 1.0
    done = (step + 0.5) / config.steps
    if done < config.warm_up:
        return done / config.warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (done - config.warm_up) / (1 - config.warm_up))))


def trainable_parameters(network: DepthNetwork, trained: Trained) -> dict[str, nn.Parameter]:
    """The parameters that move, by name (of LoRA: whose weights do). Raises `NetworkError` when there are none."""
    encoder = dict(network.encoder_parameters())
    early = dict(network.early_parameters())
    everything = dict(network.named_parameters())
    chosen = {
        Trained.ENCODER: encoder,
        Trained.LATE_ENCODER: {n: p for n, p in encoder.items() if n not in early},
        Trained.DECODER: {n: p for n, p in everything.items() if n not in encoder},
        Trained.LATE: {n: p for n, p in everything.items() if n not in early},
        Trained.ALL: everything,
        Trained.LORA: encoder,
    }[trained]
    if not chosen:
        raise NetworkError(f"This network has no {trained} parameters of its own to train; choose another part.")
    return chosen


def resolve_training(config: RefineConfig, network: DepthNetwork) -> Training:
    """What is trained and how fast: as the settings say, and as the network says where they leave it to it.

    The network's own rates are for steps of one frame. More frames leave less noise in a step, which may then be
    larger by the square root of their number.
    """
    trained = config.trained or network.trainings[0].trained
    rates = {training.trained: training.learning_rate for training in reversed(network.trainings)}
    rate = rates.get(trained, network.trainings[0].learning_rate) * math.sqrt(config.frames_per_step)
    return Training(trained, config.learning_rate or rate)


def affordable(config: RefineConfig, network: DepthNetwork) -> RefineConfig:
    """With `match_time_budget`, as many steps on kept early features as cost what the whole ones would."""
    if not config.match_time_budget:
        return config
    return replace(config, steps=round(config.steps / network.late_cost), match_time_budget=False)


def can_cache_early(network: DepthNetwork, config: RefineConfig) -> bool:
    """Whether a refinement leaves the early part of `network` as it is, and so needs what it says only once a frame."""
    early = dict(network.early_parameters())
    moving = trainable_parameters(network, resolve_training(config, network).trained)
    return bool(early) and moving.keys().isdisjoint(early)


class Refinement:
    """One refinement of a copy of `network` on `images`.

    `images` (N, 3, h, w): all frames, prepared once, indexed by `FrameTargets.frame`. Pixels of `excluded_frames` are
    never read. `views`, by frame, are what photometric objectives take beside `targets`; whatever the objective,
    validation points choose the best step. `early`, by frame, is what is known already of what the early part says, on
    the device of `compute`. Raises `AlignmentError` when there is nothing to train on, or nothing to validate with.
    """

    def __init__(
        self,
        network: DepthNetwork,
        images: Tensor,
        targets: Targets,
        config: RefineConfig,
        compute: Compute,
        seed: int,
        *,
        excluded_frames: Collection[int] = (),
        views: Mapping[int, TargetView] | None = None,
        early: EarlyFeatures | None = None,
        checkpoint: RefineCheckpoint | None = None,
    ) -> None:
        if not targets.train or not targets.validation:
            raise AlignmentError("No frame has points to learn from and points to check with: use a longer clip.")
        started = time.perf_counter()
        self._compute = compute
        self._rng = np.random.default_rng(seed)
        self._format = network.preferred_memory_format
        # eval(): BatchNorm keeps its statistics; training them at one frame a step makes results worse (DESIGN 4.3).
        self._network = copy.deepcopy(network).eval().to(compute.device).to(memory_format=self._format)  # type: ignore[call-overload]
        self._images = images.to(compute.device, memory_format=self._format)
        self._left_out = frozenset(excluded_frames)
        self._photometric = self._photometric_loss(network, config, views)
        self._train = [_DeviceTargets.of(t, compute.device) for t in self._taught(targets.train, config)]
        every = max(1, -(-len(targets.validation) // config.validation_frames))  # rounded up
        self._validation = [_DeviceTargets.of(t, compute.device) for t in targets.validation[::every]]
        training = resolve_training(config, network)
        moving = trainable_parameters(network, training.trained)
        self._early_is_fixed = can_cache_early(network, config)
        config = replace(config, trained=training.trained, learning_rate=training.learning_rate)
        self._config = affordable(config, network) if self._early_is_fixed else config
        self._parameters = self._let_move(moving.keys(), training.trained, seed)
        self._features = dict(early or {})
        self._start = checkpoint
        self._optimizer: torch.optim.Optimizer | None = None
        self._losses: list[float] = []
        if checkpoint is None:
            self._best = (0, self._validation_error(targets.network_scale), state_dict_cpu(network))
            self._curve = [(0, self._best[1])]
        else:
            self._network.load_state_dict(checkpoint.weights)
            self._best, self._curve = checkpoint.best, list(checkpoint.validation)
            self._losses += checkpoint.losses
        self._seconds = time.perf_counter() - started + (checkpoint.seconds if checkpoint else 0.0)

    def steps(self) -> Iterator[RefineStep]:
        """Run the loop; each step is yielded once it is done. Ends early when the caller stops iterating."""
        config, parameters = self._config, self._parameters
        assert config.learning_rate is not None, "settled when this was set up"
        done = self._start.step if self._start else 0
        optimizer = torch.optim.Adam(parameters.values(), lr=config.learning_rate, fused=True)
        if self._start:
            optimizer.load_state_dict(dict(self._start.optimizer))
        self._optimizer = optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, config), last_epoch=done - 1
        )
        frames = islice(self._shuffled_frames(), done * config.frames_per_step, None)
        checks = validation_steps(config)
        started = time.perf_counter() - self._seconds
        for index in range(done + 1, config.steps + 1):
            loss = 0.0
            for group in self._together(list(islice(frames, config.frames_per_step))):
                depths = self._predict([targets.frame for targets in group])
                each = [self._loss(*pair) for pair in zip(group, depths, strict=True)]
                share = torch.stack(each).sum() / config.frames_per_step
                share.backward()
                loss += float(share.detach())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            self._losses.append(loss)
            validation = self._check(index) if index in checks else None
            self._seconds = time.perf_counter() - started
            yield RefineStep(index, config.steps, self._losses[-1], validation, self._seconds)

    @property
    def total(self) -> int:
        """Steps that it makes from beginning to end."""
        return self._config.steps

    def checkpoint(self) -> RefineCheckpoint:
        """Where it stands. Raises ValueError before the first step: there is nothing to go on from, then."""
        if self._optimizer is None:
            raise ValueError("no step was made yet")
        return RefineCheckpoint(
            len(self._losses),
            state_dict_cpu(self._network),
            _on_cpu(self._optimizer.state_dict()),
            self._best,
            tuple(self._losses),
            tuple(self._curve),
            self._seconds,
        )

    def result(self) -> RefineResult:
        """The best weights so far; may be called after an early stop."""
        best_step, _, weights = self._best
        return RefineResult(
            weights=weights,
            steps=len(self._losses),
            best_step=best_step,
            rolled_back=best_step == 0,
            seconds=self._seconds,
            losses=tuple(self._losses),
            validation=tuple(self._curve),
        )

    @torch.no_grad()
    def depth(self, frame: int) -> np.ndarray:
        """(h', w') float32: what the network says of a frame now, for a live picture."""
        return self._predict([frame])[0].float().cpu().numpy()

    def _let_move(self, names: Collection[str], trained: Trained, seed: int) -> dict[str, nn.Parameter]:
        """The parameters that the optimiser gets, and no others, with gradients: those of these names, or with LoRA
        the ones that are added to them."""
        network = self._network.requires_grad_(False)
        if trained is Trained.LORA:
            parameters = add_low_rank(network, names, self._config.lora_rank, seed)
        else:
            parameters = {name: value for name, value in network.named_parameters() if name in names}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        return parameters

    def _photometric_loss(
        self, network: DepthNetwork, config: RefineConfig, views: Mapping[int, TargetView] | None
    ) -> PhotometricLoss | None:
        if config.objective is Objective.SFM:
            return None
        if views is None:
            raise ValueError(f"objective {config.objective} needs views")
        hw = (self._images.shape[-2], self._images.shape[-1])
        valid_mask = network.sees(grid_from_pixels(pixel_centers(hw), hw), hw).reshape(hw)
        return PhotometricLoss(self._images, views, config.photometric, valid_mask)

    def _taught(self, targets: tuple[FrameTargets, ...], config: RefineConfig) -> list[FrameTargets]:
        """The frames that the objective says something of."""
        if self._photometric is None or config.objective is not Objective.PHOTOMETRIC:
            return list(targets)
        chosen = [each for each in targets if each.frame in self._photometric.frames]
        if not chosen:
            raise AlignmentError("No frame that is trained on can be compared with another; use objective sfm.")
        return chosen

    def _shuffled_frames(self) -> Iterator[_DeviceTargets]:
        while True:
            for i in self._rng.permutation(len(self._train)):
                yield self._train[i]

    def _together(self, targets: Sequence[_DeviceTargets]) -> Iterator[Sequence[_DeviceTargets]]:
        """Groups of frames that go through the network at once, which is quicker than one by one where it is small."""
        most = self._network.most_at_once
        return (targets[i : i + most] for i in range(0, len(targets), most))

    def _predict(self, frames: Sequence[int]) -> Tensor:
        """(B, h', w') depth of these frames."""
        hw = (self._images.shape[-2], self._images.shape[-1])
        with self._compute.autocast():
            if not self._early_is_fixed:
                return self._network.picture_depth(self._input(frames))[:, 0]
            features = self._early_features(frames)
            return self._network.uncrop(self._network.depth_from_early(*features), hw)[:, 0]

    def _input(self, frames: Sequence[int]) -> Tensor:
        return torch.cat([self._network.with_neighbours(self._images, frame, self._left_out) for frame in frames])

    def _early_features(self, frames: Sequence[int]) -> Sequence[Tensor]:
        """What the part that does not move says of frames: computed when it is first asked for, then kept."""
        missing = [frame for frame in dict.fromkeys(frames) if frame not in self._features]
        if missing:
            with torch.no_grad():  # not inference_mode: training differentiates through what comes after
                parts = self._network.early_features(self._network.crop(self._input(missing)))
            self._features |= of_each(missing, parts)
        each = [self._features[frame] for frame in frames]
        return each[0] if len(each) == 1 else [torch.cat(parts) for parts in zip(*each, strict=True)]

    def _loss(self, targets: _DeviceTargets, depth: Tensor) -> Tensor:
        """Of one frame, whose depth the network says is `depth` (h', w')."""
        config, depth = self._config, depth.float()[None]
        looks = depth.new_zeros(())
        if self._photometric is not None and targets.frame in self._photometric.frames:
            looks = self._photometric(targets.frame, depth)
        if config.objective is Objective.PHOTOMETRIC:
            return looks
        at_points = sample(depth, targets.grid, mode=config.sampling)[0]
        loss = point_loss(
            at_points, targets.reference, targets.weight, config.loss, in_inverse_depth=self._network.learns_inverse
        )
        return loss if self._photometric is None else loss + config.photometric.share_of_both * looks

    def _check(self, index: int) -> float:
        error = self._validation_error(1.0)
        self._curve.append((index, error))
        if error < self._best[1]:
            self._best = (index, error, merged_state(self._network))
        return error

    @torch.no_grad()
    def _validation_error(self, network_scale: float) -> float:
        """Weighted mean relative error over all validation points looked at; infinite when not finite."""
        total, weight = 0.0, 0.0
        for group in self._together(self._validation):
            depths = self._predict([targets.frame for targets in group]).float()
            for targets, depth in zip(group, depths, strict=True):
                at_points = network_scale * sample(depth[None], targets.grid)[0]
                relative = (at_points - targets.reference).abs() / targets.reference
                total += float((targets.weight * relative).sum())
                weight += float(targets.weight.sum())
        error = total / weight if weight > 0 else float("inf")
        return error if np.isfinite(error) else float("inf")


def _on_cpu(value: Any) -> Any:
    """A copy of nested dicts and lists with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(each) for each in value)
    return value


def validation_steps(config: RefineConfig) -> set[int]:
    """The steps after which validation points are looked at; the last one always."""
    count = max(1, min(config.num_validations, config.steps))
    return {round(config.steps * (i + 1) / count) for i in range(count)}
