"""How long one picture takes, with everything on one thread and in one process."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfmttr.networks.base import DepthPredictor
from sfmttr.types import HW
from sfmttr.utils.device import one_cpu_thread

WARM_UP, REPEATS = 3, 15


@dataclass(frozen=True)
class Latency:
    """Median time of one picture of size `hw`, by predictor."""

    hw: HW
    median_ms: Mapping[str, float]
    threads: int = 1
    repeats: int = REPEATS
    processor: str = ""


def measure(predictors: Mapping[str, DepthPredictor], rgb: np.ndarray) -> Latency:
    """Time `predictors`, which are to be on one thread each already, in turns on the same picture (H, W, 3) uint8."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    with one_cpu_thread():
        for turn in range(WARM_UP + REPEATS):
            for name, predictor in predictors.items():
                predictor.predict(rgb)  # the one before has filled the caches with its own
                started = time.perf_counter()
                predictor.predict(rgb)
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - started)
    medians = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    return Latency((rgb.shape[0], rgb.shape[1]), medians, processor=_processor())


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
