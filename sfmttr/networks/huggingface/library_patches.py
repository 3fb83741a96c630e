"""Two workarounds for modules of transformers: tracing with symbolic sizes, and pickling."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HOOKS_MODULE, _HOOKS_FLAG = "transformers.utils.output_capturing", "_output_capturing_hooks_installed"


@contextmanager
def keep_symbolic_sizes(model: PreTrainedModel) -> Iterator[None]:
    """Replace `int` in the model's source modules by a function that leaves symbolic sizes as they are.

    Some architectures convert sizes with `int`, which tracers turn into constants.
    """
    modules = {type(part).__module__ for part in model.modules()}
    modeling = [sys.modules[name] for name in modules if name.startswith("transformers.models.")]
    with ExitStack() as stack:
        for module in modeling:
            stack.enter_context(patch.object(module, "int", _int, create=True))
            if hasattr(module, "torch_int"):
                stack.enter_context(patch.object(module, "torch_int", _int))
        yield


def _int(value: Any) -> Any:
    return value if isinstance(value, torch.SymInt) else int(value)


def remove_capture_hooks(model: PreTrainedModel) -> None:
    """Remove the forward hooks that a model installs when it first runs: they cannot be pickled.

    The library installs them again when they are missing.
    """
    for part in model.modules():
        part.__dict__.pop(_HOOKS_FLAG, None)
        for key, hook in list(part._forward_hooks.items()):
            if getattr(hook, "__module__", None) == _HOOKS_MODULE:
                del part._forward_hooks[key]
