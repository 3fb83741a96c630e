"""Choice of device and precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sfmttr.errors import DeviceError

_DEVICE_HINT = "Leave --device at auto, or use --device cpu."


@dataclass(frozen=True)
class Compute:
    """Device of tensors, and precision of forward passes."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    """None: float32 throughout."""

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Return the context for forward passes; losses and optimizer stay in float32."""
        if self.autocast_dtype is None:
            yield
            return
        with torch.autocast(self.device.type, dtype=self.autocast_dtype):
            yield


def choose_compute(name: str = "auto") -> Compute:
    """Choose the device: `auto` takes CUDA, then Apple's MPS, then the CPU.

    Forward passes run in bfloat16 on CUDA devices that support it natively: it has float32's range, so no loss scaling
    is needed. CPU and MPS stay in float32, where bfloat16 is slower or not worth its loss of accuracy. Raises
    `DeviceError` when a named device is not available.
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
    """Return a context in which torch computes on one CPU thread.

    Torch's threads spin while they wait for each other: next to other work, two are slower than one and slow it down.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
