"""The contract of every depth network, and the predictor through which the rest of the package uses one.

Nothing outside `sfmttr/networks/` may depend on a network's name. To add a network, see `sfmttr.networks.models`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sfmttr.config import FinetuneSetting, TrainableScope
from sfmttr.networks.info import NetworkInfo as NetworkInfo
from sfmttr.types import HW, DepthKind, FrameSet


class DepthNetwork(nn.Module, ABC):
    """A depth network.

    `forward` is the pure graph that is trained and exported: RGB (B, 3, h, w) in [0, 1] at input size (normalized
    inside) -> (B, 1, h', w') in the network's own unit: metres for `METRIC`, positive network units for
    `SCALE_INVARIANT`, inverse depth for `AFFINE_DISPARITY`. h' and w' may be a fraction of h and w.

    A subclass has to give `info`, `input_hw`, `forward` and `encoder_parameters`. All else is optional:

    - Fine-tuning: `finetune_settings`, `max_batch_size`, `preferred_memory_format`, `loss_in_inverse_depth`.
    - Stem whose features a refinement computes once per frame: `stem_features`, `forward_from_stem`,
      `stem_parameters`, `cached_step_cost`.
    - Source frames (K other frames of the clip as further inputs): `source_offsets`; the input is then
      (B, 3 + 3 K, h, w), the frame itself first, as `stack_source_frames` makes it.
    - Input cropped to a part of the image: `crop`, `pad_to_full`, `valid_region`. `predict_full` is `crop`, `forward`
      and `pad_to_full`, and what everyone but an exporter calls.
    - Weights and export: `merge_checkpoints`, `build_config`, `supports_dynamic_size`, `dynamic_shape_tracing`.
    """

    # ---------------------------------------------------------------------------------- required

    info: NetworkInfo

    @abstractmethod
    def input_hw(self, hw: HW) -> HW:
        """Return the size that an image of size `hw` is resized to before `forward`."""

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor: ...

    @abstractmethod
    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the encoder's parameters with their names in `state_dict`: what SfM-TTR trains (section 3.3)."""

    # ------------------------------------------------------------------------------- fine-tuning

    finetune_settings: tuple[FinetuneSetting, ...] = (FinetuneSetting(TrainableScope.ENCODER_BUT_STEM, 1e-3),)
    """Fine-tuning settings, best first. The first is the default of presets that leave the choice to the network; for
    another scope the matching learning rate is used, else the first."""

    max_batch_size: int = 4
    """Images per forward pass. 1 where features kept for gradients take gigabytes: the gradients of a training step on
    several images are then computed one image after the other."""

    preferred_memory_format: torch.memory_format = torch.contiguous_format
    """Fastest for training on a CPU; pass it to `network.to(memory_format=...)` and to the images'. Values are the same
    up to rounding."""

    loss_in_inverse_depth: bool = False
    """Absolute losses are computed in inverse depth, the network's native output."""

    # -------------------------------------------------------------------------------------- stem

    cached_step_cost: float = 1.0
    """Time of a training step on cached stem features, as a share of a whole step's (measured on two CPU cores)."""

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the stem, the part of `forward` that a refinement may leave fixed and cache.

        `forward_from_stem(*stem_features(image))` equals `forward(image)`. By default there is no such part.
        """
        return (image,)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        """Return the output of `forward` from the features of the stem."""
        return self(*features)

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters that `stem_features` uses, with their names; all belong to the encoder."""
        return iter(())

    # ----------------------------------------------------------------------------- source frames

    source_offsets: tuple[int, ...] = ()
    """Source frames, relative to the frame that depth is predicted for: (-1,) is the previous one."""

    def stack_source_frames(self, images: Tensor, frame: int, left_out: Collection[int] = ()) -> Tensor:
        """Return the input (1, 3 + 3 K, h, w) for one frame of a clip (N, 3, h, w).

        Beyond the clip's ends, and for source frames in `left_out`, the frame itself takes their place.
        """
        places = (frame + offset for offset in self.source_offsets)
        chosen = [frame, *(i if 0 <= i < len(images) and i not in left_out else frame for i in places)]
        return torch.cat([images[i : i + 1] for i in chosen], dim=1)

    # ---------------------------------------------------------------------------------- cropping

    def crop(self, image: Tensor) -> Tensor:
        """Return the part of images (B, C, h, w) at input size that `forward` takes; by default all of it."""
        return image

    def pad_to_full(self, depth: Tensor, hw: HW) -> Tensor:
        """Extend depth of that part (B, 1, h', w') to the whole image, whose input size is `hw`."""
        return depth

    def valid_region(self, grid: np.ndarray, hw: HW) -> np.ndarray:
        """Return (...) bool: which positions `grid` (..., 2) in [-1, 1] (see `geometry.sample`) `crop` keeps.

        `hw` is the image's size. Depth elsewhere is extrapolated and must not be trained on.
        """
        return np.ones(grid.shape[:-1], bool)

    def predict_full(self, image: Tensor) -> Tensor:
        """Return depth (B, 1, h', w') of whole images (B, 3 + 3 K, h, w) at input size."""
        return self.pad_to_full(self(self.crop(image)), (image.shape[-2], image.shape[-1]))

    # ------------------------------------------------------------------------ weights and export

    supports_dynamic_size: bool = True
    """`forward` can be traced once for all sizes that `input_hw` returns; else for one size at a time."""

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return one state dict from the authors' files, in the catalog's order.

        By default, all entries of all files. Entries that are no weights must be removed here, or loading fails.
        """
        return {name: value for file in files for name, value in file.items()}

    def build_config(self) -> Mapping[str, str]:
        """Return what is needed, besides name and weights, to build the network again; stored with its weights."""
        return {}

    def dynamic_shape_tracing(self) -> AbstractContextManager[None]:
        """Return a context in which `forward` can be traced with symbolic sizes by tools that would fix them."""
        return nullcontext()

    # ------------------------------------------------------------------------------------- input

    def prepare(self, rgb: np.ndarray, hw: HW | None = None) -> Tensor:
        """Convert one image (H, W, 3) uint8 to (1, 3, h, w) float in [0, 1] at size `hw` (None: `input_hw`)."""
        image = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255.0
        return resize_image(image, hw or self.input_hw((rgb.shape[0], rgb.shape[1])))


def round_to_multiple(side: float, multiple: int, at_least: int) -> int:
    """Return the multiple of `multiple` nearest to `side`, but not below `at_least`."""
    return max(at_least, multiple * round(side / multiple))


def hw_of_area(hw: HW, area: int, multiple: int, at_least: int, longest: int) -> HW:
    """Return a size of about `area` pixels at the aspect of `hw`.

    Sides are multiples of `multiple`, from `at_least` on, the long one at most `longest`.
    """
    long_side, short_side = max(hw), min(hw)
    scale = math.sqrt(area / (long_side * short_side))
    long_side = min(longest, round_to_multiple(long_side * scale, multiple, at_least))
    short_side = round_to_multiple(long_side * min(hw) / max(hw), multiple, at_least)
    return (long_side, short_side) if hw[0] > hw[1] else (short_side, long_side)


def resize_image(image: Tensor, hw: HW) -> Tensor:
    """Resize (B, 3, H, W) in [0, 1] to `hw`, antialiased bilinear; unchanged where it has that size."""
    return image if tuple(image.shape[-2:]) == hw else antialiased_resize(image, hw)


def antialiased_resize(image: Tensor, hw: HW, white: float = 1.0) -> Tensor:
    """Resize (B, 3, H, W) in [0, `white`] to `hw`, antialiased bilinear.

    Exported graphs use this one, because they must not branch on the size.
    """
    return functional.interpolate(image, hw, mode="bilinear", align_corners=False, antialias=True).clamp(0.0, white)


def resize_depth(depth: Tensor, hw: HW) -> Tensor:
    """Resize a network's output (B, 1, h, w) to the size of its image, bilinear."""
    return functional.interpolate(depth, hw, mode="bilinear", align_corners=False)


