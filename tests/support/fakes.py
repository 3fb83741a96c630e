"""Stand-ins that make a whole run take a second: a tiny network, and reconstructions read off rendered depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.config import SfmConfig
from sfmttr.geometry import grid_from_pixels, inverse_rigid, project, sample_numpy, transform, unproject
from sfmttr.networks import catalog
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.weights import WeightFile
from sfmttr.sfm import reconstruction
from sfmttr.sfm.sparse import largest_angles_deg
from sfmttr.types import (
    HW,
    DepthKind,
    FrameSet,
    NoModel,
    NoModelReason,
    OnProgress,
    Progress,
    SfmAttempt,
    SfmHealth,
    SparseModel,
    SparsePoints,
    SparseView,
    ignore_progress,
)
from tools.synthetic import RenderedClip

TINY = "tiny-test"
TINY_INFO = NetworkInfo(TINY, DepthKind.SCALE_INVARIANT, "CC0-1.0", "https://example.org/tiny", "for tests alone")

# ---------------------------------------------------------------------------------------- network


class TinyNetwork(DepthNetwork):
    """Three convolutions down, two up; depth is positive by an exponential. BatchNorm is there to be left alone."""

    def __init__(self, info: NetworkInfo = TINY_INFO) -> None:
        super().__init__()
        self.info = info
        self.encoder = nn.Sequential(
            *(nn.Conv2d(5, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()),
            *(nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU()),
            *(nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU()),
        )
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(24, 16, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(16, 1, 3, 1, 1)

    def input_hw(self, hw: HW) -> HW:
        factor = min(1.0, 160 / max(hw))
        return max(16, round(hw[0] * factor / 16) * 16), max(16, round(hw[1] * factor / 16) * 16)

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_from_stem(*self.stem_features(image))

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        # Rows and columns counted, not taken from the shape, which an exported graph would have built in.
        one = torch.ones_like(image[:, :1])
        y, x = ((2 * i - 2) / (last - 1) - 1 for i, last in _counted(one))
        return (self.encoder[:3](torch.cat((image - 0.5, x, y), dim=1)),)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder[3:](features[0]))).exp()

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.named_parameters() if name[:10] in ("encoder.0.", "encoder.1."))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.named_parameters() if name.startswith("encoder."))


def _counted(one: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows, then columns, of pictures of ones, from 1 on; and their number."""
    for axis in (2, 3):
        i = one.cumsum(axis)
        yield i, i.narrow(axis, -1, 1)


def fit(network: TinyNetwork, clip: RenderedClip, steps: int = 60, unit: float = 1.0) -> TinyNetwork:
    """Train `network` on a clip's true depth, in units of `unit` metres: the more steps, the better it fits."""
    images = torch.cat([network.prepare(rgb) for rgb in clip.rgb])
    true = torch.from_numpy(clip.depth)[:, None] / unit
    network.train()
    size = network(images[:1]).shape[-2:]
    target = functional.interpolate(true, size, mode="area").log()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(images).log() - target).abs().mean().backward()
        optimizer.step()
    return network.eval()


def register_tiny(
    patch: pytest.MonkeyPatch, folder: Path, state: Mapping[str, Tensor] | None = None, kind: DepthKind | None = None
) -> str:
    """Make `TINY` a network like any other, with its weights in `folder`; gives its name."""
    folder.mkdir(parents=True, exist_ok=True)
    info = TINY_INFO if kind is None else replace(TINY_INFO, kind=kind)
    torch.save(dict(state_dict_cpu(TinyNetwork()) if state is None else state), folder / "tiny.pt")
    files = (WeightFile("tiny.pt", None, None, info.source),)
    count = sum(p.numel() for p in TinyNetwork().parameters())
    patch.setitem(catalog.ENTRIES, TINY, catalog.NetworkEntry(info, count, files, TinyNetwork))
    patch.setenv("SFMTTR_WEIGHTS", str(folder))
    return TINY


# -------------------------------------------------------------------------- structure-from-motion


def health(score: float = 0.9, *, registered: int = 12, total: int = 12, points: int = 500) -> SfmHealth:
    """A card whose verdict is `score`."""
    concerns = () if score >= 0.5 else ("the camera seems to move in jumps",)
    return SfmHealth(
        registered=registered,
        total=total,
        points=points,
        mean_track_length=5.0,
        mean_reprojection_error_px=0.4,
        focal_px=100.0,
        focal_given=False,
        horizontal_view_deg=62.0,
        median_triangulation_angle_deg=8.0,
        step_evenness=0.2,
        degenerate_pair_ratio=0.0,
        score=score,
        concerns=concerns,
        advice="" if score >= 0.5 else "Film a stretch without traffic.",
    )


