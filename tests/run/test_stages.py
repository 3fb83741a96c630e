"""The table of stages: order, dependencies, and what is outdated when a stage is made anew."""

from __future__ import annotations

import pytest

from sfmttr.run import stages
from sfmttr.run.stages import REFINED_STAGES, STAGES, StageName

REFINED = {"aligned", "refine", "after", "before_fused", "after_fused", "export", "kit"}
OUTDATED = {
    "frames": {"sfm", "disparity", "before", *REFINED, "outputs"},
    "sfm": {*REFINED, "outputs"},
    "disparity": {"before", *REFINED, "outputs"},
    "before": {*REFINED, "outputs"},
    "aligned": {"outputs"},
    "refine": {"after", "before_fused", "after_fused", "export", "kit", "outputs"},
    "after": {"after_fused", "outputs"},
    "before_fused": {"outputs"},
    "after_fused": {"outputs"},
    "outputs": set(),
    "export": {"kit"},
    "kit": set(),
}


@pytest.mark.parametrize("name", OUTDATED)
def test_all_that_is_made_from_a_stage_is_outdated_with_it(name: str) -> None:
    assert set(stages.dependents(StageName(name))) == OUTDATED[name]


def test_only_a_refined_clip_has_what_comes_of_a_reconstruction() -> None:
    assert set(REFINED_STAGES) == REFINED


def test_every_name_is_in_the_table_after_its_dependencies() -> None:
    names = [stage.name for stage in STAGES]
    assert sorted(names) == sorted(StageName)
    for i, stage in enumerate(STAGES):
        assert set(stage.depends_on) <= set(names[:i])
        assert stage.step is None or stage.step in names


def test_labels_and_steps_of_unknown_stages_are_their_names() -> None:
    assert (stages.label("sfm"), stages.label("drives")) == ("structure-from-motion", "drives")
    assert (stages.step("disparity"), stages.step("sfm"), stages.step("start")) == ("before", "sfm", "start")
