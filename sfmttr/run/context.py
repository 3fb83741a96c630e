"""State shared by the stages of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from sfmttr.config import RunConfig
from sfmttr.io import depth_maps
from sfmttr.io.json_files import cache_key
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.fingerprint import weights_hash
from sfmttr.networks.inference import prepare_images
from sfmttr.refinement.backend import Backend, OnStep
from sfmttr.run.stage_runner import StageRunner
from sfmttr.run.stages import StageName
from sfmttr.types import DepthKind, FrameSet, OnProgress


@dataclass(frozen=True)
class RunContext:
    """Settings, frames and network of a run, with the means to run its stages.

    A resumed run may need neither images nor predictions, so the images are prepared when they are first used.
    """

    config: RunConfig
    frames: FrameSet
    network: DepthNetwork
    """Unrefined."""
    backend: Backend
    stages: StageRunner
    on_progress: OnProgress
    on_step: OnStep

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, h, w): all frames at the network's working size."""
        return prepare_images(self.network, self.frames)

    @cached_property
    def network_key(self) -> str:
        """`cache_key` of frames and unrefined network."""
        return cache_key(self.frames.content_hash, [self.network.info.name, weights_hash(self.network)])

    @property
    def predicts_disparity(self) -> bool:
        return self.network.info.kind is DepthKind.AFFINE_DISPARITY

    @property
    def depth_kind(self) -> DepthKind:
        """Kind of all resulting depth maps."""
        return self.network.info.kind.as_depth

    def depth_stage(
        self, name: StageName, key: str, make: Callable[[], np.ndarray], kind: DepthKind | None = None
    ) -> np.ndarray:
        """Run a stage whose result is maps (N, h, w), stored in `depth/NAME.npz`. `kind`: other than `depth_kind`."""
        path = self.stages.path / "depth" / f"{name}.npz"

        def make_and_write() -> np.ndarray:
            maps = make()
            depth_maps.write_maps(path, maps, kind or self.depth_kind, self.frames)
            return maps

        return self.stages.run(name, key, lambda: [path], make_and_write, lambda: depth_maps.read_maps(path))
