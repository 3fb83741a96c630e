"""Input size and pixel normalization of a model, from its preprocessor's config.

Preprocessing is done here, in torch, so that it is the same in training, in prediction and in exported graphs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfmttr.errors import NetworkError
from sfmttr.networks.huggingface.model_config import encoder_config
from sfmttr.types import HW

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Largest input area, in squares of the size that the network is made for: that of 4:3 images whose short side has that
# size. Wider ones are made smaller, because the time of a transformer grows faster than the area.
_MAX_AREA = 1.4
_DEFAULT_SIZES = {"depth_anything": 518, "dpt": 384, "zoedepth": 384, "depth_pro": 1536}
_DEFAULT_SIZE = 480
# Multiples that decoders need, besides the patch size, for their stages to fit together.
_DECODER_MULTIPLES = {"dpt": 32, "zoedepth": 32, "glpn": 32}
_MEAN_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
}
_DEFAULT_NORMALIZATION = {"depth_anything": "imagenet", "glpn": "none"}
"""Key of `_MEAN_STD` by architecture, where no preprocessor states it; "half", to [-1, 1], for all others."""


@dataclass(frozen=True)
class PreprocessSpec:
    """Input size and normalization of a network."""

    size: int
    """Side in pixels of the square that the network is made for."""
    multiple: int
    """Both sides of the input are multiples of this."""
    square: bool
    """The input is always `size` x `size`, whatever the image's aspect."""
    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, of pixels in [0, 1]."""

    def input_hw(self, hw: HW) -> HW:
        """Return the input size: short side `size`, aspect kept up to `multiple`, area at most `_MAX_AREA`."""
        if self.square:
            return self.size, self.size
        scale = min(self.size / min(hw), self.size * math.sqrt(_MAX_AREA / (hw[0] * hw[1])))
        h, w = (max(self.multiple, self.multiple * round(scale * side / self.multiple)) for side in hw)
        return h, w


def preprocess_spec(
    config: PretrainedConfig, preprocessor: Mapping[str, Any] | None, size: int | None, name: str
) -> PreprocessSpec:
    """Read the spec from a model's config and preprocessor config; `size`, where given, replaces the stated one.

    Raises `NetworkError` for values that make no sense.
    """
    stated, model_type = dict(preprocessor or {}), config.model_type
    encoder = encoder_config(config)
    fixed = model_type == "depth_pro"
    # The library's DPT without a backbone of its own takes the square root of the number of patches for either side.
    square = fixed or (model_type == "dpt" and (config.is_hybrid or config.backbone_config is None))
    try:
        mean, std = _mean_std(stated, model_type)
        patch = encoder.get("patch_size", 1)
        patch = patch[0] if isinstance(patch, list | tuple) else patch
        multiples = [patch, _DECODER_MULTIPLES.get(model_type, 1) if patch != 14 else 1]
        multiples += [stated.get("ensure_multiple_of") or 1, stated.get("size_divisor") or 1]
        multiple = math.lcm(*(int(each) for each in multiples)) if not fixed else 1
        stated_size = _depth_pro_size(config) if fixed else _square_size(stated.get("size"), model_type)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise NetworkError(f"the preprocessor of {name} makes no sense: {error}") from error
    if size is not None and fixed and size != stated_size:
        raise NetworkError(f"{name} takes pictures of {stated_size} x {stated_size} alone: leave size out")
    side = size or stated_size
    if not (1 <= multiple <= 256 and multiple <= side <= 4096):
        raise NetworkError(f"{name} cannot work at size {side} in multiples of {multiple}: choose another size")
    return PreprocessSpec(multiple * round(side / multiple) if square else side, multiple, square, mean, std)


def _mean_std(stated: Mapping[str, Any], model_type: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, of pixels in [0, 1]."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean, std = _MEAN_STD[_DEFAULT_NORMALIZATION.get(model_type, "half")]
    normalized = stated.get("do_normalize", model_type != "glpn")
    if not normalized:
        mean, std = _MEAN_STD["none"]
    elif "image_mean" in stated and "image_std" in stated:
        # Pixels of 0 to 255 are multiplied by the rescale factor before they are normalized.
        unit = 255.0 * (float(stated.get("rescale_factor", 1 / 255)) if stated.get("do_rescale", True) else 1.0)
        mean = tuple(float(value) / unit for value in stated["image_mean"])
        std = tuple(float(value) / unit for value in stated["image_std"])
    if len(mean) != 3 or len(std) != 3 or not all(math.isfinite(value) and value > 0 for value in std):
        raise ValueError(f"mean {mean} and standard deviation {std} of pixels")
    return mean, std


def _square_size(size: Any, model_type: str) -> int:
    """Return the side of a square with as many pixels as the preprocessor's `size`."""
    if size is None:
        return _DEFAULT_SIZES.get(model_type, _DEFAULT_SIZE)
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return round(math.sqrt(int(size["height"]) * int(size["width"])))
    return int(size)


def _depth_pro_size(config: PretrainedConfig) -> int:
    """Return the side of Depth Pro's input: its patches are cut from scaled copies, the smallest of one patch."""
    return int(config.patch_size / min(config.scaled_images_ratios))
