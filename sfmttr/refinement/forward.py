"""Forward passes over frames of a clip, with cached stem features where the stem is not trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.inference import FeatureCache, features_by_frame
from sfmttr.utils.device import Compute

T = TypeVar("T")


class FrameForward:
    """Predicts depth of single frames.

    `images` (N, 3, h, w) are all frames, on the device of `network`; pixels of `excluded_frames` are never read.
    `cache` holds stem features by frame, to be extended; None: nothing is cached.
    """

    def __init__(
        self,
        network: DepthNetwork,
        images: Tensor,
        compute: Compute,
        excluded_frames: Collection[int],
        cache: Mapping[int, tuple[Tensor, ...]] | None,
    ) -> None:
        self._network, self._images, self._compute = network, images, compute
        self._excluded_frames = frozenset(excluded_frames)
        self._cache: FeatureCache | None = None if cache is None else dict(cache)

    def batches(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yield `items` in batches of `max_batch_size` frames: small networks are faster on several at once."""
        size = self._network.max_batch_size
        return (items[i : i + size] for i in range(0, len(items), size))

    def __call__(self, frames: Sequence[int]) -> Tensor:
        """Return the depth (B, h', w') of these frames."""
        hw = (self._images.shape[-2], self._images.shape[-1])
        with self._compute.autocast():
            if self._cache is None:
                return self._network.predict_full(self._input(frames))[:, 0]
            features = self._stem_features(frames, self._cache)
            return self._network.pad_to_full(self._network.forward_from_stem(*features), hw)[:, 0]

    def _input(self, frames: Sequence[int]) -> Tensor:
        return torch.cat(
            [self._network.stack_source_frames(self._images, frame, self._excluded_frames) for frame in frames]
        )

    def _stem_features(self, frames: Sequence[int], cache: FeatureCache) -> Sequence[Tensor]:
        missing = [frame for frame in dict.fromkeys(frames) if frame not in cache]
        if missing:
            with torch.no_grad():  # not inference_mode: training differentiates through what comes after
                parts = self._network.stem_features(self._network.crop(self._input(missing)))
            cache |= features_by_frame(missing, parts)
        each = [cache[frame] for frame in frames]
        return each[0] if len(each) == 1 else [torch.cat(parts) for parts in zip(*each, strict=True)]