def checkpointed(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Call `function` under activation checkpointing: its features are computed again in the backward pass."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)


def in_float32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call `function` in float32, with autocast off.

    For geometry: a pixel's position among a thousand does not fit into the eight bits of a bfloat16.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return function(*tensors)
    with torch.autocast(device, enabled=False):
        return function(*(tensor.float() for tensor in tensors))


class DepthPredictor(Protocol):
    """Common interface of torch networks and exported ones."""

    @property
    def source_offsets(self) -> tuple[int, ...]:
        """As `DepthNetwork.source_offsets`."""
        ...

    @property
    def kind(self) -> str:
        """`DepthKind` of the output, or its value as text where this package is not installed."""
        ...

    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        """Return depth (H, W) float32 of an image (H, W, 3) uint8 and its source frames of the same size.

        Without them, the image itself takes their place.
        """
        ...


def source_frames(predictor: DepthPredictor, frames: FrameSet, frame: int) -> list[np.ndarray]:
    """Return the source frames that `predict` takes with `frame`; beyond the clip's ends, the frame itself."""
    places = (frame + offset for offset in predictor.source_offsets)
    return [frames.read(i if 0 <= i < len(frames) else frame).rgb for i in places]


def with_sources(rgb: np.ndarray, source_frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Return an image followed by its `count` source frames: those given, or the image itself when none are.

    Raises ValueError for another number of them, or other sizes.
    """
    pictures = [rgb, *(source_frames or [rgb] * count)]
    if len(pictures) != 1 + count or any(picture.shape != rgb.shape for picture in pictures):
        raise ValueError(f"expected {count} source frames of size {rgb.shape}, got {[p.shape for p in pictures[1:]]}")
    return pictures


@dataclass(frozen=True)
class TorchPredictor:
    """A `DepthNetwork` as a `DepthPredictor`."""

    network: DepthNetwork
    input_hw: HW | None = None
    """For every image; None: as the network chooses by the image's size."""

    @property
    def kind(self) -> DepthKind:
        return self.network.info.kind

    @property
    def source_offsets(self) -> tuple[int, ...]:
        return self.network.source_offsets

    @torch.no_grad()  # not inference_mode: some networks keep tensors that they need when they are trained later
    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        device = next(self.network.parameters()).device
        pictures = with_sources(rgb, source_frames, len(self.network.source_offsets))
        image = torch.cat([self.network.prepare(picture, self.input_hw) for picture in pictures], dim=1)
        output = self.network.eval().predict_full(image.to(device)).float()
        return resize_depth(output, (rgb.shape[0], rgb.shape[1]))[0, 0].cpu().numpy()


def state_dict_cpu(network: nn.Module) -> Mapping[str, Tensor]:
    """Return a detached copy of all weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
