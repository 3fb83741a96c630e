"""The training loop: steps until a number of them or a stretch of time is over, resumable at every checkpoint."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfmttr.networks.models.bundled import Bundled
from tools.training.batches import Batch, BatchSource
from tools.training.losses import LossConfig, total_loss
from tools.training.optimizer import make_optimizer


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training, apart from its data."""

    seed: int = 0
    batch: int = 24
    steps: int | None = None
    """Repeats exactly. Else `minutes` counts."""
    minutes: float = 60.0
    sizes: tuple[tuple[float, int], ...] = ((0.3, 16_000), (0.8, 30_720), (1.0, 53_248))
    """(until this share of the training, pixels a picture): small pictures first, as the coarse is learned first."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    muon: bool = True
    warm_up: float = 0.03
    clip_norm: float = 5.0
    average: float = 0.998
    """Decay of the moving average of the weights, which is what is kept in the end."""
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class StepRecord:
    """One line of the curve."""

    step: int
    seconds: float
    """Training time alone, summed over all sessions of a resumed training."""
    samples: int
    progress: float
    learning_rate: float
    loss: float


def learning_rate_factor(progress: float, warm_up: float) -> float:
    """Linear warm-up, then cosine to zero; `progress` in [0, 1]."""
    if progress < warm_up:
        return max(progress / warm_up, 0.02)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def pixels_at(progress: float, sizes: tuple[tuple[float, int], ...]) -> int:
    """Return the number of pixels per image at `progress` (0 to 1) of the training."""
    return next((pixels for until, pixels in sizes if progress < until), sizes[-1][1])


class Average:
    """Moving average of weights and of BatchNorm's statistics; short at first, so that it forgets the beginning."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """After `step` steps."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        own, new = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                own.append(self.state[name])
                new.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(own, new, share)


class Training:
    """A network on its way. `steps()` trains it; `save` and `load` keep all that is needed to go on."""

    def __init__(self, network: Bundled, config: TrainConfig) -> None:
        self.config = config
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(network, config.average)
        self.step, self.samples, self.seconds = 0, 0, 0.0
        self._optimizer = make_optimizer(network, config.learning_rate, config.weight_decay, muon=config.muon)
        self._base_rates = [group["lr"] for group in self._optimizer.param_groups]

    @property
    def progress(self) -> float:
        """Share of the training that is over, by steps or by time."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.seconds / (60 * self.config.minutes)

    def steps(self, source: BatchSource) -> Iterator[StepRecord]:
        """Train to the end, or until the caller stops.

        Time that the caller spends between two steps does not count.
        """
        batches = _Prefetched(source, self)
        try:
            while self.progress < 1:
                started = time.perf_counter()
                record = self._step(batches.next())
                self.seconds += time.perf_counter() - started
                yield StepRecord(self.step, self.seconds, self.samples, self.progress, *record)
        finally:
            batches.close()

    def _step(self, batch: Batch) -> tuple[float, float]:
        """Learning rate and loss of one step."""
        factor = learning_rate_factor(self.progress, self.config.warm_up)
        for group, rate in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        self.network.train()
        image = batch.image.contiguous(memory_format=torch.channels_last)
        loss = total_loss(self.network.log_depth(image), batch, self.config.loss)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += len(image)
        self.average.update(self.network, self.step)
        return self.config.learning_rate * factor, float(loss.detach())

    def averaged(self) -> Bundled:
        """A network of its own with the averaged weights, ready to predict."""
        network = Bundled(self.network.info).eval()
        network.load_state_dict(self.average.state)
        return network

    def save(self, path: Path, extra: dict[str, Any]) -> None:
        """All of it into one file, which is whole or not there."""
        part = path.with_suffix(".part")
        state = {
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "average": self.average.state,
            "optimizer": self._optimizer.state_dict(),
            "counts": (self.step, self.samples, self.seconds),
            "extra": extra,
        }
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> dict[str, Any]:
        """Go on from there; what was given to `save` as `extra`."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.state = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.samples, self.seconds = state["counts"]
        return state["extra"]


class _Prefetched:
    """Makes the next batches in a thread while a step runs.

    How large the pictures of a batch are is decided when it is made: with a number of steps by its number, else by the
    clock.
    """

    def __init__(self, source: BatchSource, training: Training, ahead: int = 2) -> None:
        self._source, self._training = source, training
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(training.step,), daemon=True)
        self._thread.start()

    def next(self) -> Batch:
        made = self._queue.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _fill(self, number: int) -> None:
        config = self._training.config
        while not self._stop.is_set():
            progress = number / config.steps if config.steps is not None else self._training.progress
            try:
                made: Batch | BaseException = self._source.make(number, pixels_at(progress, config.sizes))
            except Exception as error:  # noqa: BLE001 - handed on to the thread that asks for the batch
                made = error
            self._queue.put(made)
            if isinstance(made, BaseException):
                return
            number += 1


def seeded(seed: int, build: Callable[[], Bundled]) -> Bundled:
    """A network with first weights that the seed decides, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
