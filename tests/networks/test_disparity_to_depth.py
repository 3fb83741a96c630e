"""Networks that give inverse depth up to scale and shift: alignment, the guard, and whole runs with planted answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr import networks
from sfmttr.config import (
    RECIPES,
    AlignConfig,
    GroundTruthConfig,
    LossForm,
    OutputConfig,
    Preset,
    RunConfig,
    VideoConfig,
)
from sfmttr.errors import AlignmentError
from sfmttr.evaluation.comparison import Column
from sfmttr.io import depth_maps
from sfmttr.io.json_files import to_plain
from sfmttr.networks import catalog
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.disparity_to_depth import DisparityNetwork
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.inverse_depth import InverseDepth, depth_of, unshifted_depth
from sfmttr.refinement.alignment import align_disparity, relaxed_inliers
from sfmttr.refinement.losses import point_loss
from sfmttr.run import pipeline
from sfmttr.run.evaluate import evaluate_run
from sfmttr.run.report import ComparisonReport
from sfmttr.types import HW, DepthKind
from tests.support.fakes import FakeSfm
from tools.synthetic import RenderedClip, write_frames, write_ground_truth

# ---------------------------------------------------------------------------------------- the guard


def test_depth_is_one_over_inverse_depth_and_its_tangent_below_the_floor() -> None:
    inverse = np.array([4.0, 1.0, 0.5, 0.25, 0.0, -2.0])
    # tangent of 1 / q at 0.5: 2 - 4 (q - 0.5)
    np.testing.assert_allclose(depth_of(inverse, 0.5), [0.25, 1.0, 2.0, 3.0, 4.0, 12.0])
    assert torch.equal(depth_of(torch.from_numpy(inverse), 0.5), torch.from_numpy(depth_of(inverse, 0.5)))


def test_the_guard_never_stops_a_gradient() -> None:
    inverse = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    depth = depth_of(inverse, 0.5)
    assert bool((depth > 0).all())
    assert bool((depth.diff() < 0).all())
    (gradient,) = torch.autograd.grad(depth.sum(), inverse)
    expected = torch.where(inverse < 0.5, -4.0, -1 / inverse**2)
    torch.testing.assert_close(gradient, expected)


def test_inverse_depth_is_guarded_when_nothing_is_near() -> None:
    for disparity in (np.zeros((3, 4), np.float32), np.full((3, 4), -1, np.float32)):
        depth = unshifted_depth(disparity)
        assert depth.dtype == np.float32
        assert np.isfinite(depth).all()
        assert (depth > 0).all()


def test_losses_of_inverse_depth() -> None:
    depth, reference, weight = torch.tensor([2.0, 4.0]), torch.tensor([4.0, 2.0]), torch.tensor([1.0, 0.5])
    loss = {form: float(point_loss(depth, reference, weight, form, in_inverse_depth=True)) for form in LossForm}
    assert loss[LossForm.ABSOLUTE] == pytest.approx((0.25 + 0.5 * 0.25) / 2)
    assert loss[LossForm.RELATIVE] == pytest.approx((1.0 + 0.5 * 0.5) / 2)
    assert loss[LossForm.LOG] == pytest.approx(float(point_loss(depth, reference, weight, LossForm.LOG)))


# ---------------------------------------------------------------------------------------- alignment

ALIGNS = {str(preset): RECIPES[preset].align for preset in (Preset.PAPER, Preset.DEFAULT)}


def planted(slope: float, shift: float, unit: float, seed: int, outliers: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """(M,) SfM depth in units of `unit` metres, 0.4 of it wrong, and disparity with noise of 2 %."""
    rng = np.random.default_rng(seed)
    z = np.exp(rng.uniform(np.log(2), np.log(60), 4000))
    disparity = slope / z * np.exp(rng.normal(0, 0.02, len(z))) + shift
    wrong = rng.random(len(z)) < outliers
    z[wrong] *= np.exp(rng.uniform(np.log(0.2), np.log(5), wrong.sum()))
    return z / unit, disparity


@pytest.mark.parametrize("config", ALIGNS.values(), ids=ALIGNS)
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("slope", "shift"), [(3.0, 1.5), (200.0, -20.0), (0.05, 0.0)])
def test_planted_scale_and_shift_are_found(config: AlignConfig, unit: float, slope: float, shift: float) -> None:
    for seed in range(5):
        z, disparity = planted(slope, shift, unit, seed)
        alignment = align_disparity(z, disparity, config, np.random.default_rng(seed))
        assert alignment.inverse is not None
        assert alignment.scale == pytest.approx(unit / slope, rel=0.005)
        # Of a shift of zero there is no share: of the inverse depth that lies in the middle of the clip's.
        assert alignment.inverse.shift == pytest.approx(shift, abs=0.005 * slope / 11)
        assert 0.6 < alignment.relaxed_inlier_ratio < 0.85
        assert alignment.network_scale == pytest.approx(1, abs=0.02)


def test_without_noise_the_answer_is_exact() -> None:
    z = np.linspace(2, 60, 500)
    z[::3] *= 3
    alignment = align_disparity(z, 7 / np.linspace(2, 60, 500) - 0.3, AlignConfig(), np.random.default_rng(0))
    assert alignment.inverse is not None
    assert alignment.scale == pytest.approx(1 / 7, rel=1e-9)
    assert alignment.inverse.shift == pytest.approx(-0.3, abs=1e-9)
    assert not alignment.strict[::3].any()
    assert alignment.strict[1::3].all()


def test_scaling_the_reconstruction_changes_nothing_but_the_scale() -> None:
    z, disparity = planted(3.0, 1.5, 1.0, 0)
    one, thousand = (align_disparity(k * z, disparity, AlignConfig(), np.random.default_rng(0)) for k in (1.0, 1024.0))
    assert one.scale == pytest.approx(1024 * thousand.scale, rel=1e-9)
    np.testing.assert_array_equal(one.relaxed, thousand.relaxed)
    assert one.inverse is not None
    assert thousand.inverse is not None
    assert one.inverse.shift == pytest.approx(thousand.inverse.shift, abs=1e-9)
    assert one.inverse.floor == pytest.approx(thousand.inverse.floor)


def test_relaxed_inliers_are_judged_in_inverse_depth() -> None:
    z, d = np.array([10.0, 10.0, 10.0, 10.0]), np.array([19.0, 21.0, 7.0, 6.5])
    # Inverse depths relative to 1 / 10: 0.53, 0.48, 1.43, 1.54
    found = relaxed_inliers(z, d, 1.0, AlignConfig(), in_inverse_depth=True)
    np.testing.assert_array_equal(found, [True, False, True, False])


def test_a_crowd_at_one_depth_does_not_make_a_line() -> None:
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.uniform(9.7, 10.3, 3000), np.exp(rng.uniform(np.log(3), np.log(40), 2000))])
    disparity = (5 / z) * np.exp(rng.normal(0, 0.1, len(z))) + 2
    alignment = align_disparity(z, disparity, AlignConfig(), rng)
    assert alignment.inverse is not None
    assert alignment.scale == pytest.approx(1 / 5, rel=0.05)
    assert alignment.inverse.shift == pytest.approx(2, abs=0.03)


def test_inliers_by_the_printed_test_that_are_nowhere_near_say_so() -> None:
    # Of inverse depths this small, the printed threshold takes for right what is off by a hundred times as much.
    z = np.linspace(1e6, 3e6, 200)
    disparity = 50 / z + np.where(np.arange(200) % 2, 2e-4, -2e-4)
    with pytest.raises(AlignmentError, match="No sparse point is near the predicted depth"):
        align_disparity(z, disparity, ALIGNS["paper"], np.random.default_rng(0))


@pytest.mark.parametrize("config", ALIGNS.values(), ids=ALIGNS)
def test_a_network_that_makes_too_little_of_far_depth_can_learn_it(config: AlignConfig) -> None:
    z = np.exp(np.random.default_rng(0).uniform(np.log(2), np.log(60), 4000))
    disparity = 40 * (1 / z) ** 1.6  # a line through this meets zero depth before zero disparity
    alignment = align_disparity(z, disparity, config, np.random.default_rng(0))
    assert alignment.inverse is not None
    assert alignment.inverse.depth(np.zeros(1, np.float32))[0] > alignment.scale * 60
    below = align_disparity(z, disparity - 0.1, config, np.random.default_rng(0))  # it can say less than 0, too
    assert below.inverse is not None
    assert below.inverse.shift < 0


@pytest.mark.parametrize(
    ("z", "disparity", "sentence"),
    [
        (np.arange(1, 6.0), np.arange(1, 6.0), "Only 5 sparse points"),
        (np.arange(1, 101.0), np.full(100, np.nan), "not finite"),
        (np.arange(1, 101.0), np.arange(1, 101.0), "no scale and shift"),
        (np.arange(1, 101.0), np.ones(100), "no scale and shift"),
        (np.full(100, 7.0), np.ones(100), "no scale and shift"),
    ],
    ids=["few", "not finite", "depth for disparity", "constant", "one depth"],
)
def test_what_cannot_be_aligned_says_so(z: np.ndarray, disparity: np.ndarray, sentence: str) -> None:
    with pytest.raises(AlignmentError, match=sentence):
        align_disparity(z, disparity, AlignConfig(), np.random.default_rng(0))


# ------------------------------------------------------------------------------- runs with an oracle

ORACLE = "oracle-test"
INFO = NetworkInfo(ORACLE, DepthKind.AFFINE_DISPARITY, "CC0-1.0", "https://example.org/oracle", "knows the truth")
_PATCH = 8


class Oracle(DepthNetwork):
    """Recognises a frame of its clip, knows its true depth, and gives `slope / depth + shift`, less what its encoder
    gets wrong: a smooth field, that it could learn to leave out."""

    clip: RenderedClip
    slope, shift, error = 40.0, 10.0, 0.0

    def __init__(self, info: NetworkInfo = INFO) -> None:
        super().__init__()
        self.info = info
        self.register_buffer("seen", self._small(torch.from_numpy(self.clip.rgb).permute(0, 3, 1, 2) / 255.0))
        self.register_buffer("true", torch.from_numpy(self.clip.depth)[:, None])
        self.encoder = nn.Linear(6, 1, bias=False)
        nn.init.constant_(self.encoder.weight, self.error)  # type: ignore[arg-type]

    @staticmethod
    def _small(image: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(image, _PATCH).flatten(1)

    def input_hw(self, hw: HW) -> HW:
        return hw

    def forward(self, image: Tensor) -> Tensor:
        frame = torch.cdist(self._small(image), self.seen).argmin(1)  # type: ignore[arg-type]
        depth = functional.interpolate(self.true[frame], image.shape[-2:], mode="bilinear")  # type: ignore[index]
        y = torch.linspace(-1, 1, image.shape[-2])[:, None].expand(image.shape[-2:])
        x = torch.linspace(-1, 1, image.shape[-1]).expand(image.shape[-2:])
        waves = torch.stack(
            [f(torch.pi * k * v) for v in (x, y) for f, k in ((torch.sin, 0.5), (torch.cos, 1), (torch.sin, 1))]
        )
        field = self.encoder(waves.permute(1, 2, 0))[..., 0]
        return self.slope / depth * (1 + field) + self.shift

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.named_parameters())


@pytest.fixture
def oracle_run(room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs with ground truth of an `Oracle` whose encoder is wrong by as much as is asked for."""
    write_frames(room, tmp_path / "clip")
    truth = write_ground_truth(room, tmp_path / "truth")
    for i in range(len(room)):
        (truth / f"{i}.png").rename(truth / f"{i:06d}.png")
    FakeSfm(room, settings={"noise": 0.01, "outliers": 0.05}).install(monkeypatch)
    monkeypatch.setattr(Oracle, "clip", room, raising=False)
    config = RunConfig(
        network=ORACLE,
        device="cpu",
        video=VideoConfig(duplicate_threshold=0.0),
        output=OutputConfig(pictures=False, clouds=False),
        ground_truth=GroundTruthConfig(tmp_path / "truth"),
    )

    def run(error: float, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr(Oracle, "error", error)
        monkeypatch.setitem(catalog.ENTRIES, ORACLE, catalog.NetworkEntry(INFO, 6, (), Oracle))
        monkeypatch.setattr(Oracle, "merge_checkpoints", lambda self, files: self.state_dict())
        pipeline.run(tmp_path / "clip", tmp_path / "run", replace(config, **changes))
        return json.loads((tmp_path / "run" / "report.json").read_text())

    run.folder = tmp_path / "run"  # type: ignore[attr-defined]
    return run


def test_alignment_alone_makes_depth_of_distorted_inverse_depth(oracle_run: Any, room: RenderedClip) -> None:
    report = oracle_run(0.0)
    truth = report["comparison"]["ground_truth"]
    assert truth["aligned"]["abs_rel"] < 0.01
    assert truth["before"]["abs_rel"] > 0.1  # without the shift it is no depth
    assert report["kind"] == "scale_invariant"
    assert report["alignment"]["shift"] == pytest.approx(Oracle.shift, abs=0.1)
    assert report["comparison"]["held_out"]["aligned"]["abs_rel"] < 0.05  # a twentieth of the points is wrong itself


@pytest.mark.parametrize("preset", [Preset.PAPER, Preset.DEFAULT])
def test_refinement_at_least_halves_what_a_smooth_error_leaves(oracle_run: Any, preset: Preset) -> None:
    rate = {"learning_rate": 3e-3} if preset is Preset.DEFAULT else {"learning_rate": 1e-3}
    report = oracle_run(0.08, preset=preset, steps=150, **rate)
    errors = report["comparison"]["ground_truth"]
    assert errors["after"]["abs_rel"] <= 0.5 * errors["aligned"]["abs_rel"]
    held_out = report["comparison"]["held_out"]  # of which some are wrong themselves
    assert held_out["after"]["abs_rel"] < 0.6 * held_out["aligned"]["abs_rel"]
    assert report["refinement"]["rolled_back"] is False


def test_what_a_run_leaves_behind_gives_depth_again(oracle_run: Any, room: RenderedClip) -> None:
    report, folder = oracle_run(0.08, steps=20), oracle_run.folder
    network = networks.load_refined(folder / "refined.safetensors")
    assert isinstance(network, DisparityNetwork)
    assert network.info.kind is DepthKind.SCALE_INVARIANT
    assert float(network.shift) == pytest.approx(report["alignment"]["shift"])
    with torch.inference_mode():
        depth = network(network.prepare(room.rgb[3]))[0, 0].numpy()
    np.testing.assert_allclose(depth, depth_maps.read_maps(folder / "depth" / "after.npz")[3], rtol=1e-5)
    stored = depth_maps.read_aligned(folder / "depth", report["alignment"]["network_scale"])
    said = depth_maps.read_maps(folder / "depth" / "disparity.npz")
    inverse = InverseDepth(report["alignment"]["shift"], float(network.floor))
    np.testing.assert_allclose(stored, report["alignment"]["network_scale"] * inverse.depth(said), rtol=1e-5)
    evaluated = evaluate_run(folder, GroundTruthConfig(folder.parent / "truth")).comparisons["ground_truth"]
    assert to_plain(ComparisonReport.of(evaluated)) == report["comparison"]["ground_truth"]


def test_a_second_call_makes_nothing_anew(oracle_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = oracle_run(0.08, steps=20)
    monkeypatch.setattr(pipeline.LocalBackend, "refine", None)
    monkeypatch.setattr(pipeline.LocalBackend, "predict", None)
    second = oracle_run(0.08, steps=20)
    assert second["comparison"] == first["comparison"]


def test_without_a_model_disparity_is_taken_for_inverse_depth(
    oracle_run: Any, room: RenderedClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSfm(room, found=False).install(monkeypatch)
    report = oracle_run(0.0)
    assert report["refinement"] is None
    assert report["kind"] == "scale_invariant"
    maps = depth_maps.read_maps(oracle_run.folder / "depth" / "before.npz")
    np.testing.assert_allclose(maps[2], 1 / (40 / room.depth[2] + 10), rtol=1e-4)
    assert not (oracle_run.folder / "depth" / f"{Column.ALIGNED}.npz").exists()
