"""Test-time refinement loop (Izquierdo and Civera, CVPR 2023, section 3.3): a generator of steps.

    refinement = Refinement(task, compute)
    for step in refinement.steps():
        ...  # show it; stop iterating to stop
    result = refinement.result()

The input network is never changed. The result is the best step on the validation points; when no step beats the
unrefined network times its best scale, it is the original weights with `rolled_back` set.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from sfmttr.errors import AlignmentError
from sfmttr.geometry import sample
from sfmttr.networks.base import state_dict_cpu
from sfmttr.networks.lora import merged_state
from sfmttr.refinement.forward import FrameForward
from sfmttr.refinement.losses import FrameLoss, TargetTensors
from sfmttr.refinement.schedule import learning_rate_factor, steps_for_budget, validation_steps
from sfmttr.refinement.task import RefineCheckpoint, RefineResult, RefineStep, RefineTask, copy_to_cpu
from sfmttr.refinement.trainable import can_cache_stem, resolve_training, select_trainable, trainable_parameters
from sfmttr.utils.device import Compute


class Refinement:
    """One refinement of a copy of the task's network, from its beginning or from a checkpoint.

    Whatever the objective, the validation points choose the best step. Raises `AlignmentError` when there are no points
    to train on or none to validate with.
    """

    def __init__(self, task: RefineTask, compute: Compute, checkpoint: RefineCheckpoint | None = None) -> None:
        network, targets, config = task.network, task.targets, task.config
        if not targets.train or not targets.validation:
            raise AlignmentError("No frame has points to learn from and points to check with: use a longer clip.")
        started = time.perf_counter()
        self._rng = np.random.default_rng(task.seed)
        layout = network.preferred_memory_format
        # eval(): BatchNorm keeps its statistics; updating them from one frame a step makes results worse
        # (docs/method.md).
        self._network = copy.deepcopy(network).eval().to(compute.device).to(memory_format=layout)  # type: ignore[call-overload]
        images = task.images.to(compute.device, memory_format=layout)
        self._loss = FrameLoss(task, images)
        self._train = [TargetTensors.of(t, compute.device) for t in self._loss.supervised_frames(targets.train)]
        stride = max(1, -(-len(targets.validation) // config.validation_frames))  # rounded up
        self._validation = [TargetTensors.of(t, compute.device) for t in targets.validation[::stride]]
        training = resolve_training(config, network)
        names = trainable_parameters(network, training.trained).keys()
        caches = can_cache_stem(network, config)
        config = replace(config, trained=training.trained, learning_rate=training.learning_rate)
        self._config = replace(config, steps=steps_for_budget(config, network)) if caches else config
        self._parameters = select_trainable(self._network, names, training, config.lora_rank, task.seed)
        self._forward = FrameForward(
            self._network, images, compute, task.excluded_frames, task.feature_cache if caches else None
        )
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
        """Run the loop and yield each step once it is done; the loop ends early when the caller stops iterating."""
        config, parameters = self._config, self._parameters
        assert config.learning_rate is not None, "resolved in __init__"
        done = self._start.step if self._start else 0
        optimizer = torch.optim.Adam(parameters.values(), lr=config.learning_rate, fused=True)
        if self._start:
            optimizer.load_state_dict(dict(self._start.optimizer))
        self._optimizer = optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, config), last_epoch=done - 1
        )
        frames = islice(self._shuffled_frames(), done * config.frames_per_step, None)
        validated = validation_steps(config)
        started = time.perf_counter() - self._seconds
        for index in range(done + 1, config.steps + 1):
            self._losses.append(self._accumulate_gradients(list(islice(frames, config.frames_per_step))))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            validation = self._validate(index) if index in validated else None
            self._seconds = time.perf_counter() - started
            yield RefineStep(index, config.steps, self._losses[-1], validation, self._seconds)

    @property
    def total(self) -> int:
        """Number of steps from beginning to end."""
        return self._config.steps

    def checkpoint(self) -> RefineCheckpoint:
        """Return the current state. Raises ValueError before the first step: there is nothing to continue from yet."""
        if self._optimizer is None:
            raise ValueError("no step was made yet")
        return RefineCheckpoint(
            len(self._losses),
            state_dict_cpu(self._network),
            copy_to_cpu(self._optimizer.state_dict()),
            self._best,
            tuple(self._losses),
            tuple(self._curve),
            self._seconds,
        )

    def result(self) -> RefineResult:
        """Return the best weights so far; it may be called after an early stop."""
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
        """Return the current prediction (h', w') float32 for a frame, for a live picture."""
        return self._forward([frame])[0].float().cpu().numpy()

    def _shuffled_frames(self) -> Iterator[TargetTensors]:
        while True:
            for i in self._rng.permutation(len(self._train)):
                yield self._train[i]

    def _accumulate_gradients(self, frames: list[TargetTensors]) -> float:
        """Add the gradients of the mean loss over `frames` to the parameters, and return that loss."""
        loss = 0.0
        for batch in self._forward.batches(frames):
            depths = self._forward([targets.frame for targets in batch])
            each = [self._loss(*pair) for pair in zip(batch, depths, strict=True)]
            share = torch.stack(each).sum() / self._config.frames_per_step
            share.backward()
            loss += float(share.detach())
        return loss

    def _validate(self, index: int) -> float:
        error = self._validation_error(1.0)
        self._curve.append((index, error))
        if error < self._best[1]:
            self._best = (index, error, merged_state(self._network))
        return error

    @torch.no_grad()
    def _validation_error(self, network_scale: float) -> float:
        """Return the weighted mean relative error over the validation points; infinite when it is not finite."""
        total, weight = 0.0, 0.0
        for batch in self._forward.batches(self._validation):
            depths = self._forward([targets.frame for targets in batch]).float()
            for targets, depth in zip(batch, depths, strict=True):
                at_points = network_scale * sample(depth[None], targets.grid)[0]
                relative = (at_points - targets.reference).abs() / targets.reference
                total += float((targets.weight * relative).sum())
                weight += float(targets.weight.sum())
        error = total / weight if weight > 0 else float("inf")
        return error if np.isfinite(error) else float("inf")
