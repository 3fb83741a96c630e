"""The trust gate's acceptance: real reconstructions of rendered clips, and networks that fit them or know nothing.

In the traffic clip the camera creeps between lorries that move by themselves: structure-from-motion registers every
frame and is wrong. No network is run: its depth is the rendered truth with a smooth error, or has nothing to do with
the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sfmttr.config import RECIPES, Preset, SfmConfig, SplitConfig
from sfmttr.refinement.alignment import align
from sfmttr.refinement.observations import observe, sample_at
from sfmttr.refinement.trust_gate import THRESHOLD, Trust, evaluate_trust, measure_consistency
from sfmttr.sfm import reconstruction
from sfmttr.types import FrameSet, NoModel, SparseModel
from tools.synthetic import RenderedClip, render_room, render_rotation, render_street, render_traffic, write_frames

pytest.importorskip("pycolmap")
pytestmark = pytest.mark.slow

CLIPS: dict[str, Callable[[], RenderedClip]] = {
    "street": render_street,
    "room": render_room,
    "traffic": render_traffic,
    "other traffic": lambda: render_traffic(seed=1),
}


@dataclass(frozen=True)
class Reconstructed:
    clip: RenderedClip
    frames: FrameSet
    model: SparseModel

    def depth_error(self) -> float:
        """Median relative error of the points' depths after the best scale for the clip."""
        logs = []
        for view in self.model.views:
            x, y = np.floor(view.xy_px).astype(int).T
            logs.append(np.log(view.depth / self.clip.depth[view.frame][y, x]))
        log = np.concatenate(logs)
        return float(np.median(np.abs(np.expm1(log - np.median(log)))))


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reconstructed]:
    """A clip by its name, reconstructed as a run would, once; one thread, so that it repeats."""
    made: dict[str, Reconstructed] = {}

    def get(name: str) -> Reconstructed:
        if name not in made:
            folder: Path = tmp_path_factory.mktemp(name.replace(" ", "_"))
            clip = CLIPS[name]()
            frames = write_frames(clip, folder / "frames")
            model = reconstruction.reconstruct(frames, SfmConfig(threads=1), folder / "sfm")
            assert isinstance(model, SparseModel), model
            made[name] = Reconstructed(clip, frames, model)
        return made[name]

    return get


def smooth_log_error(clip: RenderedClip, size: float) -> np.ndarray:
    """(N, H, W) a smooth random field of its own for each frame, of this standard deviation."""
    noise = np.random.default_rng(7).standard_normal(clip.depth.shape)
    fields = np.stack([gaussian_filter(frame, clip.camera.hw[0] / 6) for frame in noise])
    return np.exp(size * fields / fields.std())


def fitting(clip: RenderedClip) -> np.ndarray:
    """Prediction of a network in its domain: right within about 10 %, in a unit of its own."""
    return (2.5 * clip.depth * smooth_log_error(clip, 0.1)).astype(np.float32)


def out_of_domain(clip: RenderedClip) -> np.ndarray:
    """Prediction of a network out of its domain: depth unrelated to the scene."""
    return (10 * smooth_log_error(clip, 0.5)).astype(np.float32)


def trust_in(made: Reconstructed, maps: np.ndarray) -> Trust:
    """The verdict as `pipeline` comes to it."""
    rng = np.random.default_rng(0)
    observations = observe(made.model, len(made.frames), made.frames.hw, SplitConfig(), rng)
    d = sample_at(maps, observations)
    rows = observations.trainable
    alignment = align(observations.z[rows], d[rows], RECIPES[Preset.DEFAULT].align, rng)
    agreed = measure_consistency(observations.frame[rows], observations.z[rows], d[rows], alignment)
    return evaluate_trust(made.model.health, agreed)


@pytest.mark.parametrize("name", ["street", "room"])
def test_open_on_static_clips_with_a_network_that_fits(
    reconstructed: Callable[[str], Reconstructed], name: str
) -> None:
    made = reconstructed(name)
    assert made.depth_error() < 0.03
    trust = trust_in(made, fitting(made.clip))
    assert trust.trusted
    assert trust.consistency > 0.8


@pytest.mark.parametrize("name", ["street", "room"])
def test_open_on_static_clips_with_a_network_far_from_its_domain(
    reconstructed: Callable[[str], Reconstructed], name: str
) -> None:
    made = reconstructed(name)
    trust = trust_in(made, out_of_domain(made.clip))
    assert trust.trusted
    assert trust.consistency < THRESHOLD  # the network does disagree: it is the reconstruction that keeps the gate open
    assert trust.sfm_health > 0.7
    assert made.model.health.halves_disagreement is None  # nothing was in doubt, so nobody paid for it


@pytest.mark.parametrize("name", ["traffic", "other traffic"])
@pytest.mark.parametrize("network", [fitting, out_of_domain])
def test_closed_on_traffic_that_registers_and_is_wrong(
    reconstructed: Callable[[str], Reconstructed], name: str, network: Callable[[RenderedClip], np.ndarray]
) -> None:
    made = reconstructed(name)
    health = made.model.health
    assert health.registered == health.total
    assert made.depth_error() > 0.25
    trust = trust_in(made, network(made.clip))
    assert not trust.trusted
    assert trust.sfm_health < 0.4
    assert health.halves_disagreement is not None
    assert health.halves_disagreement > 0.03  # static clips stay under 0.025: see `benchmarks.trust`
    assert "do not give the same depths" in trust.statement
    assert "traffic" in trust.statement


def test_a_camera_that_turns_in_place_gives_no_model(tmp_path: Path) -> None:
    """Its pairs have no baseline to start from. What registers all the same is poor: `test_sfm` has the figures."""
    frames = write_frames(render_rotation(horizontal_view_deg=62), tmp_path / "frames")
    result = reconstruction.reconstruct(frames, SfmConfig(threads=1), tmp_path / "sfm")
    assert isinstance(result, NoModel)
    assert "turned on the spot" in result.advice
    assert not (tmp_path / "sfm").exists()
