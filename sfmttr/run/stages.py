"""The table of stages: names, labels, order and dependencies.

Whatever shows progress, estimates time or deletes outdated results takes stages from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StageName(StrEnum):
    """Name of a stage in the manifest, in progress reports and among the timings."""

    WEIGHTS = "weights"
    FRAMES = "frames"
    SFM = "sfm"
    DISPARITY = "disparity"
    BEFORE = "before"
    ALIGNED = "aligned"
    REFINE = "refine"
    AFTER = "after"
    BEFORE_FUSED = "before_fused"
    AFTER_FUSED = "after_fused"
    COMPARE = "compare"
    OUTPUTS = "outputs"
    EXPORT = "export"
    KIT = "kit"


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: StageName
    label: str
    """A few words for people, in lower case."""
    depends_on: tuple[StageName, ...] = ()
    """Stages whose results it is made from. They come earlier in the table."""
    step: StageName | None = None
    """Stage under which a short list of steps shows it; None: it is such a step itself."""


STAGES = (
    Stage(StageName.WEIGHTS, "fetching weights", step=StageName.FRAMES),
    Stage(StageName.FRAMES, "choosing frames"),
    Stage(StageName.SFM, "structure-from-motion", (StageName.FRAMES,)),
    # Only of networks that predict disparity; "before" is then made from it.
    Stage(StageName.DISPARITY, "disparity before", (StageName.FRAMES,), StageName.BEFORE),
    Stage(StageName.BEFORE, "depth before", (StageName.FRAMES, StageName.DISPARITY)),
    Stage(StageName.ALIGNED, "depth aligned", (StageName.SFM, StageName.BEFORE), StageName.BEFORE),
    Stage(StageName.REFINE, "refining", (StageName.SFM, StageName.BEFORE)),
    Stage(StageName.AFTER, "depth after", (StageName.REFINE,), StageName.OUTPUTS),
    # Fused from "aligned" where there is such a stage; but the settings of "refine" determine that completely, so a
    # lost file of it leaves the fused depth valid.
    Stage(StageName.BEFORE_FUSED, "fusing before", (StageName.REFINE,), StageName.OUTPUTS),
    Stage(StageName.AFTER_FUSED, "fusing after", (StageName.AFTER,), StageName.OUTPUTS),
    Stage(StageName.COMPARE, "comparing", step=StageName.OUTPUTS),  # stored in the report alone
    Stage(
        StageName.OUTPUTS,
        "writing results",
        (StageName.BEFORE, StageName.ALIGNED, StageName.BEFORE_FUSED, StageName.AFTER_FUSED),
    ),
    # The export package, a layer above, records these two in the run folder. They are listed so that a new refinement
    # deletes what was exported from the old one.
    Stage(StageName.EXPORT, "exporting", (StageName.REFINE,)),
    Stage(StageName.KIT, "packing the kit", (StageName.EXPORT,)),
)
_BY_NAME = {stage.name: stage for stage in STAGES}


def label(name: str) -> str:
    """Return the label of a stage; the name itself when it is not in the table."""
    return _BY_NAME[StageName(name)].label if name in _BY_NAME else name


def step(name: str) -> str:
    """Return the step under which a stage is shown; the name itself when it is not in the table."""
    return (_BY_NAME[StageName(name)].step or name) if name in _BY_NAME else name


def dependents(name: StageName) -> tuple[StageName, ...]:
    """Return all stages that are made from `name`, directly or not, in the order of the table."""
    outdated = {name}
    for stage in STAGES:  # dependencies come first
        if outdated.intersection(stage.depends_on):
            outdated.add(stage.name)
    return tuple(stage.name for stage in STAGES if stage.name in outdated and stage.name is not name)


REFINED_STAGES = tuple(name for name in dependents(StageName.SFM) if name is not StageName.OUTPUTS)
"""Stages that only a refined clip has. (Outputs are written for every clip.)"""
