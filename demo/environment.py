"""Where the page runs, and what follows from it: the default network, and whether folders may be named."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from sfmttr.config import RunConfig
from sfmttr.errors import SfmttrError

from .zerogpu import on_zero_gpu

GPU_DEFAULT = "depth-anything-v2-small"
"""Default network of a Space with a GPU, unless it cannot be downloaded."""
PUBLIC = "SFMTTR_PUBLIC"
"""Environment variable to set on one's own machine when others can open the page."""
_NVIDIA = Path("/dev/nvidiactl")
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_log = logging.getLogger(__name__)


def env_flag(name: str) -> bool:
    """Return whether an environment variable is set to anything but a no."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def on_space() -> bool:
    """Return whether this is a Space of the Hugging Face Hub."""
    return env_flag("SPACE_ID") or on_zero_gpu()


def has_gpu() -> bool:
    """Return whether networks run on a GPU, as far as can be told without torch, which takes seconds to import."""
    return on_zero_gpu() or _NVIDIA.exists()


def is_private() -> bool:
    """Return whether only this machine can open the page, as far as its settings tell."""
    local = os.environ.get("GRADIO_SERVER_NAME", "").strip().lower() in _LOCAL
    return local and not any((on_space(), env_flag(PUBLIC), env_flag("GRADIO_ROOT_PATH"), env_flag("GRADIO_SHARE")))


def is_local(request: Any) -> bool:
    """Return whether a request (gradio's, or None) comes from this machine and was not forwarded by a proxy."""
    headers = getattr(request, "headers", None) or {}
    host = getattr(getattr(request, "client", None), "host", "") or ""
    return host in _LOCAL and not any(headers.get(name) for name in _FORWARDED)


def disable_hub_token() -> None:
    """Access the Hub without a token from now on: visitors must not get what the owner's token opens."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True


def default_network() -> str:
    """Return the network that is selected at first. On a Space with a GPU this may access the Hub."""
    bundled = RunConfig().network
    if not (on_space() and has_gpu()):
        return bundled
    from sfmttr.networks import lookup
    from sfmttr.networks.huggingface.model_card import read_card
    from sfmttr.networks.huggingface.model_files import is_cached
    from sfmttr.networks.huggingface.model_id import ModelId

    model = lookup.describe(GPU_DEFAULT).model
    assert model is not None, "it is a model of the Hub"
    source = ModelId.parse(model).location
    try:
        if not is_cached(source):
            read_card(source)
    except SfmttrError as error:
        _log.warning("%s cannot be had, and %s is the default instead: %s", GPU_DEFAULT, bundled, error)
        return bundled
    return GPU_DEFAULT
