"""The one place where device and precision are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sfmttr.errors import DeviceError

_DEVICE_HINT = "Leave --device at auto, or use --device cpu."


@dataclass(frozen=True)
class Compute:
    """Where tensors live, and the precision that forward passes run in."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    """None: full float32."""

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context for a network's forward pass; losses and optimiser always stay in float32."""
        if self.autocast_dtype is None:
            yield
            return
        with torch.autocast(self.device.type, dtype=self.autocast_dtype):
            yield


def choose_compute(name: str = "auto") -> Compute:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; a named device that is missing raises `DeviceError`.

    bfloat16 has float32's range, so no loss scaling is needed; it is used on CUDA cards that compute in it. CPU and MPS
    stay in float32: there it is either slower or less exact than what it saves.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise DeviceError("No CUDA device is usable here; choose another device.", cli_hint=_DEVICE_HINT)
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
        return Compute(torch.device(name), dtype)
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("No Apple GPU is usable here; choose another device.", cli_hint=_DEVICE_HINT)
        return Compute(torch.device("mps"), None)
    if name == "cpu":
        return Compute(torch.device("cpu"), None)
    raise DeviceError(f"There is no device '{name}': choose auto, cpu, cuda, cuda:N or mps.")


@contextmanager
def one_cpu_thread() -> Iterator[None]:
    """What torch computes on the CPU in here, it computes on one thread.

    Two threads of torch wait for each other by spinning: beside other work they are slower than one, and slow it down.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
