"""Where the page runs, and what follows from it: which network is the default, and whether folders may be named."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from sfmttr.config import RunConfig
from sfmttr.errors import SfmttrError

from .zerogpu import on_zero_gpu

GPU_DEFAULT = "depth-anything-v2-small"
"""The default network of a Space that has a GPU, unless it cannot be had."""
PUBLIC = "SFMTTR_PUBLIC"
"""Environment variable that says of a page on one's own machine that others can open it."""
_NVIDIA = Path("/dev/nvidiactl")
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_log = logging.getLogger(__name__)


def env_flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def on_space() -> bool:
    """Whether this is a Space of the Hugging Face Hub."""
    return env_flag("SPACE_ID") or on_zero_gpu()


def has_gpu() -> bool:
    """Whether networks run on a GPU here, as far as can be told without torch, which takes seconds to import."""
    return on_zero_gpu() or _NVIDIA.exists()


def is_private() -> bool:
    """Whether only this machine can open the page, as far as its settings tell."""
    local = os.environ.get("GRADIO_SERVER_NAME", "").strip().lower() in _LOCAL
    return local and not any((on_space(), env_flag(PUBLIC), env_flag("GRADIO_ROOT_PATH"), env_flag("GRADIO_SHARE")))


def is_local(request: Any) -> bool:
    """Whether a request (gradio's, or None) was made on this machine, and no proxy or tunnel says it passed it on."""
    headers = getattr(request, "headers", None) or {}
    host = getattr(getattr(request, "client", None), "host", "") or ""
    return host in _LOCAL and not any(headers.get(name) for name in _FORWARDED)


def disable_hub_token() -> None:
    """From now on the Hub is asked in nobody's name: visitors do not get what the owner's token opens."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True


def default_network() -> str:
    """The network that is chosen until a visitor chooses another. On a Space with a GPU the Hub may be asked."""
    plain = RunConfig().network
    if not (on_space() and has_gpu()):
        return plain
    from sfmttr.networks import registry
    from sfmttr.networks.huggingface import repository
    from sfmttr.networks.huggingface.model_id import ModelId

    model = registry.describe(GPU_DEFAULT).model
    assert model is not None, "it is one of the Hub's"
    source = ModelId.parse(model).location
    try:
        if not repository.is_cached(source):
            repository.describe(source)
    except SfmttrError as error:
        _log.warning("%s cannot be had, and %s is the default instead: %s", GPU_DEFAULT, plain, error)
        return plain
    return GPU_DEFAULT
