"""The trust gate against the five clips that it was made for (docs/method.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sfmttr.refinement.trust_gate import THRESHOLD, Consistency, consistency_score, evaluate_trust
from sfmttr.sfm.health import HealthFigures, health_score
from sfmttr.types import SfmHealth
from tests.support.fakes import health

# relaxed ratio, rank correlation, spread | reprojection px, step evenness, view (nan: given) | refine?
MEASURED = {
    "drive_0002, METER-XXS": ((0.90, 0.97, 0.05), (0.45, 0.32, 82.6), True),
    "RedKitchen, RT-MonoDepth-S": ((0.53, -0.13, 0.33), (0.82, 0.51, 63.2), True),
    "RedKitchen, METER-XXS (NYU)": ((0.72, -0.30, 0.25), (0.82, 0.51, 63.2), True),
    "traffic, focal length found": ((0.30, -0.07, 0.66), (1.07, 1.12, 135.7), False),
    "traffic, focal length given": ((0.54, -0.30, 0.34), (1.13, 0.94, float("nan")), False),
}


def agreed(relaxed: float, correlation: float, spread: float) -> Consistency:
    return Consistency(relaxed, correlation, spread, np.arange(3), np.ones(3))


def card(figures: tuple[float, float, float]) -> SfmHealth:
    verdict = health_score(HealthFigures(*figures))
    return replace(health(), score=verdict.score, concerns=verdict.concerns, advice=verdict.advice)


@pytest.mark.parametrize(("agreement", "figures", "refine"), MEASURED.values(), ids=MEASURED)
def test_measured_clips(agreement: tuple, figures: tuple, refine: bool) -> None:  # type: ignore[type-arg]
    trust = evaluate_trust(card(figures), agreed(*agreement))
    assert trust.trusted is refine
    assert (trust.statement == "") is refine


POOR, GOOD = agreed(0.3, 0.0, 0.7), agreed(0.9, 0.9, 0.05)


@pytest.mark.parametrize(("score", "agreement", "open_"), [(0.2, POOR, False), (0.9, POOR, True), (0.2, GOOD, True)])
def test_it_takes_both_signs_to_close_the_gate(score: float, agreement: Consistency, open_: bool) -> None:
    assert evaluate_trust(health(score), agreement).trusted is open_


def test_border_is_open() -> None:
    assert evaluate_trust(health(THRESHOLD), POOR).trusted
    assert not evaluate_trust(health(np.nextafter(THRESHOLD, 0)), POOR).trusted


def test_statement_says_what_was_seen_and_what_helps() -> None:
    trust = evaluate_trust(health(0.2), POOR)
    statement = trust.statement
    assert "the camera seems to move in jumps" in statement
    assert "--force" in trust.cli_hint
    assert "--" not in statement
    assert "intrinsics" in statement


def test_agreement_is_a_share() -> None:
    assert consistency_score(agreed(1.0, 1.0, 0.0)) == 1
    assert consistency_score(agreed(0.0, -1.0, float("inf"))) == 0
    assert consistency_score(agreed(0.75, 0.65, 0.20)) == pytest.approx(0.5)


@pytest.mark.parametrize("poor", [agreed(0.3, 1.0, 0.0), agreed(1.0, 0.0, 0.0), agreed(1.0, 1.0, 0.7)])
def test_one_poor_figure_is_disagreement(poor: Consistency) -> None:
    assert consistency_score(poor) == 0
