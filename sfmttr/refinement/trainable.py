"""Selection of the parameters that are trained, and of their learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from sfmttr.config import RefineConfig, Trained, Training
from sfmttr.errors import NetworkError
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.lora import add_low_rank


def trainable_parameters(network: DepthNetwork, trained: Trained) -> dict[str, nn.Parameter]:
    """Return the parameters of a scope by name; for LoRA, those of the layers that are adapted.

    Raises `NetworkError` when the scope has no parameters.
    """
    encoder = dict(network.encoder_parameters())
    early = dict(network.early_parameters())
    everything = dict(network.named_parameters())
    chosen = {
        Trained.ENCODER: encoder,
        Trained.LATE_ENCODER: {n: p for n, p in encoder.items() if n not in early},
        Trained.DECODER: {n: p for n, p in everything.items() if n not in encoder},
        Trained.LATE: {n: p for n, p in everything.items() if n not in early},
        Trained.ALL: everything,
        Trained.LORA: encoder,
    }[trained]
    if not chosen:
        raise NetworkError(f"This network has no {trained} parameters of its own to train; choose another part.")
    return chosen


def resolve_training(config: RefineConfig, network: DepthNetwork) -> Training:
    """Return scope and learning rate: those of `config`, and the network's recommendation for what it leaves open.

    The recommended rates are for steps of one frame. A gradient averaged over more frames has less noise, so the rate
    is multiplied by the square root of their number.
    """
    trained = config.trained or network.trainings[0].trained
    rates = {training.trained: training.learning_rate for training in reversed(network.trainings)}
    rate = rates.get(trained, network.trainings[0].learning_rate) * math.sqrt(config.frames_per_step)
    return Training(trained, config.learning_rate or rate)


def can_cache_early(network: DepthNetwork, config: RefineConfig) -> bool:
    """Return whether a refinement leaves the early part of `network` unchanged, so that its features can be cached."""
    early = dict(network.early_parameters())
    trained = trainable_parameters(network, resolve_training(config, network).trained)
    return bool(early) and trained.keys().isdisjoint(early)


def select_trainable(
    network: DepthNetwork, names: Collection[str], training: Training, lora_rank: int, seed: int
) -> dict[str, nn.Parameter]:
    """Freeze `network` but for the parameters `names`, and return the parameters for the optimizer by name.

    With LoRA, low-rank parameters are added to the layers of these names and returned instead.
    """
    network.requires_grad_(False)
    if training.trained is Trained.LORA:
        parameters = add_low_rank(network, names, lora_rank, seed)
    else:
        parameters = {name: value for name, value in network.named_parameters() if name in names}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters
