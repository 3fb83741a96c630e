"""The Python API: one call from a clip to its refined network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sfmttr import pipeline
from sfmttr.config import Preset, RunConfig
from sfmttr.results import RunResult
from sfmttr.types import OnProgress, ignore_progress


def refine_clip(
    clip: str | Path,
    out: str | Path,
    *,
    network: str = RunConfig.network,
    preset: str = RunConfig.preset,
    config: RunConfig | None = None,
    on_progress: OnProgress = ignore_progress,
    **changes: Any,
) -> RunResult:
    """Refine `network` on `clip` (video, folder or zip of images); everything is written into the folder `out`.

    `changes` are fields of `RunConfig` (e.g. `seed=1`, `device="cpu"`); `config` replaces the defaults altogether.
    Raises subclasses of `SfmttrError`.
    """
    base = config or RunConfig(network=network, preset=Preset(preset))
    return pipeline.run(Path(clip), Path(out), replace(base, **changes), on_progress)
