"""Schedules of the refinement loop: number of steps, learning rate, validation."""

from __future__ import annotations

import numpy as np

from sfmttr.config import RefineConfig, Schedule
from sfmttr.networks.base import DepthNetwork


def steps_for_budget(config: RefineConfig, network: DepthNetwork) -> int:
    """Return the number of steps on cached stem features that take as long as `config.steps` full steps.

    Without `config.match_time_budget` it is `config.steps` itself.
    """
    return round(config.steps / network.cached_step_cost) if config.match_time_budget else config.steps


def learning_rate_factor(step: int, config: RefineConfig) -> float:
    """Return the factor on the learning rate at `step` (0-based)."""
    if config.schedule is Schedule.CONSTANT:
        return 1.0
    done = (step + 0.5) / config.steps
    if done < config.warm_up:
        return done / config.warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (done - config.warm_up) / (1 - config.warm_up))))


def validation_steps(config: RefineConfig) -> set[int]:
    """Return the steps after which the validation error is evaluated: evenly spaced, always with the last."""
    count = max(1, min(config.num_validations, config.steps))
    return {round(config.steps * (i + 1) / count) for i in range(count)}
