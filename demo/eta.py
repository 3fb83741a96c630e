"""Estimates of how long a run takes, learned from the runs of this machine.

Before the first run they are guesses for two CPU cores.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfmttr.config import RECIPES, Preset, RefineConfig
from sfmttr.errors import RunFolderError
from sfmttr.io.json_files import read_json, write_json
from sfmttr.run.stages import STAGES, StageName

# The others take little time, or count as part of one of these.
_NOT_ESTIMATED = {
    StageName.WEIGHTS,
    StageName.DISPARITY,
    StageName.ALIGNED,
    StageName.EXPORT,
    StageName.KIT,
}
ORDER = tuple(stage.name for stage in STAGES if stage.name not in _NOT_ESTIMATED)
"""Stages whose time is estimated, in order."""
PER_FRAME = tuple(name for name in ORDER if name is not StageName.REFINE)
"""Stages whose time grows with the number of frames."""
_PREDICTIONS = ("before", "after")
# Seconds per frame, until measured.
_GUESS_S = {
    "frames": 0.03,
    "sfm": 0.5,
    "before_fused": 0.05,
    "after_fused": 0.05,
    "compare": 0.02,
    "outputs": 0.08,
}
# Seconds per frame and per refinement of a network with so many parameters. Larger networks of the package take longer
# in proportion.
_SMALL_PARAMETERS = 1.9e6
_SMALL_PREDICT_S = 0.03
_SMALL_REFINE_S = {Preset.FAST: 6.0, Preset.DEFAULT: 15.0, Preset.PAPER: 15.0}
# Seconds per frame of a transformer at half a million pixels: a part that is the same for all, and one per parameter
# (measured: 2.2 s with 25 million parameters).
_HUB_PREDICT_S, _HUB_PREDICT_S_PER_PARAMETER = 0.6, 0.064e-6
# Time of one frame in a training step of the whole network, relative to a prediction (measured). Cheaper steps are more
# steps.
_HUB_STEP_FACTOR = 2.0
# Time on a GPU relative to two CPU cores, a cautious guess.
_GPU_FACTOR = 1 / 20
EXPORT_GUESS_S = 90.0
# Weight of the latest run in the running mean.
_LATEST_WEIGHT = 0.5
# Share of a stage from which on its own speed is used for the time that is left.
_MIN_SHARE = 0.05


@dataclass(frozen=True)
class CostModel:
    """Estimated cost of a network that was never timed here."""

    predict_s: float = _SMALL_PREDICT_S
    """Seconds per frame."""
    refine_s: Mapping[Preset, float] = field(default_factory=lambda: _SMALL_REFINE_S)
    """Seconds of a refinement."""

    @staticmethod
    def from_size(parameters: int, *, of_hub: bool, on_gpu: bool) -> CostModel:
        """Estimate the cost from the number of parameters; models `of_hub` have a much larger input."""
        if not of_hub:
            factor = max(1.0, parameters / _SMALL_PARAMETERS * (_GPU_FACTOR if on_gpu else 1.0))
            return CostModel(factor * _SMALL_PREDICT_S, {preset: factor * s for preset, s in _SMALL_REFINE_S.items()})
        predict_s = (_HUB_PREDICT_S + _HUB_PREDICT_S_PER_PARAMETER * parameters) * (_GPU_FACTOR if on_gpu else 1.0)

        def refine_s(config: RefineConfig) -> float:
            checks = (1 + config.num_validations) * config.validation_frames
            return (config.steps * config.frames_per_step * _HUB_STEP_FACTOR + checks) * predict_s

        return CostModel(predict_s, {preset: refine_s(recipe.refine) for preset, recipe in RECIPES.items()})


class TimingHistory:
    """Seconds that stages took on this machine, kept in a small file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, float] = {}
        try:
            stored = read_json(path) if path.is_file() else {}
            self._known = {str(k): float(v) for k, v in stored.items() if math.isfinite(float(v)) and float(v) >= 0}
        except (RunFolderError, AttributeError, TypeError, ValueError):
            self._known = {}  # a guess is as good as a damaged file

    def stages_s(self, frames: int, network: str, preset: str, cost: CostModel | None = None) -> dict[str, float]:
        """Estimate the seconds of each stage of a run, in order; `cost` is used until the network was timed."""
        with self._lock:
            known = dict(self._known)
        guess = cost or CostModel()
        return {stage: self._stage_s(known, stage, frames, network, preset, guess) for stage in ORDER}

    def has_refinement(self, network: str, preset: str) -> bool:
        """Return whether a refinement of this network was timed."""
        with self._lock:
            return f"refine:{network}:{preset}" in self._known

    def record_run(self, timings_s: Mapping[str, float], frames: int, network: str, preset: str) -> None:
        """Record the seconds of the stages of a run, without those whose results were cached."""
        timings_s = dict(timings_s)
        if "disparity" in timings_s:  # the estimate counts it as a part of "before"
            timings_s["before"] = timings_s.pop("disparity") + timings_s.get("before", 0.0)
        for stage, seconds in timings_s.items():
            if stage in PER_FRAME:
                self._update(_key(stage, network), seconds / max(frames, 1))
            elif stage == "refine":
                self._update(f"refine:{network}:{preset}", seconds)
        self._save()

    def export_s(self, network: str) -> float:
        """Estimate the seconds of an export."""
        with self._lock:
            return self._known.get(f"export:{network}", EXPORT_GUESS_S)

    def record_export(self, seconds: float, network: str) -> None:
        """Record the seconds of an export."""
        self._update(f"export:{network}", seconds)
        self._save()

    def _stage_s(
        self, known: Mapping[str, float], stage: str, frames: int, network: str, preset: str, guess: CostModel
    ) -> float:
        if stage == "refine":
            return known.get(f"refine:{network}:{preset}", guess.refine_s[Preset(preset)])
        guess_s = guess.predict_s if stage in _PREDICTIONS else _GUESS_S[stage]
        return frames * known.get(_key(stage, network), guess_s)

    def _update(self, key: str, value: float) -> None:
        with self._lock:
            before = self._known.get(key, value)
            self._known[key] = (1 - _LATEST_WEIGHT) * before + _LATEST_WEIGHT * value

    def _save(self) -> None:
        with self._lock:
            write_json(self._path, self._known)


def _key(stage: str, network: str) -> str:
    return f"{stage}:{network}" if stage in _PREDICTIONS else stage


def total_s(stages_s: Mapping[str, float]) -> float:
    """Return the seconds of a whole run."""
    return sum(stages_s.values())


def remaining_s(stages_s: Mapping[str, float], stage: str, share: float, spent_s: float) -> float:
    """Estimate the seconds left of a run that is `share` (0 to 1) through `stage`, after `spent_s` in it."""
    later = total_s(stages_s)
    if stage in ORDER:
        later = sum(stages_s[each] for each in ORDER[ORDER.index(StageName(stage)) + 1 :])
    planned = stages_s.get(stage, 0.0)
    # The more of the stage is done, the more its own speed counts.
    extrapolated = spent_s / share if share > _MIN_SHARE else planned
    whole = share * extrapolated + (1 - share) * max(planned, spent_s)
    return later + max(0.0, (1 - share) * whole)


def format_duration(seconds: float) -> str:
    """Format a duration, e.g. "about 40 s" or "about 2 min"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"
