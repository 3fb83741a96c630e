"""Fingerprint of a network's weights."""

from __future__ import annotations

import hashlib

from sfmttr.networks.base import DepthNetwork, state_dict_cpu


def weights_hash(network: DepthNetwork) -> str:
    """Return the sha256 over names and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(state_dict_cpu(network).items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
