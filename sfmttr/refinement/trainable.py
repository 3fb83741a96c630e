"""Selection of the parameters that are trained, and of their learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from sfmttr.config import FinetuneSetting, RefineConfig, TrainableScope
from sfmttr.errors import NetworkError
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.lora import add_low_rank


def trainable_parameters(network: DepthNetwork, scope: TrainableScope) -> dict[str, nn.Parameter]:
    """Return the parameters of a scope by name; for LoRA, those of the layers that are adapted.

    Raises `NetworkError` when the scope has no parameters.
    """
    encoder = dict(network.encoder_parameters())
    stem = dict(network.stem_parameters())
    everything = dict(network.named_parameters())
    chosen = {
        TrainableScope.ENCODER: encoder,
        TrainableScope.ENCODER_BUT_STEM: {n: p for n, p in encoder.items() if n not in stem},
        TrainableScope.DECODER: {n: p for n, p in everything.items() if n not in encoder},
        TrainableScope.ALL_BUT_STEM: {n: p for n, p in everything.items() if n not in stem},
        TrainableScope.ALL: everything,
        TrainableScope.LORA: encoder,
    }[scope]
    if not chosen:
        raise NetworkError(f"This network has no {scope} parameters of its own to train; choose another part.")
    return chosen


def resolve_training(config: RefineConfig, network: DepthNetwork) -> FinetuneSetting:
    """Return scope and learning rate: those of `config`, and the network's recommendation for what it leaves open.

    The recommended rates are for steps of one frame. A gradient averaged over more frames has less noise, so the rate
    is multiplied by the square root of their number.
    """
    trained = config.trained or network.finetune_settings[0].trained
    rates = {training.trained: training.learning_rate for training in reversed(network.finetune_settings)}
    rate = rates.get(trained, network.finetune_settings[0].learning_rate) * math.sqrt(config.frames_per_step)
    return FinetuneSetting(trained, config.learning_rate or rate)


def can_cache_stem(network: DepthNetwork, config: RefineConfig) -> bool:
    """Return whether a refinement leaves the stem of `network` unchanged, so that its features can be cached."""
    stem = dict(network.stem_parameters())
    trained = trainable_parameters(network, resolve_training(config, network).trained)
    return bool(stem) and trained.keys().isdisjoint(stem)


def select_trainable(
    network: DepthNetwork, names: Collection[str], training: FinetuneSetting, lora_rank: int, seed: int
) -> dict[str, nn.Parameter]:
    """Freeze `network` but for the parameters `names`, and return the parameters for the optimizer by name.

    With LoRA, low-rank parameters are added to the layers of these names and returned instead.
    """
    network.requires_grad_(False)
    if training.trained is TrainableScope.LORA:
        parameters = add_low_rank(network, names, lora_rank, seed)
    else:
        parameters = {name: value for name, value in network.named_parameters() if name in names}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters
