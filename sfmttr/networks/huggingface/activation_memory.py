"""Memory policy of training: activation checkpointing of encoder blocks where keeping features takes too much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sfmttr.networks.huggingface.model_config import encoder_config
from sfmttr.types import HW

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

MAX_KEPT_BYTES = 2 << 30
"""Features that a training step keeps for gradients; above this, blocks compute them again in the backward pass."""
BYTES_PER_TOKEN = 80
"""Kept for gradients per token, channel and block: about twenty float32 tensors. `benchmarks.transformer_memory`
measures 72 for Depth-Anything-V2-Base when its encoder is trained, and 84 to 90 by LoRA, which makes weights anew."""
_WIDTH_FIELDS = ("hidden_size", "hidden_sizes", "embed_dim")


def set_activation_checkpointing(model: PreTrainedModel, hw: HW) -> None:
    """Switch activation checkpointing of the model's blocks on or off for an input of size `hw`."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        recompute = False
    else:
        tokens = hw[0] * hw[1] / _patch_area(model.config)
        recompute = tokens * _width(model.config) * len(blocks) * BYTES_PER_TOKEN > MAX_KEPT_BYTES
        if recompute and not all(block.gradient_checkpointing for block in blocks):
            # Newer versions of the library have another name for it, and warn of the old one.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    for block in blocks:
        # The library checkpoints in training mode only. A block itself has no other use for the flag; its parts have.
        block.training = recompute


def _patch_area(config: PretrainedConfig) -> int:
    patch_size = encoder_config(config).get("patch_size", 4)
    return math.prod(patch_size) if isinstance(patch_size, list | tuple) else int(patch_size) ** 2


def _width(config: PretrainedConfig) -> int:
    encoder = encoder_config(config)
    width = next((encoder[name] for name in _WIDTH_FIELDS if name in encoder), 256)
    return max(width) if isinstance(width, list | tuple) else int(width)
