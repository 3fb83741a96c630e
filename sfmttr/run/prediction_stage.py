"""The unrefined network's prediction for all frames."""

from __future__ import annotations

import numpy as np

from sfmttr.networks.inference import FeatureCache
from sfmttr.refinement.trainable import can_cache_stem
from sfmttr.run.context import RunContext
from sfmttr.run.stages import StageName
from sfmttr.types import OnProgress


class UnrefinedPrediction:
    """Depth or disparity of all frames by the unrefined network.

    Features of the network's stem are kept on the way when the refinement can use them. They are large: they are
    taken once, or dropped when nothing will be refined.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._features: FeatureCache = {}
        self._is_refinement_possible = True
        self._computed: np.ndarray | None = None

    @property
    def _stage(self) -> StageName:
        return StageName.DISPARITY if self._context.predicts_disparity else StageName.BEFORE

    def is_stored(self) -> bool:
        """Return whether the run folder holds the prediction."""
        return self._context.stages.is_stored(self._stage, self._context.network_key)

    def compute(self, on_progress: OnProgress) -> np.ndarray:
        """Return the prediction (N, h, w) without storing it. May run in a thread of its own."""
        features = self._features if self._keeps_features() else None
        return self._context.backend.predict(
            self._context.network, self._context.images, StageName.BEFORE, on_progress, features
        )

    def use(self, computed: np.ndarray | None) -> None:
        """Take what `compute` returned earlier, if it was called, so that `run` need not call it."""
        self._computed = computed

    def run(self) -> np.ndarray:
        """Return the prediction (N, h, w) from the run folder, or compute and store it."""

        def make() -> np.ndarray:
            return self.compute(self._context.on_progress) if self._computed is None else self._computed

        kind = self._context.network.info.kind
        return self._context.depth_stage(self._stage, self._context.network_key, make, kind)

    def take_features(self) -> FeatureCache:
        """Return the features and forget them: the caller's reference is the only one."""
        features, self._features = self._features, {}
        return features

    def drop_features(self) -> None:
        """Forget the features, and keep none later: nothing will be refined."""
        self._features, self._is_refinement_possible = {}, False

    def _keeps_features(self) -> bool:
        context = self._context
        # A network of several frames sees all of them here, but must not see held-out frames when it is refined.
        holds_out_frames = context.config.split.hold_out_frames > 0
        if not self._is_refinement_possible or not context.backend.is_local or holds_out_frames:
            return False
        return can_cache_stem(context.network, context.config.recipe.refine)
