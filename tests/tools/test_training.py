"""The tool that trains the bundled network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sfmttr.networks.models.bundled import Bundled
from tools import train_bundled
from tools.training.augment import Appearance, colour_matrix, tone_table
from tools.training.batches import REFERENCE_FOCAL_PX, Batch, BatchSource, cut, size_of, window_of, zoomed
from tools.training.loop import Average, TrainConfig, Training, learning_rate_factor, pixels_at, seeded
from tools.training.losses import LossConfig, gradient_loss, scale_invariant_loss, sky_loss, total_loss
from tools.training.optimizer import make_optimizer, orthogonal
from tools.training.shards import Library, Scene, is_held_out


def scene(name: str, hw: tuple[int, int] = (64, 128), views: int = 3, seed: int = 0) -> Scene:
    """Brightness tells depth, and the top row of blocks is sky: a tiny network can learn that in a few steps."""
    rng = np.random.default_rng(seed)
    blocks = rng.random((views, hw[0] // 16, hw[1] // 16))
    grey = np.kron(blocks, np.ones((1, 16, 16)))
    depth = (2.0 * np.exp(2.0 * grey)).astype(np.float16)
    depth[:, :8] = 0
    rgb = np.repeat((255 * grey)[..., None], 3, axis=-1).astype(np.uint8)
    return Scene(name, rgb, depth, np.full(views, 100.0, np.float32))


def names(count: int, *, held_out: bool) -> list[str]:
    kinds = ("street", "room")
    numbered = (f"{kinds[i % 2]}_{i:04d}" for i in range(10_000))
    return [name for name in numbered if is_held_out(name) == held_out][:count]


def write_shards(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names(4, held_out=False) + names(4, held_out=True)):
        made = scene(name, (64, 128) if name.startswith("street") else (64, 96), seed=i)
        np.savez(folder / f"{name}.npz", rgb=made.rgb, depth=made.depth, fx_px=made.fx_px)


def batch_of(log_depth: Tensor, valid: Tensor) -> Batch:
    count = len(log_depth)
    return Batch(torch.zeros(count, 3, *log_depth.shape[-2:]), log_depth, valid, torch.full((count, 1, 1, 1), 5.0))


# ----------------------------------------------------------------------------------------- losses


def test_scale_invariant_loss_against_its_formula() -> None:
    error = torch.tensor([1.0, 2.0, 3.0, 99.0]).reshape(1, 1, 2, 2)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 2, 2)
    expected = math.sqrt(14 / 3 - 0.85 * 4)
    assert float(scale_invariant_loss(error, valid, 0.85)) == pytest.approx(expected, rel=1e-5)


def test_scale_invariant_loss_ignores_scale_only_at_one() -> None:
    error, valid = torch.randn(2, 1, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    shifted = error + 3.0
    torch.testing.assert_close(scale_invariant_loss(shifted, valid, 1.0), scale_invariant_loss(error, valid, 1.0))
    assert scale_invariant_loss(shifted, valid, 0.85) > scale_invariant_loss(error, valid, 0.85) + 0.3


def test_gradient_loss_is_zero_on_scaled_copies_and_known_on_a_ramp() -> None:
    valid = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    assert float(gradient_loss(torch.full((1, 1, 16, 16), 0.7), valid, 4)) == 0.0
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    # 1, 2, 4 and 8 between neighbours along a row, nothing along a column.
    assert float(gradient_loss(ramp, valid, 4)) == pytest.approx(15 / 8)


def test_losses_do_not_look_where_there_is_no_depth() -> None:
    valid = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    valid[..., 8:, :] = True
    error = torch.where(valid, 0.0, float("nan")).requires_grad_()
    loss = scale_invariant_loss(error, valid, 0.85) + gradient_loss(error, valid, 3)
    loss.backward()
    assert float(loss.detach()) < 0.01
    assert error.grad is not None
    assert torch.isfinite(error.grad).all()


def test_sky_costs_only_when_near() -> None:
    valid = torch.tensor([True, False, False, False]).reshape(1, 1, 1, 4)
    batch = batch_of(torch.zeros(1, 1, 1, 4), valid)
    assert float(sky_loss(torch.tensor([0.0, 3.0, 5.0, 9.0]).reshape(1, 1, 1, 4), batch)) == pytest.approx(2 / 4)


def test_a_right_prediction_of_half_the_size_costs_next_to_nothing() -> None:
    log_depth, valid = torch.full((2, 1, 32, 32), 1.5), torch.ones(2, 1, 32, 32, dtype=torch.bool)
    batch = batch_of(log_depth, valid)
    assert float(total_loss(log_depth[..., ::2, ::2], batch, LossConfig())) < 0.002
    assert float(total_loss(log_depth[..., ::2, ::2] + 1, batch, LossConfig())) == pytest.approx(0.15**0.5, rel=1e-3)


# ---------------------------------------------------------------------------------------- batches


def test_zooming_in_brings_things_nearer_by_that_much() -> None:
    rgb, depth = torch.zeros(1, 20, 40, 3, dtype=torch.uint8), torch.full((1, 20, 40), 12.0)
    fx_px = torch.tensor([REFERENCE_FOCAL_PX])
    for hw, expected in (((20, 40), 12.0), ((40, 80), 6.0), ((10, 20), 24.0)):
        _, log_depth, valid, _ = zoomed(rgb, depth, fx_px, hw)
        assert valid.all()
        torch.testing.assert_close(log_depth.exp(), torch.full((1, 1, *hw), expected))


def test_depth_stays_with_its_pixels() -> None:
    """Brightness is depth in these scenes, so it must be after cutting, mirroring and zooming."""
    rng = np.random.default_rng(0)
    place = scene("street_1", (64, 128), views=8)
    for _ in range(5):
        image, log_depth, valid, _ = cut([(place, view) for view in range(8)], (64, 96), rng)
        zoom = torch.exp(log_depth[valid] - np.log(2.0) - 2.0 * image[:, :1][valid])
        # One factor for all windows of a batch, and exact but where blocks meet.
        spread = (zoom / zoom.median()).log().abs()
        assert float((spread < 0.02).float().mean()) > 0.75
        assert float(spread.median()) < 0.005


def test_sky_and_far_things_are_not_valid() -> None:
    depth = torch.tensor([[[0.0, 10.0, 500.0, 1.0]]])
    _, _, valid, log_far = zoomed(torch.zeros(1, 1, 4, 3, dtype=torch.uint8), depth, torch.tensor([240.0]), (1, 4))
    assert valid.flatten().tolist() == [False, True, False, True]
    assert float(log_far) == pytest.approx(math.log(150.0))


@pytest.mark.parametrize("picture", [(128, 416), (192, 256), (64, 96)])
def test_windows_fit(picture: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for aspect in (10 / 3, 4 / 3, 3 / 4):
        hw = size_of(aspect, 30_720)
        assert all(side % 32 == 0 for side in hw)
        for _ in range(20):
            window = window_of(picture, hw, rng)
            assert 0 < window[0] <= picture[0]
            assert 0 < window[1] <= picture[1]
            assert window[1] / window[0] == pytest.approx(hw[1] / hw[0], rel=0.05)


def test_a_batch_is_a_function_of_seed_and_number() -> None:
    scenes = [scene("street_1"), scene("room_1", (64, 96))]
    first, again, other = (BatchSource(scenes, 6, seed).make(7, 6144) for seed in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.log_depth, again.log_depth)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)
    assert len(first.image) == 6


def test_appearance_stays_a_picture() -> None:
    image = torch.rand(12, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    changed = Appearance(0).apply(image, np.random.default_rng(0))
    assert torch.equal(image, before)
    assert changed.shape == image.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    different = (changed - image).abs().mean((1, 2, 3)) > 0.01
    assert 6 <= int(different.sum()) <= 12


def test_colours_keep_grey_and_tones_keep_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_allclose(colour_matrix(rng) @ np.ones(3), np.ones(3), atol=1e-3)
        assert (np.diff(tone_table(rng), axis=1) >= 0).all()


# ------------------------------------------------------------------------------------------ shards


def test_reads_what_is_there_and_what_comes_later(tmp_path: Path) -> None:
    write_shards(tmp_path / "data")
    library = Library([tmp_path / "data"])
    assert library.refresh() == 8
    assert (len(library.train), len(library.held_out)) == (4, 4)
    (tmp_path / "data" / "half.npz").write_bytes(b"PK\x03\x04")
    assert library.refresh() == 0
    np.savez(tmp_path / "data" / "half.npz", **vars(scene("half")) | {"name": "half"})
    assert library.refresh() == 1


# ---------------------------------------------------------------------------------------- training


def test_orthogonal_evens_out_singular_values() -> None:
    for shape in ((8, 40), (40, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert float(values.min()) > 0.4
        assert float(values.max()) < 1.4


def test_every_parameter_is_in_one_group() -> None:
    network = Bundled(train_bundled.INFO)
    for muon in (True, False):
        groups = make_optimizer(network, 1e-3, 0.1, muon=muon).param_groups
        grouped = [id(p) for group in groups for p in group["params"]]
        assert sorted(grouped) == sorted(map(id, network.parameters()))


def test_schedule_ends_at_zero_and_sizes_change_in_time() -> None:
    factors = [learning_rate_factor(p, 0.1) for p in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert factors[0] < factors[1] < factors[2] == pytest.approx(1.0)
    assert factors[2] > factors[3] > factors[4] == pytest.approx(0.0)
    sizes = ((0.5, 100), (1.0, 200))
    assert [pixels_at(p, sizes) for p in (0.0, 0.5, 1.0)] == [100, 200, 200]


def test_average_follows() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = Average(network, 0.5)
    start = float(network.weight.detach())
    network.weight.data.fill_(start + 1)
    average.update(network, 1000)
    assert float(average.state["weight"]) == pytest.approx(start + 0.5)


CONFIG = TrainConfig(batch=4, steps=12, sizes=((1.0, 2048),), learning_rate=3e-3, average=0.8)


def scenes_to_learn() -> list[Scene]:
    return [scene("street_1"), scene("street_2", seed=1), scene("room_1", (64, 96), seed=2)]


def run(training: Training, steps: int | None = None) -> list[float]:
    losses = []
    for record in training.steps(BatchSource(scenes_to_learn(), CONFIG.batch, CONFIG.seed)):
        losses.append(record.loss)
        if len(losses) == steps:
            break
    return losses


def new_training() -> Training:
    return Training(seeded(0, lambda: Bundled(train_bundled.INFO)), CONFIG)


def test_learns_and_resumes_exactly(tmp_path: Path) -> None:
    whole = new_training()
    losses = run(whole)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    first = new_training()
    before = run(first, 5)
    first.save(tmp_path / "checkpoint.pt", {"note": 1})
    second = new_training()
    assert second.load(tmp_path / "checkpoint.pt") == {"note": 1}
    assert before + run(second) == losses
    for name, value in whole.averaged().state_dict().items():
        assert torch.equal(second.averaged().state_dict()[name], value)


def test_errors_in_the_background_are_raised() -> None:
    class Broken(BatchSource):
        def make(self, number: int, pixels: int) -> Batch:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        next(iter(new_training().steps(Broken(scenes_to_learn(), 2, 0))))


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards(tmp_path / "data")
    monkeypatch.setattr(train_bundled, "CLIPS", {})
    monkeypatch.setattr(train_bundled, "_CHECKED_VIEWS", 2)
    monkeypatch.setattr(train_bundled, "_FINAL_VIEWS", 2)
    shared = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--batch", "2", "--sizes", "1:2048"]
    train_bundled.main(["train", *shared, "--steps", "3", "--threads", "1"])
    train_bundled.main(["train", *shared, "--steps", "5", "--threads", "1", "--resume"])
    assert "going on after step 3" in capsys.readouterr().out
    train_bundled.main(["evaluate", str(tmp_path / "out"), str(tmp_path / "data"), "--threads", "1"])
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("bundled.safetensors", "checkpoint.pt", "curve.csv", "curve.json", "curve.png", "errors.json"),
        *("facts.json", "README.md"),
    }
    assert len((out / "curve.csv").read_text().splitlines()) == 6
    assert set(json.loads((out / "errors.json").read_text())) == {"street", "room"}
    assert "2 street scenes with 6 views" in (out / "README.md").read_text()
    Bundled(train_bundled.INFO).load_state_dict(load_file(out / "bundled.safetensors"))
