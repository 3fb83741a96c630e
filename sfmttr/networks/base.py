"""The contract every depth network keeps, and the predictor that the rest of the package talks to.

An adapter subclasses `DepthNetwork` and gives: the architecture, `info`, `input_hw`, `forward`, and which parameters
are the encoder's. Nothing outside `sfmttr/networks/` may ask for a network's name.
"""

from __future__ import annotations

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

    `forward` is the pure graph that is trained and exported: RGB (B, 3, h, w) in [0, 1] at working size (normalised
    inside) -> (B, 1, h', w') in the network's own unit: metres for `METRIC`, positive network units for
    `SCALE_INVARIANT`, inverse depth for `AFFINE_DISPARITY`. h' and w' may be a fraction of h and w.

    Where a network sees `source_offsets` of a frame, its input carries them: (B, 3 + 3 K, h, w), the frame first.
    `stack_source_frames` makes that of a clip. Where it looks at a part of the picture alone, `crop` cuts that out and
    `pad_to_full` makes depth of the whole picture again; `predict_full` is all three, and what everyone but an exporter
    calls.
    """

    info: NetworkInfo

    source_offsets: tuple[int, ...] = ()
    """Frames that the network sees beside the one that it gives depth of, relative to that: (-1,) is the one before."""

    preferred_memory_format: torch.memory_format = torch.contiguous_format
    """What training on a CPU is fastest in: pass it to `network.to(memory_format=...)` and to the images'. Values are
    the same up to rounding."""

    cached_step_cost: float = 1.0
    """Time of a training step on kept early features, as a share of a whole step's (measured on two CPU cores)."""

    finetune_settings: tuple[FinetuneSetting, ...] = (FinetuneSetting(TrainableScope.ENCODER_BUT_STEM, 1e-3),)
    """What of it is best trained and how fast, for presets that leave that to the network. Those after the first say
    how fast, should another part be asked for; of parts not among them, as fast as the first."""

    max_batch_size: int = 4
    """Pictures that go through it together. One where what gradients are made of takes gigabytes: those of a training
    step of several pictures are then computed one after the other."""

    loss_in_inverse_depth: bool = False
    """Losses that compare depths as they are compare inverse depths of it: the network computes those."""

    supports_dynamic_size: bool = True
    """`forward` can be traced for every size that `input_hw` gives at once; else for one at a time."""

    @abstractmethod
    def input_hw(self, hw: HW) -> HW:
        """The size that an image of size `hw` is resized to before `forward`."""

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor: ...

    def stack_source_frames(self, images: Tensor, frame: int, left_out: Collection[int] = ()) -> Tensor:
        """What goes in for one frame of a clip (N, 3, h, w): (1, 3 + 3 K, h, w).

        Beyond the clip's ends, and where the neighbour is one of those `left_out`, a frame is its own neighbour.
        """
        places = (frame + offset for offset in self.source_offsets)
        chosen = [frame, *(i if 0 <= i < len(images) and i not in left_out else frame for i in places)]
        return torch.cat([images[i : i + 1] for i in chosen], dim=1)

    def crop(self, image: Tensor) -> Tensor:
        """The part of pictures (B, C, h, w) at working size that `forward` takes; mostly all of it."""
        return image

    def pad_to_full(self, depth: Tensor, hw: HW) -> Tensor:
        """`forward`'s depth of that part (B, 1, h', w') as depth of the whole picture, whose working size is `hw`."""
        return depth

    def valid_region(self, grid: np.ndarray, hw: HW) -> np.ndarray:
        """(...) bool: which places `grid` (..., 2), in [-1, 1] as `geometry.sample` has it, `crop` leaves in a picture
        of size `hw`. Depth elsewhere is made up from what is near, and has nothing to learn."""
        return np.ones(grid.shape[:-1], bool)

    def predict_full(self, image: Tensor) -> Tensor:
        """(B, 1, h', w'): depth of whole pictures (B, 3 + 3 K, h, w) at working size."""
        return self.pad_to_full(self(self.crop(image)), (image.shape[-2], image.shape[-1]))

    @abstractmethod
    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names (as in `state_dict`) and parameters of the encoder: what SfM-TTR trains (paper, section 3.3)."""

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """The first part of `forward`, which a refinement may leave as it is and compute once a frame.

        `forward_from_stem(*stem_features(image))` is `forward(image)`. By default there is no such part.
        """
        return (image,)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        """The rest of `forward`."""
        return self(*features)

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that `stem_features` uses; all of them are the encoder's."""
        return iter(())

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """What the authors' files hold, in the registry's order, as one state dict of this network.

        One file of weights is taken as it is. Whatever this leaves in that is no weight fails to load.
        """
        return {name: value for file in files for name, value in file.items()}

    def dynamic_shape_tracing(self) -> AbstractContextManager[None]:
        """Within it, `forward` can be traced with sizes that are symbols, by whatever would make constants of them."""
        return nullcontext()

    def build_config(self) -> Mapping[str, str]:
        """What has to be known beside name and weights to build it again; goes into the file of its weights."""
        return {}

    def prepare(self, rgb: np.ndarray, hw: HW | None = None) -> Tensor:
        """One image (H, W, 3) uint8 to (1, 3, h, w) float in [0, 1] at size `hw` (None: the working size)."""
        image = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255.0
        return resize_image(image, hw or self.input_hw((rgb.shape[0], rgb.shape[1])))


