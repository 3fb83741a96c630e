"""The test-time loop: it learns, repeats, touches nothing it should not, and never makes anything worse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from sfmttr.config import RECIPES, LossForm, Preset, RefineConfig, Schedule, SplitConfig, TrainableScope
from sfmttr.errors import AlignmentError, NetworkError
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.inference import FeatureCache, predict_maps
from sfmttr.refinement.alignment import align
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.losses import point_loss
from sfmttr.refinement.observations import Observations, observe, sample_at
from sfmttr.refinement.schedule import learning_rate_factor, validation_steps
from sfmttr.refinement.targets import Targets, make_targets
from sfmttr.refinement.task import RefineResult, RefineTask
from sfmttr.refinement.trainable import can_cache_stem, resolve_training, trainable_parameters
from sfmttr.types import FrameSet
from sfmttr.utils.device import choose_compute
from tests.support.fakes import TinyNetwork, fit, sparse_model_from_truth
from tools.synthetic import RenderedClip

CPU = choose_compute("cpu")
RECIPE = RECIPES[Preset.DEFAULT]
QUICK = replace(RECIPE.refine, steps=24, num_validations=4, learning_rate=3e-3)


@dataclass(frozen=True)
class Case:
    """A network that half fits a clip, and what the clip's points say."""

    network: TinyNetwork
    images: Tensor
    targets: Targets
    observations: Observations
    scale: float

    def task(self, config: RefineConfig = QUICK, seed: int = 0) -> RefineTask:
        return RefineTask(self.network, self.images, self.targets, config, seed)

    def error_at_test_points(self, weights: dict[str, Tensor] | None = None, factor: float = 1.0) -> float:
        network = copy.deepcopy(self.network)
        if weights is not None:
            network.load_state_dict(weights)
        rows = self.observations.where(self.observations.test)
        predicted = factor * sample_at(predict_maps(network, self.images, CPU, "test"), rows)
        return float(np.median(np.abs(predicted / (self.scale * rows.z) - 1)))  # some of the points are outliers


def case_of(network: TinyNetwork, room: RenderedClip, frames: FrameSet, unit: float = 3.0) -> Case:
    images = torch.cat([network.prepare(rgb) for rgb in room.rgb])
    model = sparse_model_from_truth(room, frames, noise=0.01, outliers=0.1, unit=unit)
    observations = observe(model, len(room), frames.hw, SplitConfig(), np.random.default_rng(0))
    d = sample_at(predict_maps(network, images, CPU, "before"), observations)
    alignment = align(observations.z, d, RECIPE.align, np.random.default_rng(0))
    targets = make_targets(observations.where(alignment.relaxed), alignment, RECIPE.weight)
    return Case(network, images, targets, observations, alignment.scale)


@pytest.fixture(scope="module")
def half_fit(room: RenderedClip) -> TinyNetwork:
    torch.manual_seed(0)
    return fit(TinyNetwork(), room, steps=15)


@pytest.fixture(scope="module")
def case(half_fit: TinyNetwork, room: RenderedClip, room_frames: FrameSet) -> Case:
    return case_of(half_fit, room, room_frames)


def refine(case: Case, config: RefineConfig = QUICK, seed: int = 0, early: FeatureCache | None = None) -> RefineResult:
    refinement = Refinement(replace(case.task(config, seed), feature_cache=early or {}), CPU)
    for _ in refinement.steps():
        pass
    return refinement.result()


@pytest.fixture(scope="module")
def refined(case: Case) -> RefineResult:
    return refine(case)


def test_held_out_error_falls_beyond_what_scale_can_do(case: Case, refined: RefineResult) -> None:
    aligned = case.error_at_test_points(factor=case.targets.network_scale)
    assert case.error_at_test_points(refined.weights) < 0.85 * aligned
    assert not refined.rolled_back
    assert refined.best_step > 0


@pytest.mark.parametrize("preset", list(Preset))
def test_every_preset_learns(case: Case, preset: Preset) -> None:
    config = replace(RECIPES[preset].refine, steps=20, learning_rate=1e-3)
    result = refine(case, config)
    assert result.validation[-1][1] < result.validation[0][1]