def sparse_model_from_truth(
    clip: RenderedClip,
    frames: FrameSet,
    noise: float = 0.0,
    outliers: float = 0.0,
    rng: np.random.Generator | None = None,
    *,
    points: int = 600,
    unit: float = 1.0,
    score: float = 0.9,
) -> SparseModel:
    """Return a perfect reconstruction of `frames`, degraded as asked for.

    `noise`: standard deviation of log depth by observation. `outliers`: share of the points whose depth is wrong by a
    factor of 2.5 to 5 everywhere. `unit`: metres in one SfM unit. Points are seen wherever nothing hides them.
    """
    rng = rng or np.random.default_rng(0)
    camera = clip.camera.scaled_to(frames.hw)
    xyz = _surface_points(clip, frames, points, rng)
    wrong = np.where(rng.random(points) < outliers, rng.uniform(2.5, 5, points), 1.0)
    views = []
    for frame, number in enumerate(frames.numbers):
        pose = clip.cam_from_world[number]
        in_cam = transform(pose, xyz)
        xy_px = project(camera, np.maximum(in_cam, [-np.inf, -np.inf, 1e-6]))
        surface = sample_numpy(clip.depth[number], grid_from_pixels(xy_px, frames.hw), mode="nearest")
        inside = (xy_px >= 0).all(axis=1) & (xy_px < [frames.hw[1], frames.hw[0]]).all(axis=1)
        point = np.flatnonzero(inside & (np.abs(in_cam[:, 2] / surface - 1) < 0.02))
        depth = in_cam[point, 2] * wrong[point] * np.exp(noise * rng.standard_normal(len(point))) / unit
        scaled = pose.copy()
        scaled[:3, 3] /= unit
        views.append(
            SparseView(frame, camera, scaled, xy_px[point].astype(np.float32), depth.astype(np.float32), point)
        )
    return _assembled(views, xyz / unit, health(score, registered=len(views), total=len(frames), points=points))


def _surface_points(clip: RenderedClip, frames: FrameSet, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points of the scene, metres in the world, on pixels drawn evenly over frames and images."""
    source = np.array(frames.numbers)[rng.integers(len(frames), size=count)]
    h, w = clip.camera.hw
    row, column = rng.integers(h, size=count), rng.integers(w, size=count)
    xyz = np.empty((count, 3))
    for number in np.unique(source):
        here = source == number
        xy_px = np.stack([column[here] + 0.5, row[here] + 0.5], axis=1)
        in_cam = unproject(clip.camera, xy_px, clip.depth[number, row[here], column[here]])
        xyz[here] = transform(inverse_rigid(clip.cam_from_world[number]), in_cam)
    return xyz


def _assembled(views: list[SparseView], xyz: np.ndarray, card: SfmHealth) -> SparseModel:
    point = np.concatenate([view.point for view in views])
    centres = np.concatenate(
        [np.repeat(inverse_rigid(view.cam_from_world)[None, :3, 3], len(view.point), axis=0) for view in views]
    )
    sparse = SparsePoints(
        xyz_in_world=xyz,
        rgb=np.full((len(xyz), 3), 128, np.uint8),
        error_px=np.full(len(xyz), 0.3, np.float32),
        track_length=np.bincount(point, minlength=len(xyz)).astype(np.int32),
        triangulation_angle_deg=largest_angles_deg(xyz, centres, point),
    )
    attempt = SfmAttempt("default", len(views), len(xyz), 0.1)
    return SparseModel(tuple(views), sparse, card, "default", (attempt,), 0.1, Path())


def write_fake_model(folder: Path) -> None:
    """Files where a COLMAP model has them, with nothing of use in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cameras", "images", "points3D"):
        (folder / f"{name}.bin").write_bytes(b"fake")


@dataclass
class FakeSfm:
    """Takes the place of `sfm.reconstruct` and `sfm.load_model`."""

    clip: RenderedClip
    found: bool = True
    settings: dict[str, float] = field(default_factory=dict)
    """For `sparse_model_from_truth`."""
    reports: tuple[Progress, ...] = ()
    """Progress that it reports."""
    calls: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> FakeSfm:
        patch.setattr(reconstruction, "reconstruct", self.reconstruct)
        patch.setattr(reconstruction, "load_model", self.load_model)
        return self

    def reconstruct(
        self,
        frames: FrameSet,
        config: SfmConfig,
        folder: Path,
        on_progress: OnProgress = ignore_progress,
        cache: Path | None = None,
    ) -> SparseModel | NoModel:
        self.calls += 1
        for report in self.reports:
            on_progress(report)
        if not self.found:
            attempts = (SfmAttempt("default", 0, 0, 0.1),)
            return NoModel(attempts, len(frames), NoModelReason.STATIC, "Walk sideways while filming.", 0.1)
        write_fake_model(folder)
        return self.load_model(frames, folder)

    def load_model(self, frames: FrameSet, folder: Path) -> SparseModel:
        return sparse_model_from_truth(self.clip, frames, rng=np.random.default_rng(1), **self.settings)  # type: ignore[arg-type]
