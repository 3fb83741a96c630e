"""The stand-in for networks of the Hub: its loss, what it writes, and how settings are compared on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import stand_in, transformers
from sfmttr import networks
from sfmttr.config import TrainableScope
from sfmttr.types import DepthKind
from tools.training.batches import Batch, size_of
from tools.training.shards import Scene


def batch(count: int = 2, hw: tuple[int, int] = (28, 42)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((count, 3, *hw), generator=generator)
    log_depth = torch.rand((count, 1, *hw), generator=generator) * 2
    valid = torch.rand((count, 1, *hw), generator=generator) > 0.2
    return Batch(image, log_depth, valid, torch.full((count, 1, 1, 1), 5.0))


def scenes(tmp_path: Path) -> Path:
    """Files as the renderer writes them; of their names, one is held out."""
    rng = np.random.default_rng(0)
    for i in range(40):
        depth = np.broadcast_to(np.linspace(9, 2, 56)[:, None], (56, 84)) + rng.uniform(0, 1)
        np.savez(
            tmp_path / f"room-{i:06d}.npz",
            rgb=rng.integers(0, 255, (2, 56, 84, 3), dtype=np.uint8),
            depth=np.stack([depth] * 2).astype(np.float16),
            fx_px=np.full(2, 70.0, np.float32),
        )
    return tmp_path


def test_scale_and_shift_of_the_truth_are_not_learned() -> None:
    truth = torch.rand((2, 28, 42), generator=torch.Generator().manual_seed(0))
    taught = stand_in.relative(truth)
    assert float(taught.flatten(1).median()) == pytest.approx(stand_in._MIDDLE)
    torch.testing.assert_close(stand_in.relative(7 * truth + 3), taught, rtol=1e-4, atol=1e-4)
    assert bool((taught[truth > truth.median()] >= stand_in._MIDDLE - 0.1).all())  # nearer is more
    one_near = torch.cat([torch.rand(99), torch.tensor([1e3])])[None, None]
    assert float(stand_in.relative(one_near).max()) == 3 * stand_in._MIDDLE


def test_the_loss_is_nothing_where_all_is_right() -> None:
    made = batch()
    right = stand_in.relative(torch.where(made.valid, (-made.log_depth).exp(), 0.0)[:, 0])
    assert stand_in.loss_of(right, made) == 0
    assert stand_in.loss_of(right + 0.5, made) == pytest.approx(0.5)  # no edge is wrong
    assert stand_in.loss_of(2 * right, made) > 0.5


def test_what_is_trained_is_taken_for_a_network_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    monkeypatch.setattr(stand_in, "WIDTH", 48)
    monkeypatch.setattr(
        "sys.argv",
        ["stand_in", str(scenes(data)), "--out", str(out), "--minutes", "0.01", "--batch", "2", "--sizes", "1:1600"],
    )
    stand_in.main()
    network = networks.load(str(out))
    assert network.info.kind is DepthKind.AFFINE_DISPARITY
    assert network.info.licence == "apache-2.0"
    assert network.input_hw((480, 640)) == (196, 266)
    curve = json.loads((out / stand_in.CURVE).read_text())
    assert curve[-1]["step"] >= 1
    assert 0 < curve[-1]["room"] < 10
    assert (out / stand_in.PREVIEW).is_file()

    # What was saved is what was trained: same depth from the folder as from the checkpoint.
    state = torch.load(out / stand_in.CHECKPOINT, weights_only=True)
    model = stand_in.build(0)
    model.load_state_dict(state["average"])
    image = torch.rand((1, 3, 56, 84))
    with torch.no_grad():
        expected = model.eval()(pixel_values=stand_in.normalised(image)).predicted_depth
        torch.testing.assert_close(network(image)[:, 0], expected)


def test_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    monkeypatch.setattr(stand_in, "WIDTH", 48)
    command = ["stand_in", str(scenes(data)), "--out", str(out), "--batch", "2", "--sizes", "1:1600", "--resume"]
    curves: list[list[dict[str, float]]] = []
    for _ in range(2):
        seconds = 2 * curves[0][-1]["seconds"] if curves else 0.3
        monkeypatch.setattr("sys.argv", [*command, "--minutes", str(seconds / 60)])
        stand_in.main()
        curves.append(json.loads((out / stand_in.CURVE).read_text()))
    first, second = curves
    assert second[: len(first)] == first
    assert second[-1]["step"] > first[-1]["step"]


def test_error_of_a_view_is_blind_to_its_scale_and_shift() -> None:
    depth = np.linspace(1, 30, 500)
    assert stand_in._affine_error(3 / depth + 7, depth) == pytest.approx(0, abs=1e-9)
    assert stand_in._affine_error(3 / depth + 7 + 0.05 * np.sin(depth), depth) > 0.01


def test_first_weights_of_patches_are_waves_of_their_own() -> None:
    kernels = stand_in.cosine_patches(192, 14).reshape(192, -1)
    directions = kernels / np.linalg.norm(kernels, axis=1, keepdims=True)
    np.testing.assert_allclose(directions @ directions.T, np.eye(192), atol=1e-5)


def test_sizes_are_multiples_of_the_patch() -> None:
    for aspect in (10 / 3, 4 / 3, 3 / 4):
        h, w = size_of(aspect, 24000, 14)
        assert h % 14 == w % 14 == 0
        assert 0.8 * 24000 < h * w < 1.2 * 24000


def test_views_of_a_scene_keep_depth_and_disparity_apart() -> None:
    model = stand_in.build(0).eval()
    scene = Scene("room-1", np.zeros((1, 128, 416, 3), np.uint8), np.full((1, 128, 416), 4, np.float16), np.ones(1))
    with torch.inference_mode():
        disparity, depth = stand_in._view(model, scene, 0)
    assert disparity.shape == depth.shape == (126, 420)
    np.testing.assert_array_equal(depth, 4)


@pytest.mark.parametrize("text", ["encoder:3e-05", "lora:8:0.001", "decoder:0.0001", "all:1e-05"])
def test_ways_are_written_as_they_are_read(text: str) -> None:
    assert str(transformers.Way.parse(text)) == text


def test_ways_of_lora_have_a_rank() -> None:
    way = transformers.Way.parse("lora:16:3e-3")
    assert (way.trained, way.rank, way.learning_rate) == (TrainableScope.LORA, 16, 3e-3)


def test_the_best_way_is_best_over_all_clips_and_known_on_all() -> None:
    def row(clip: str, way: str, after: float) -> dict[str, object]:
        return {"clip": clip, "way": way, "validation": after, "validation_aligned": 0.2}

    rows = [row("a", "x", 0.1), row("b", "x", 0.1), row("a", "y", 0.02), row("b", "y", 0.2), row("a", "z", 0.001)]
    ratios = transformers.gains(rows, ["a", "b"])
    assert ratios == pytest.approx({"x": 0.5, "y": 0.1**0.5})
    assert transformers.best_way(rows, ["a", "b"]) == "y"
    assert transformers.best_way(rows, ["a"]) == "z"
    with pytest.raises(SystemExit, match="every clip"):
        transformers.best_way(rows, ["a", "b", "c"])
