"""Python API: one call from a clip to its refined network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sfmttr.config import Preset, RunConfig
from sfmttr.errors import ConfigError
from sfmttr.run import pipeline
from sfmttr.run.results import RunResult
from sfmttr.types import OnProgress, ignore_progress


def refine_clip(
    clip: str | Path,
    out: str | Path,
    *,
    network: str | None = None,
    preset: str | None = None,
    config: RunConfig | None = None,
    on_progress: OnProgress = ignore_progress,
    **changes: Any,
) -> RunResult:
    """Refine `network` on `clip` (video, folder or zip of images) and write everything into the folder `out`.

    `network`, `preset` and `changes`, which are further fields of `RunConfig` (such as `seed=1` or `device="cpu"`),
    override those of `config`, or else the defaults. Raises subclasses of `SfmttrError`.
    """
    if network is not None:
        changes["network"] = network
    if preset is not None:
        if preset not in list(Preset):
            raise ConfigError(f"There is no preset {preset!r}; choose {', '.join(Preset)}.")
        changes["preset"] = Preset(preset)
    return pipeline.run(Path(clip), Path(out), replace(config or RunConfig(), **changes), on_progress)