def resize_image(image: Tensor, hw: HW) -> Tensor:
    """(B, 3, H, W) in [0, 1] to size `hw`, antialiased bilinear."""
    return image if tuple(image.shape[-2:]) == hw else antialiased_resize(image, hw)


def antialiased_resize(image: Tensor, hw: HW, white: float = 1.0) -> Tensor:
    """What `resize_image` does to any other size, with values from 0 to `white`.

    Exported graphs, which must not ask for the size, always do it.
    """
    return functional.interpolate(image, hw, mode="bilinear", align_corners=False, antialias=True).clamp(0.0, white)


def resize_depth(depth: Tensor, hw: HW) -> Tensor:
    """A network's output (B, 1, h, w) at the size of the image it is of."""
    return functional.interpolate(depth, hw, mode="bilinear", align_corners=False)


def checkpointed(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """`function` of `arguments`, whose inner features are not kept for gradients, but computed again when needed."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)


def in_float32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` of `tensors` in float32, whatever the rest of a forward pass is computed in.

    For geometry: a pixel's place among a thousand does not fit into the eight bits of a bfloat16.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return function(*tensors)
    with torch.autocast(device, enabled=False):
        return function(*(tensor.float() for tensor in tensors))


class DepthPredictor(Protocol):
    """What torch networks and exported ones have in common."""

    @property
    def source_offsets(self) -> tuple[int, ...]:
        """As `DepthNetwork.source_offsets`."""
        ...

    @property
    def kind(self) -> str:
        """A `DepthKind`, or its value where this package is not at hand."""
        ...

    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        """Depth (H, W) float32, of this kind, of an image (H, W, 3) uint8, given its neighbours of the same size.

        Without them the image is its own neighbour.
        """
        ...


def source_frames(predictor: DepthPredictor, frames: FrameSet, frame: int) -> list[np.ndarray]:
    """The pictures that `predict` takes beside that of `frame`; beyond the clip's ends, the frame itself."""
    places = (frame + offset for offset in predictor.source_offsets)
    return [frames.read(i if 0 <= i < len(frames) else frame).rgb for i in places]


def with_sources(rgb: np.ndarray, source_frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """An image and its `count` neighbours: those given, or the image itself when none are.

    Raises ValueError for another number of them, or other sizes.
    """
    pictures = [rgb, *(source_frames or [rgb] * count)]
    if len(pictures) != 1 + count or any(picture.shape != rgb.shape for picture in pictures):
        raise ValueError(f"expected {count} neighbours of size {rgb.shape}, got {[p.shape for p in pictures[1:]]}")
    return pictures


@dataclass(frozen=True)
class TorchPredictor:
    """A `DepthNetwork` as a `DepthPredictor`."""

    network: DepthNetwork
    input_hw: HW | None = None
    """For every image; None: what the network chooses for an image of that size."""

    @property
    def kind(self) -> DepthKind:
        return self.network.info.kind

    @property
    def source_offsets(self) -> tuple[int, ...]:
        return self.network.source_offsets

    @torch.no_grad()  # not inference_mode: some networks keep tensors for later, when they are trained
    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        device = next(self.network.parameters()).device
        pictures = with_sources(rgb, source_frames, len(self.network.source_offsets))
        image = torch.cat([self.network.prepare(picture, self.input_hw) for picture in pictures], dim=1)
        output = self.network.eval().predict_full(image.to(device)).float()
        return resize_depth(output, (rgb.shape[0], rgb.shape[1]))[0, 0].cpu().numpy()


def state_dict_cpu(network: nn.Module) -> Mapping[str, Tensor]:
    """A detached copy of all weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
