"""What can be said before the button is pressed: a look at the clip, how long it will take, and what is likely to fail.

Seconds are learnt from the runs that this machine has made; before the first one they are guesses for two CPU cores.
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
_GUESS_S = {
    "frames": 0.03,
    "sfm": 0.5,
    "before_fused": 0.05,
    "after_fused": 0.05,
    "compare": 0.02,
    "outputs": 0.08,
}
"""Seconds a frame."""
_SMALL_PREDICT_S = 0.03
_SMALL_REFINE_S = {Preset.FAST: 6.0, Preset.DEFAULT: 15.0, Preset.PAPER: 15.0}
_SMALL = 1.9e6
"""Parameters of the network that these are of; larger ones of the same kind take longer in proportion."""
_HUB_PREDICT_S, _HUB_PREDICT_S_A_PARAMETER = 0.6, 0.064e-6
"""A transformer at half a million pixels (measured: 2.2 s with 25 million parameters)."""
_HUB_STEP = 2.0
"""Time of a frame in a step of the whole network over that of a prediction (measured); smaller steps are more steps."""
_GPU = 1 / 20
"""Time on a GPU over that on two CPU cores, cautiously."""
EXPORT_GUESS_S = 90.0
_MEMORY = 0.5
"""Weight of the latest run."""


@dataclass(frozen=True)
class CostModel:
    """What a network takes, by its size, where it was never seen at work."""

    predict_s: float = _SMALL_PREDICT_S
    """A frame."""
    refine_s: Mapping[Preset, float] = field(default_factory=lambda: _SMALL_REFINE_S)

    @staticmethod
    def from_size(parameters: int, *, of_hub: bool, on_gpu: bool) -> CostModel:
        """Of a network of this package's own, or one `of_hub`: those work at a much larger size."""
        if not of_hub:
            factor = max(1.0, parameters / _SMALL * (_GPU if on_gpu else 1.0))
            return CostModel(factor * _SMALL_PREDICT_S, {preset: factor * s for preset, s in _SMALL_REFINE_S.items()})
        predict_s = (_HUB_PREDICT_S + _HUB_PREDICT_S_A_PARAMETER * parameters) * (_GPU if on_gpu else 1.0)

        def refine_s(config: RefineConfig) -> float:
            checks = (1 + config.num_validations) * config.validation_frames
            return (config.steps * config.frames_per_step * _HUB_STEP + checks) * predict_s

        return CostModel(predict_s, {preset: refine_s(recipe.refine) for preset, recipe in RECIPES.items()})


class TimingHistory:
    """Seconds that stages took here, kept in a small file from start to start."""

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
        """Seconds of each stage of a run, in order; `cost`: the network's, until it was seen at work."""
        with self._lock:
            known = dict(self._known)
        guess = cost or CostModel()
        return {stage: self._stage_s(known, stage, frames, network, preset, guess) for stage in ORDER}

    def has_refinement(self, network: str, preset: str) -> bool:
        """Whether a refinement of this network was seen."""
        with self._lock:
            return f"refine:{network}:{preset}" in self._known

    def record_run(self, timings_s: Mapping[str, float], frames: int, network: str, preset: str) -> None:
        """A run of that many frames took so long; stages that were cached say nothing and are to be left out."""
        timings_s = dict(timings_s)
        if "disparity" in timings_s:  # what "before" is made of
            timings_s["before"] = timings_s.pop("disparity") + timings_s.get("before", 0.0)
        for stage, seconds in timings_s.items():
            if stage in PER_FRAME:
                self._note(_key(stage, network), seconds / max(frames, 1))
            elif stage == "refine":
                self._note(f"refine:{network}:{preset}", seconds)
        self._save()

    def export_s(self, network: str) -> float:
        with self._lock:
            return self._known.get(f"export:{network}", EXPORT_GUESS_S)

    def record_export(self, seconds: float, network: str) -> None:
        self._note(f"export:{network}", seconds)
        self._save()

    def _stage_s(
        self, known: Mapping[str, float], stage: str, frames: int, network: str, preset: str, guess: CostModel
    ) -> float:
        if stage == "refine":
            return known.get(f"refine:{network}:{preset}", guess.refine_s[Preset(preset)])
        guess_s = guess.predict_s if stage in _PREDICTIONS else _GUESS_S[stage]
        return frames * known.get(_key(stage, network), guess_s)

    def _note(self, key: str, value: float) -> None:
        with self._lock:
            before = self._known.get(key, value)
            self._known[key] = (1 - _MEMORY) * before + _MEMORY * value

    def _save(self) -> None:
        with self._lock:
            write_json(self._path, self._known)


def _key(stage: str, network: str) -> str:
    return f"{stage}:{network}" if stage in _PREDICTIONS else stage


def total_s(stages_s: Mapping[str, float]) -> float:
    return sum(stages_s.values())


def remaining_s(stages_s: Mapping[str, float], stage: str, share: float, spent_s: float) -> float:
    """Seconds that are left, `share` (0 to 1) into `stage` after `spent_s` in it."""
    later = total_s(stages_s)
    if stage in ORDER:
        later = sum(stages_s[each] for each in ORDER[ORDER.index(StageName(stage)) + 1 :])
    planned = stages_s.get(stage, 0.0)
    # What this stage shows of its own speed counts the more, the more of it is done.
    own = spent_s / share if share > 0.05 else planned
    whole = share * own + (1 - share) * max(planned, spent_s)
    return later + max(0.0, (1 - share) * whole)


def format_duration(seconds: float) -> str:
    """ "about 40 s", "about 2 min"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"