def test_input_network_is_bit_equal_afterwards(case: Case) -> None:
    before = state_dict_cpu(case.network)
    flags = [p.requires_grad for p in case.network.parameters()]
    refine(case, replace(QUICK, steps=3))
    for name, value in state_dict_cpu(case.network).items():
        assert torch.equal(value, before[name]), name
    assert [p.requires_grad for p in case.network.parameters()] == flags


@pytest.mark.parametrize(
    "trained", [part for part in TrainableScope if part is not TrainableScope.LORA]
)  # test_lora.py
def test_only_the_chosen_part_moves(case: Case, trained: TrainableScope) -> None:
    result = refine(case, replace(QUICK, steps=6, trained=trained, learning_rate=1e-3))
    original = state_dict_cpu(case.network)
    moved = {name for name, value in result.weights.items() if not torch.equal(value, original[name])}
    encoder = {name for name, _ in case.network.encoder_parameters()}
    everything = {name for name, _ in case.network.named_parameters()}
    early = {name for name, _ in case.network.stem_parameters()}
    chosen = {
        TrainableScope.ENCODER: encoder,
        TrainableScope.ENCODER_BUT_STEM: encoder - early,
        TrainableScope.DECODER: everything - encoder,
        TrainableScope.ALL_BUT_STEM: everything - early,
        TrainableScope.ALL: everything,
    }[trained]
    assert not result.rolled_back
    assert moved <= chosen
    assert len(moved) > len(chosen) / 2


def test_keeping_early_features_changes_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, steps=6, trained=TrainableScope.ALL_BUT_STEM)
    kept = refine(case, config)
    early, rest = TinyNetwork.stem_features, TinyNetwork.forward_from_stem
    monkeypatch.setattr(TinyNetwork, "stem_features", lambda _, image: (image,))
    monkeypatch.setattr(TinyNetwork, "forward_from_stem", lambda self, image: rest(self, *early(self, image)))
    computed = refine(case, config)
    np.testing.assert_allclose(kept.losses, computed.losses, rtol=1e-5)


def test_early_features_that_are_known_are_not_computed_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, steps=6, trained=TrainableScope.ALL_BUT_STEM)
    early: FeatureCache = {}
    maps = predict_maps(case.network, case.images, CPU, "before", early=early)
    np.testing.assert_allclose(maps, predict_maps(case.network, case.images, CPU, "before"), rtol=1e-5)
    assert list(early) == list(range(len(case.images)))
    computed = refine(case, config)
    monkeypatch.setattr(TinyNetwork, "stem_features", None)
    known = refine(case, config, early=early)
    np.testing.assert_allclose(known.losses, computed.losses, rtol=1e-5)


def test_early_features_are_kept_where_the_early_part_stays(case: Case) -> None:
    for trained in TrainableScope:
        moves = trained in (TrainableScope.ALL, TrainableScope.ENCODER, TrainableScope.LORA)
        assert can_cache_stem(case.network, replace(QUICK, trained=trained)) is not moves, trained


