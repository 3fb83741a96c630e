"""Depth networks of `transformers` as `DepthNetwork`s."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfmttr.config import FinetuneSetting, TrainableScope
from sfmttr.networks.base import DepthNetwork, in_float32
from sfmttr.networks.huggingface.activation_memory import set_activation_checkpointing
from sfmttr.networks.huggingface.library_patches import keep_symbolic_sizes, remove_capture_hooks
from sfmttr.networks.huggingface.model_config import encoder_config
from sfmttr.networks.huggingface.preprocess import PreprocessSpec
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.inverse_depth import depth_of
from sfmttr.types import HW, DepthKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# DPT compares two sizes, which a tracer decides once for all; with ZoeDepth's position biases, tracing with symbolic
# sizes takes minutes and fails in the end.
_FIXED_SIZE_TYPES = {"dpt", "zoedepth"}
# Metres. Heads that end in a ReLU output 0 where they have no estimate.
_MIN_DEPTH_M = 1e-3
_DECODER_PARTS = {"neck", "head", "decoder", "fusion_stage", "relative_head", "metric_head", "fov_model"}
# In Depth Pro's inverse depth: its depth ends at 10 km.
_DEPTH_PRO_FLOOR = 1e-4


class HubNetwork(DepthNetwork):
    """A depth network of `transformers`.

    `forward` normalizes the image as `preprocess` states and returns (B, 1, h', w') at the resolution of the library's
    `predicted_depth`.
    """

    # Held-out points of all four clips gained most from training the decoder for equal time, and least from the
    # encoder, by LoRA or not (`benchmarks.transformers`, on a small stand-in for published weights). There 1e-3 was
    # better still in few steps, and 3e-3 diverged: with as many steps as the default preset makes, 3e-4 is safe.
    finetune_settings = (
        FinetuneSetting(TrainableScope.DECODER, 3e-4),
        FinetuneSetting(TrainableScope.ALL, 1e-4),
        FinetuneSetting(TrainableScope.ENCODER, 1e-4),
        FinetuneSetting(TrainableScope.LORA, 1e-3),
    )
    max_batch_size = 1
    mean: Tensor
    std: Tensor

    def __init__(
        self, info: NetworkInfo, model: PreTrainedModel, preprocess: PreprocessSpec, build_config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.info = info
        self.model = model
        self.preprocess = preprocess
        self._build_config = build_config
        self.supports_dynamic_size = not preprocess.square and model.config.model_type not in _FIXED_SIZE_TYPES
        # Not persistent: they are part of how the network is built, not of its weights.
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1), persistent=False)

    def input_hw(self, hw: HW) -> HW:
        return self.preprocess.input_hw(hw)

    def forward(self, image: Tensor) -> Tensor:
        set_activation_checkpointing(self.model, (image.shape[-2], image.shape[-1]))
        output = self.model(pixel_values=(image - self.mean) / self.std)
        depth = output.predicted_depth
        if self.model.config.model_type == "depth_pro":
            fov_deg = getattr(output, "field_of_view", None)
            depth = in_float32(_depth_pro_depth, depth, *([] if fov_deg is None else [fov_deg]))
        return self._as_output(depth)

    def _as_output(self, depth: Tensor) -> Tensor:
        """Return the library's (B, h, w) as (B, 1, h, w), metric depth clamped to be positive."""
        depth = depth.unsqueeze(1) if depth.dim() == 3 else depth
        return depth.clamp(min=_MIN_DEPTH_M) if self.info.kind is DepthKind.METRIC else depth

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, value in self.named_parameters():
            # Mask tokens are for pretraining alone.
            if not _DECODER_PARTS.intersection(name.split(".")[1:3]) and not name.endswith(".mask_token"):
                yield name, value

    def build_config(self) -> Mapping[str, str]:
        return {"hf": json.dumps(self._build_config, sort_keys=True)}

    def dynamic_shape_tracing(self) -> AbstractContextManager[None]:
        return keep_symbolic_sizes(self.model)

    def __getstate__(self) -> object:
        remove_capture_hooks(self.model)
        return super().__getstate__()


class DepthAnythingNetwork(HubNetwork):
    """Depth Anything on DINOv2, split into encoder and decoder.

    The encoder is the stem: while the decoder alone is trained, its features are computed once per frame.
    """

    cached_step_cost = 0.3

    @property
    def _library(self) -> Any:
        return self.model  # the class declares no types for its parts

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the encoder's tokens, preceded by an empty tensor (0, rows, columns) that carries the patch grid.

        Tokens are (B, 1 + rows * columns, C), one tensor per stage that the decoder reads.
        """
        set_activation_checkpointing(self.model, (image.shape[-2], image.shape[-1]))
        patch = self.model.config.patch_size
        grid = image.new_empty((0, image.shape[-2] // patch, image.shape[-1] // patch))
        return (grid, *self._library.backbone((image - self.mean) / self.std).feature_maps)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        grid, *maps = features
        rows, columns = grid.shape[1:]
        return self._as_output(self._library.head(self._library.neck(maps, rows, columns), rows, columns))

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder_parameters()


def adapter_class(model: PreTrainedModel) -> type[HubNetwork]:
    """Return the adapter class for a model's architecture."""
    backbone = encoder_config(model.config)
    is_plain = model.config.model_type == "depth_anything" and backbone["model_type"] == "dinov2"
    return DepthAnythingNetwork if is_plain and not backbone["reshape_hidden_states"] else HubNetwork


def _depth_pro_depth(canonical: Tensor, fov_deg: Tensor | None = None) -> Tensor:
    """Return depth (B, h, w) from Depth Pro's inverse depth (B, h, w) for a focal length of one image width.

    With the horizontal field of view in degrees (B,), depth is in metres; without, up to scale.
    """
    depth = depth_of(canonical, _DEPTH_PRO_FLOOR)
    if fov_deg is None:
        return depth
    return depth * (0.5 / torch.tan(0.5 * torch.deg2rad(fov_deg.clamp(1.0, 179.0))))[:, None, None]
