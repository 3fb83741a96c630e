"""Latency of one image, on one thread and in one process."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sfmttr.networks.base import DepthPredictor
from sfmttr.types import HW
from sfmttr.utils.device import one_cpu_thread

WARM_UP, REPEATS = 3, 15


@dataclass(frozen=True)
class Latency:
    """Median time for one image of size `hw`, by predictor."""

    hw: HW
    median_ms: Mapping[str, float]
    threads: int = 1
    repeats: int = REPEATS
    processor: str = ""


def measure_sizes(predictors: Mapping[str, DepthPredictor], rgb: np.ndarray, working_hw: HW) -> dict[str, Latency]:
    """Measure the latency for `rgb` ("frame") and for `rgb` at the working size ("working").

    At the working size, resizing inside the predictors costs next to nothing.
    """
    resized = np.asarray(Image.fromarray(rgb).resize(working_hw[::-1]))
    return {"frame": measure(predictors, rgb), "working": measure(predictors, resized)}


def measure(predictors: Mapping[str, DepthPredictor], rgb: np.ndarray) -> Latency:
    """Time `predictors`, each created for one thread, in turns on the image `rgb` (H, W, 3) uint8."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    with one_cpu_thread():
        for turn in range(WARM_UP + REPEATS):
            for name, predictor in predictors.items():
                predictor.predict(rgb)  # warms the caches after the previous predictor
                started = time.perf_counter()
                predictor.predict(rgb)
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - started)
    medians = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    return Latency((rgb.shape[0], rgb.shape[1]), medians, processor=_processor())


def _processor() -> str:
    """Return the name of the processor, or of its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