@pytest.mark.parametrize("trained", [TrainableScope.ENCODER_BUT_STEM, TrainableScope.ALL])
def test_frames_of_a_step_together_or_one_by_one_are_the_same(
    case: Case, trained: TrainableScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(QUICK, steps=6, frames_per_step=3, trained=trained)
    together = refine(case, config)
    sizes = set()
    rest = TinyNetwork.forward_from_stem

    def watched(self: TinyNetwork, *features: Tensor) -> Tensor:
        sizes.add(len(features[0]))
        return rest(self, *features)

    monkeypatch.setattr(TinyNetwork, "forward_from_stem", watched)
    monkeypatch.setattr(TinyNetwork, "max_batch_size", 1)
    one_by_one = refine(case, config)
    assert sizes == {1}
    np.testing.assert_allclose(one_by_one.losses, together.losses, rtol=1e-4)
    np.testing.assert_allclose(np.array(one_by_one.validation), np.array(together.validation), rtol=1e-4)


def test_a_step_of_several_frames_is_larger_by_the_root_of_their_number(case: Case) -> None:
    own = replace(QUICK, learning_rate=None, frames_per_step=1)
    (first, *_) = case.network.finetune_settings
    assert resolve_training(own, case.network) == first
    assert resolve_training(replace(own, frames_per_step=4), case.network).learning_rate == 2 * first.learning_rate
    asked_for = replace(own, frames_per_step=4, learning_rate=1e-5)
    assert resolve_training(asked_for, case.network).learning_rate == 1e-5


def test_statistics_of_batch_norm_never_move(case: Case, refined: RefineResult) -> None:
    original = state_dict_cpu(case.network)
    statistics = [name for name in original if "running" in name or "num_batches" in name]
    assert len(statistics) == 6
    for name in statistics:
        assert torch.equal(refined.weights[name], original[name])


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_absurd_learning_rate_is_rolled_back(case: Case, rate: float) -> None:
    result = refine(case, replace(QUICK, steps=6, learning_rate=rate))
    assert result.rolled_back
    assert result.best_step == 0
    assert result.steps == 6
    for name, value in state_dict_cpu(case.network).items():
        assert torch.equal(result.weights[name], value)


def test_a_gain_that_is_only_scale_is_no_gain(room: RenderedClip, case: Case) -> None:
    # Step 0 is the unrefined network times its best scale, so the bar is not the network as it came.
    first_step, bar = refine(case, replace(QUICK, steps=1)).validation[0]
    unscaled = refine(replace(case, targets=replace(case.targets, network_scale=1.0)), replace(QUICK, steps=1))
    assert first_step == 0
    assert bar < unscaled.validation[0][1]


def test_same_seed_same_weights(case: Case, refined: RefineResult) -> None:
    again = refine(case)
    assert again.losses == refined.losses
    assert all(torch.equal(again.weights[name], value) for name, value in refined.weights.items())
    assert refine(case, seed=1).losses != refined.losses


@pytest.mark.parametrize("preset", [Preset.DEFAULT, Preset.PAPER])
def test_the_unit_of_sfm_does_not_matter(
    half_fit: TinyNetwork, room: RenderedClip, room_frames: FrameSet, preset: Preset
) -> None:
    config = replace(RECIPES[preset].refine, steps=8)
    results = [refine(case_of(half_fit, room, room_frames, unit), config) for unit in (1.0, 50.0)]
    np.testing.assert_allclose(results[0].losses, results[1].losses, rtol=1e-4)
    for name, value in results[0].weights.items():
        torch.testing.assert_close(results[1].weights[name], value, rtol=1e-3, atol=1e-5)


def test_stopping_early_keeps_the_best_so_far(case: Case) -> None:
    refinement = Refinement(case.task(), CPU)
    seen = list(islice(refinement.steps(), 13))
    result = refinement.result()
    assert [step.index for step in seen] == list(range(1, 14))
    assert result.steps == len(result.losses) == 13
    assert [step for step, _ in result.validation] == [0, 6, 12]
    assert result.best_step in (6, 12)


def test_before_any_step_the_result_is_the_original(case: Case) -> None:
    result = Refinement(case.task(), CPU).result()
    assert (result.steps, result.best_step, result.rolled_back) == (0, 0, True)


def test_steps_say_what_a_page_draws(case: Case, refined: RefineResult) -> None:
    refinement = Refinement(case.task(), CPU)
    steps = list(refinement.steps())
    assert {step.total for step in steps} == {QUICK.steps}
    assert [step.index for step in steps if step.validation is not None] == [6, 12, 18, 24]
    assert [step.loss for step in steps] == list(refinement.result().losses)
    assert refinement.depth(2).shape == (24, 32)


def test_a_network_without_such_parameters_is_refused(case: Case) -> None:
    class NoEncoder(TinyNetwork):
        def encoder_parameters(self):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(NetworkError, match="no encoder parameters"):
        trainable_parameters(NoEncoder(), TrainableScope.ENCODER)


@pytest.mark.parametrize("without", ["train", "validation"])
def test_it_takes_points_to_learn_from_and_to_check_with(case: Case, without: str) -> None:
    targets = replace(case.targets, **{without: ()})
    with pytest.raises(AlignmentError, match="longer clip"):
        Refinement(replace(case.task(), targets=targets), CPU)


def test_points_of_no_weight_cannot_choose_a_step(case: Case) -> None:
    weightless = tuple(replace(t, weight=np.zeros_like(t.weight)) for t in case.targets.validation)
    result = refine(replace(case, targets=replace(case.targets, validation=weightless)), replace(QUICK, steps=2))
    assert result.rolled_back


# ------------------------------------------------------------------------------------ pure pieces


def test_validation_steps_are_even_and_end_with_the_last() -> None:
    assert validation_steps(RefineConfig(steps=200, num_validations=5)) == {40, 80, 120, 160, 200}
    assert validation_steps(RefineConfig(steps=3, num_validations=5)) == {1, 2, 3}
    assert validation_steps(RefineConfig(steps=100, num_validations=0)) == {100}


def test_constant_rate() -> None:
    assert {learning_rate_factor(step, RefineConfig()) for step in range(200)} == {1.0}


def test_one_cycle_rises_then_falls_to_zero() -> None:
    config = RefineConfig(steps=200, schedule=Schedule.ONE_CYCLE, warm_up=0.15)
    factors = np.array([learning_rate_factor(step, config) for step in range(200)])
    top = int(np.argmax(factors))
    assert abs(top - 30) <= 1
    assert (np.diff(factors[: top + 1]) > 0).all()
    assert (np.diff(factors[top:]) < 0).all()
    assert factors[top] == pytest.approx(1, abs=0.02)
    assert factors[0] < 0.02
    assert 0 < factors[-1] < 0.001


def test_one_cycle_without_warm_up_starts_at_the_top() -> None:
    config = RefineConfig(steps=100, schedule=Schedule.ONE_CYCLE, warm_up=0.0)
    assert learning_rate_factor(0, config) == pytest.approx(1, abs=0.001)


CLOSED_FORMS: dict[LossForm, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    LossForm.ABSOLUTE: lambda d, r: np.abs(r - d),
    LossForm.RELATIVE: lambda d, r: np.abs(r - d) / r,
    LossForm.LOG: lambda d, r: np.abs(np.log(r / d)),
}


@pytest.mark.parametrize("form", list(LossForm))
def test_losses_in_closed_form(form: LossForm) -> None:
    rng = np.random.default_rng(0)
    d, r, w = rng.uniform(1, 9, (3, 50))
    tensors = (torch.from_numpy(values) for values in (d, r, w))
    assert float(point_loss(*tensors, form)) == pytest.approx(np.mean(w * CLOSED_FORMS[form](d, r)))


def test_fakes_keep_the_contract() -> None:
    network: DepthNetwork = TinyNetwork()
    assert network.input_hw((720, 1280)) == (96, 160)
    assert network.input_hw((20, 3000)) == (16, 160)


# ------------------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("trained", [TrainableScope.ENCODER_BUT_STEM, TrainableScope.ALL])
def test_pieces_give_what_the_whole_gives(case: Case, trained: TrainableScope) -> None:
    config = replace(QUICK, trained=trained)
    whole = refine(case, config)
    checkpoint = None
    for length in (5, 10, 100):
        piece = Refinement(case.task(config), CPU, checkpoint)
        steps = list(islice(piece.steps(), length))
        assert steps[0].index == (checkpoint.step if checkpoint else 0) + 1
        checkpoint = pickle.loads(pickle.dumps(piece.checkpoint()))
    result = piece.result()
    assert (result.losses, result.validation, result.best_step) == (whole.losses, whole.validation, whole.best_step)
    assert all(torch.equal(value, whole.weights[name]) for name, value in result.weights.items())


def test_there_is_nothing_to_go_on_from_before_the_first_step(case: Case) -> None:
    with pytest.raises(ValueError, match="no step"):
        Refinement(case.task(), CPU).checkpoint()
