"""Any depth network of the Hugging Face Hub that `transformers` has the architecture of, by its id or from a folder.

What a network gives (metric depth, or inverse depth up to scale and shift) and how pictures go into it is read off its
config and its preprocessor's; what they do not say has to be said with the name. Preprocessing is done here, in torch,
so that it is the same in training, in prediction and in exported graphs.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from sfmttr.config import FinetuneSetting, TrainableScope
from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks.base import DepthNetwork, in_float32
from sfmttr.networks.huggingface import repository
from sfmttr.networks.huggingface.model_id import ModelId
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.inverse_depth import depth_of
from sfmttr.types import HW, DepthKind, OnProgress, ignore_progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_log = logging.getLogger(__name__)
_MOST_AREA = 1.4
"""Of a picture's working size, in squares of the size that the network is made for: what 4:3 pictures have when their
short side is of that size. Longer ones are made smaller, since the time of a transformer grows faster than the area."""
_DEFAULT_SIZES = {"depth_anything": 518, "dpt": 384, "zoedepth": 384, "depth_pro": 1536}
_DEFAULT_SIZE = 480
_MULTIPLES = {"dpt": 32, "zoedepth": 32, "glpn": 32}
"""Of sides, beside the patches' size: what decoders need so that their stages fit together."""
_PIXELS = {"depth_anything": "imagenet", "glpn": "none"}
"""How pixels are normalised where no preprocessor says so; others: to [-1, 1]."""
_MEAN_STD = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
}
_ONE_SIZE_AT_A_TIME = {"dpt", "zoedepth"}
"""DPT asks whether two sizes are the same, which a tracer answers once for all; ZoeDepth's position biases make it
reason about free sizes for minutes, and fail in the end."""
_LEAST_DEPTH = 1e-3
"""Metres. Heads that end in a ReLU say 0 of what they know nothing of."""
_DECODER_PARTS = {"neck", "head", "decoder", "fusion_stage", "relative_head", "metric_head", "fov_model"}
_DEPTH_PRO_FLOOR = 1e-4
"""In its inverse depth: 10 km and more are as far as it goes."""
_CHECKPOINT_BYTES = 2 << 30
"""Of features that a step keeps for gradients; above it, they are computed again instead."""
_KEPT_A_TOKEN = 80
"""Bytes for gradients a token, channel and block: about twenty tensors of float32. `benchmarks.transformer_memory` has
72 of Depth-Anything-V2-Base when its encoder is trained, 84 to 90 by LoRA, which makes weights anew."""
_MOST_LAYERS, _MOST_WIDTH, _CONFIG_DEPTH = 1_000, 1_000_000, 4
"""Of a config: more is a mistake, or meant to keep a machine busy."""
_TINY_HW = (2, 3)
"""In multiples: a picture to find out which parameters matter."""
_HOOKS, _HOOKED = "transformers.utils.output_capturing", "_output_capturing_hooks_installed"
_WIDTHS = ("hidden_size", "hidden_sizes", "embed_dim")


@dataclass(frozen=True)
class PreprocessSpec:
    """How pictures go into a network."""

    size: int
    """Side of the square that it is made for."""
    multiple: int
    """Sides are multiples of this."""
    square: bool
    """It takes squares alone, whatever the picture's aspect."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of pixels in [0, 1]."""

    def input_hw(self, hw: HW) -> HW:
        """The short side at `size`, the aspect kept as well as the multiple allows, at most `_MOST_AREA` in all."""
        if self.square:
            return self.size, self.size
        scale = min(self.size / min(hw), self.size * math.sqrt(_MOST_AREA / (hw[0] * hw[1])))
        h, w = (max(self.multiple, self.multiple * round(scale * side / self.multiple)) for side in hw)
        return h, w


class HubNetwork(DepthNetwork):
    """A model of `transformers` as a `DepthNetwork`."""

    # Held-out points of all four clips got most from the decoder in equal time, and least from the encoder, by LoRA or
    # not (`benchmarks.transformers`, on a small stand-in for published weights). There 1e-3 was better still in few
    # steps, and 3e-3 went astray: with as many steps as the default preset makes, 3e-4 is on the safe side.
    finetune_settings = (
        FinetuneSetting(TrainableScope.DECODER, 3e-4),
        FinetuneSetting(TrainableScope.ALL, 1e-4),
        FinetuneSetting(TrainableScope.ENCODER, 1e-4),
        FinetuneSetting(TrainableScope.LORA, 1e-3),
    )
    max_batch_size = 1
    mean: Tensor
    std: Tensor

    def __init__(
        self, info: NetworkInfo, model: PreTrainedModel, reading: PreprocessSpec, build_config: Mapping[str, Any]
    ):
        super().__init__()
        self.info = info
        self.model = model
        self.reading = reading
        self._build_config = build_config
        self.supports_dynamic_size = not reading.square and model.config.model_type not in _ONE_SIZE_AT_A_TIME
        # Not in the state dict: they are part of how the network is built, not of its weights.
        self.register_buffer("mean", torch.tensor(reading.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(reading.std).view(1, 3, 1, 1), persistent=False)

    def input_hw(self, hw: HW) -> HW:
        return self.reading.input_hw(hw)

    def forward(self, image: Tensor) -> Tensor:
        self._keep_or_recompute((image.shape[-2], image.shape[-1]))
        output = self.model(pixel_values=(image - self.mean) / self.std)
        depth = output.predicted_depth
        if self.model.config.model_type == "depth_pro":
            view = getattr(output, "field_of_view", None)
            depth = in_float32(_depth_pro_depth, depth, *([] if view is None else [view]))
        return self._checked(depth)

    def _checked(self, depth: Tensor) -> Tensor:
        """(B, 1, h, w) of what the library gives (B, h, w)."""
        depth = depth.unsqueeze(1) if depth.dim() == 3 else depth
        return depth.clamp(min=_LEAST_DEPTH) if self.info.kind is DepthKind.METRIC else depth

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, value in self.named_parameters():
            # A mask token is for pretraining alone.
            if not _DECODER_PARTS.intersection(name.split(".")[1:3]) and not name.endswith(".mask_token"):
                yield name, value

    def build_config(self) -> Mapping[str, str]:
        return {"hf": json.dumps(self._build_config, sort_keys=True)}

    def __getstate__(self) -> object:
        # When a model first runs, the library hangs functions on its parts that cannot be pickled; and does so again.
        for part in self.model.modules():
            part.__dict__.pop(_HOOKED, None)
            for key, hook in list(part._forward_hooks.items()):
                if getattr(hook, "__module__", None) == _HOOKS:
                    del part._forward_hooks[key]
        return super().__getstate__()

    @contextmanager
    def dynamic_shape_tracing(self) -> Iterator[None]:
        """Some architectures make sizes whole numbers, which tracers take for constants: not within this."""
        modules = {type(part).__module__ for part in self.model.modules()}
        modeling = [sys.modules[name] for name in modules if name.startswith("transformers.models.")]
        with ExitStack() as stack:
            for module in modeling:
                stack.enter_context(patch.object(module, "int", _whole, create=True))
                if hasattr(module, "torch_int"):
                    stack.enter_context(patch.object(module, "torch_int", _whole))
            yield

    def _keep_or_recompute(self, hw: HW) -> None:
        """Have blocks of the encoder compute their features again for gradients, where keeping them takes too much."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        blocks = [part for part in self.model.modules() if isinstance(part, GradientCheckpointingLayer)]
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            recompute = False
        else:
            tokens = hw[0] * hw[1] / self._patch_area()
            recompute = tokens * self._width() * len(blocks) * _KEPT_A_TOKEN > _CHECKPOINT_BYTES
            if recompute and not all(block.gradient_checkpointing for block in blocks):
                # by its new name where the library has that, or it warns of the old one
                enable = getattr(self.model, "activation_checkpointing_enable", None)
                (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
        for block in blocks:
            # The library recomputes in training mode only; the block has no other use for the flag, its parts have.
            block.training = recompute

    def _patch_area(self) -> int:
        patch_size = _encoder_config(self.model.config).get("patch_size", 4)
        return math.prod(patch_size) if isinstance(patch_size, list | tuple) else int(patch_size) ** 2

    def _width(self) -> int:
        config = _encoder_config(self.model.config)
        width = next((config[name] for name in _WIDTHS if name in config), 256)
        return max(width) if isinstance(width, list | tuple) else int(width)


class DepthAnythingNetwork(HubNetwork):
    """Depth Anything on DINOv2, which most people ask for, in two parts: what its encoder says of a frame does not
    change while its decoder is trained."""

    cached_step_cost = 0.3

    @property
    def _library(self) -> Any:
        return self.model  # of a class that says nothing of its parts' types

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """(0, rows, columns), which says how many patches there are; then the encoder's tokens of every stage that the
        decoder looks at, (B, 1 + rows * columns, C)."""
        self._keep_or_recompute((image.shape[-2], image.shape[-1]))
        patch = self.model.config.patch_size
        size = image.new_empty((0, image.shape[-2] // patch, image.shape[-1] // patch))
        return (size, *self._library.backbone((image - self.mean) / self.std).feature_maps)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        size, *maps = features
        rows, columns = size.shape[1:]
        return self._checked(self._library.head(self._library.neck(maps, rows, columns), rows, columns))

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder_parameters()


def _adapter(model: PreTrainedModel) -> type[HubNetwork]:
    """The class for an architecture."""
    backbone = _encoder_config(model.config)
    is_plain = model.config.model_type == "depth_anything" and backbone["model_type"] == "dinov2"
    return DepthAnythingNetwork if is_plain and not backbone["reshape_hidden_states"] else HubNetwork


def _whole(value: Any) -> Any:
    """`int`, but sizes that are free stay so."""
    return value if isinstance(value, torch.SymInt) else int(value)


def _depth_pro_depth(canonical: Tensor, view_deg: Tensor | None = None) -> Tensor:
    """Depth (B, h, w) of Depth Pro's inverse depth (B, h, w) for a focal length of one picture's width; in metres where
    it also says how wide the view is, in degrees (B,)."""
    depth = depth_of(canonical, _DEPTH_PRO_FLOOR)
    if view_deg is None:
        return depth
    return depth * (0.5 / torch.tan(0.5 * torch.deg2rad(view_deg.clamp(1.0, 179.0))))[:, None, None]


# ----------------------------------------------------------------------------------- what the files say


def _encoder_config(config: PretrainedConfig) -> dict[str, Any]:
    """Of the part that makes features of the picture."""
    for name in ("backbone_config", "patch_model_config"):
        inner = getattr(config, name, None)
        if inner is not None:
            return dict(inner if isinstance(inner, dict) else inner.to_dict())
    return config.to_dict()


def kind_of(config: Mapping[str, Any], name: str) -> DepthKind:
    """What a network gives, by its config. Raises `NetworkError` where that does not say."""
    model_type = str(config.get("model_type"))
    if model_type == "depth_anything":
        relative = config.get("depth_estimation_type", "relative") == "relative"
        return DepthKind.AFFINE_DISPARITY if relative else DepthKind.METRIC
    if model_type in ("glpn", "zoedepth"):
        return DepthKind.METRIC
    if model_type == "depth_pro":
        return DepthKind.METRIC if config.get("use_fov_model") else DepthKind.SCALE_INVARIANT
    backbone = config.get("backbone_config") or {}
    if model_type == "dpt" and backbone.get("model_type") != "dinov2":
        return DepthKind.AFFINE_DISPARITY  # MiDaS; what DINOv2's authors put on theirs is metric, or not
    raise NetworkError(
        f"the config of {name} does not say what the network gives: write {name},kind=metric if it gives metres, or "
        f"{name},kind=affine_disparity if it gives inverse depth up to scale and shift"
    )


def _config(card: Mapping[str, Any], name: str) -> PretrainedConfig:
    """The library's own config class of `card`, which runs no code of the model's. Raises `NetworkError`."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES as KNOWN

    model_type = card.get("model_type")
    if not isinstance(model_type, str) or model_type not in KNOWN:
        what = f"a {model_type} model" if isinstance(model_type, str) else "not a model of transformers"
        raise NetworkError(
            f"{name} is {what}, not a depth network that transformers knows ({', '.join(sorted(KNOWN))}): choose one "
            "of the Hub's models for depth estimation"
        )
    if model_type == "prompt_depth_anything":
        raise NetworkError(
            f"{name} needs measured depth beside the picture, which a clip has not: choose another model"
        )
    if card.get("use_timm_backbone"):
        raise NetworkError(f"{name} needs the library timm, which is not used here: choose another model")
    _check_config_limits(card, name)
    given = {key: value for key, value in card.items() if key not in ("auto_map", "_name_or_path", "model_type")}
    if given.get("max_depth", 1) is None:  # as earlier versions of the library took it
        del given["max_depth"]
    try:
        return AutoConfig.for_model(model_type, **given)
    except Exception as error:  # of a stranger's file, checked by whatever each architecture likes
        raise NetworkError(f"the config of {name} cannot be read: {_first_line(error)}") from error


def _check_config_limits(card: Mapping[str, Any], name: str, depth: int = 0) -> None:
    """Raise `NetworkError` for a config that would take for ever to build, before anything is built of it."""
    for key, value in card.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if isinstance(value, Mapping) and depth < _CONFIG_DEPTH:
            _check_config_limits(value, name, depth + 1)
        most = _MOST_LAYERS if "layers" in str(key) or key == "depths" else _MOST_WIDTH
        too_large = any(isinstance(each, int) and each > most for each in values)
        if too_large or (isinstance(value, Mapping) and depth == _CONFIG_DEPTH) or len(values) > _MOST_LAYERS:
            raise NetworkError(f"the config of {name} is of no network that fits on a machine ({key}): choose another")


def _reading(
    config: PretrainedConfig, preprocessor: Mapping[str, Any] | None, size: int | None, name: str
) -> PreprocessSpec:
    """How pictures go in. Raises `NetworkError` for what makes no sense."""
    told, model_type = dict(preprocessor or {}), config.model_type
    encoder = _encoder_config(config)
    fixed = model_type == "depth_pro"
    # The library's DPT without a backbone of its own takes the root of the number of patches for either side.
    square = fixed or (model_type == "dpt" and (config.is_hybrid or config.backbone_config is None))
    try:
        mean, std = _mean_std(told, model_type)
        patch = encoder.get("patch_size", 1)
        patch = patch[0] if isinstance(patch, list | tuple) else patch
        multiples = [patch, _MULTIPLES.get(model_type, 1) if patch != 14 else 1]
        multiples += [told.get("ensure_multiple_of") or 1, told.get("size_divisor") or 1]
        multiple = math.lcm(*(int(each) for each in multiples)) if not fixed else 1
        own = _made_for(config) if fixed else _told_size(told.get("size"), model_type)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise NetworkError(f"the preprocessor of {name} makes no sense: {error}") from error
    if size is not None and fixed and size != own:
        raise NetworkError(f"{name} takes pictures of {own} x {own} alone: leave size out")
    side = size or own
    if not (1 <= multiple <= 256 and multiple <= side <= 4096):
        raise NetworkError(f"{name} cannot work at size {side} in multiples of {multiple}: choose another size")
    return PreprocessSpec(multiple * round(side / multiple) if square else side, multiple, square, mean, std)


def _mean_std(told: Mapping[str, Any], model_type: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of pixels in [0, 1]."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean, std = _MEAN_STD[_PIXELS.get(model_type, "half")]
    normalised = told.get("do_normalize", model_type != "glpn")
    if not normalised:
        mean, std = _MEAN_STD["none"]
    elif "image_mean" in told and "image_std" in told:
        # What pixels of 0 to 255 are multiplied with before they are normalised.
        unit = 255.0 * (float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1.0)
        mean = tuple(float(value) / unit for value in told["image_mean"])
        std = tuple(float(value) / unit for value in told["image_std"])
    if len(mean) != 3 or len(std) != 3 or not all(math.isfinite(value) and value > 0 for value in std):
        raise ValueError(f"mean {mean} and standard deviation {std} of pixels")
    return mean, std


def _told_size(size: Any, model_type: str) -> int:
    """The side of a square of as many pixels as the preprocessor asks for."""
    if size is None:
        return _DEFAULT_SIZES.get(model_type, _DEFAULT_SIZE)
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return round(math.sqrt(int(size["height"]) * int(size["width"])))
    return int(size)


def _made_for(config: PretrainedConfig) -> int:
    """Side of the picture that Depth Pro cuts its patches from, the largest of which has it at full size."""
    return int(config.patch_size / min(config.scaled_images_ratios))


# -------------------------------------------------------------------------------------------- building


@dataclass(frozen=True)
class _ModelSpec:
    """What a model's small files say of it."""

    card: repository.ModelCard
    config: PretrainedConfig
    reading: PreprocessSpec
    info: NetworkInfo


def _read_spec(name: ModelId, on_progress: OnProgress) -> _ModelSpec:
    """Raises `NetworkError` for what is no depth network, `WeightsError` for files that cannot be had."""
    card = repository.describe(name.location, on_progress)
    config = _config(card.config, name.shown)
    kind = name.kind or kind_of(card.config, name.shown)
    return _ModelSpec(card, config, _reading(config, card.preprocessor, name.size, name.shown), _info(name, card, kind))


def describe(name: ModelId, on_progress: OnProgress = ignore_progress) -> tuple[NetworkInfo, int]:
    """What users are told of a model, and its number of parameters, by its small files alone.

    Raises as `load` does before it fetches any weights.
    """
    from transformers import AutoModelForDepthEstimation

    told = _read_spec(name, on_progress)
    try:
        with torch.device("meta"):  # nothing is computed or kept
            model = AutoModelForDepthEstimation.from_config(told.config)
    except Exception as error:  # whatever a stranger's config makes the library raise
        raise NetworkError(f"no network can be built by the config of {name.shown}: {_first_line(error)}") from error
    return told.info, sum(value.numel() for value in model.parameters())


def load(name: ModelId, on_progress: OnProgress = ignore_progress, known: NetworkInfo | None = None) -> HubNetwork:
    """The network with its published weights, in evaluation mode on the CPU.

    `known`: what is known of it, where it has a name of ours. Raises `NetworkError` for what is no depth network,
    `WeightsError` for weights that cannot be had or do not fit.
    """
    from transformers import AutoModelForDepthEstimation

    told = _read_spec(name, on_progress)
    folder = repository.fetch_weights(name.location, told.card, on_progress)[0].parent
    info = replace(known, kind=told.info.kind, source=told.info.source) if known else told.info
    try:
        with _quiet():
            model, found = AutoModelForDepthEstimation.from_pretrained(
                folder,
                config=told.config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # whatever a stranger's files make the library raise
        raise WeightsError(f"the weights of {name.shown} do not fit its config: {_first_line(error)}") from error
    build_config = _build_config(told.card.config, told.card.preprocessor, name.size)
    network = _adapter(model)(info, model.eval(), told.reading, build_config).eval()
    _check_complete(network, found, name.shown)
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """The library draws progress bars and warns of what is checked here."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def rebuild(build_config: str, info: NetworkInfo) -> HubNetwork:
    """The architecture that `HubNetwork.build_config` describes, with random weights. Raises `NetworkError`."""
    from transformers import AutoModelForDepthEstimation

    try:
        given = json.loads(build_config)
        card, preprocessor, size = given["config"], given["preprocessor"], given["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(f"what the file of weights says of {info.name} is damaged; run refine again") from error
    config = _config(card, info.name)
    model = AutoModelForDepthEstimation.from_config(config, dtype=torch.float32)
    return _adapter(model)(info, model.eval(), _reading(config, preprocessor, size, info.name), given).eval()


def _build_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, size: int | None
) -> dict[str, Any]:
    """What `rebuild` needs, without what says where somebody keeps their files."""
    kept = {key: value for key, value in config.items() if key not in ("_name_or_path", "auto_map")}
    return {"config": kept, "preprocessor": preprocessor, "size": size}


def _info(name: ModelId, card: repository.ModelCard, kind: DepthKind) -> NetworkInfo:
    what = f"{card.config['model_type']} of the Hugging Face Hub" if name.location.repository else "from a folder"
    return NetworkInfo(name.pinned(card.revision), kind, card.licence, _page(name, card), what)


def _page(name: ModelId, card: repository.ModelCard) -> str:
    if name.location.repository is None:
        return "a folder of the user's"
    return f"https://huggingface.co/{name.location.repository}/tree/{card.revision}"


def _check_complete(network: HubNetwork, found: Mapping[str, Any], name: str) -> None:
    """Every weight that has a say in the depth must have come from the file."""
    missing, mismatched = set(found.get("missing_keys", ())), found.get("mismatched_keys", ())
    if mismatched:
        raise WeightsError(f"the weights of {name} do not fit its config ({len(mismatched)} of another shape)")
    if missing:
        # Published files leave out what no picture passes through, as a fusion stage with nothing to fuse.
        needed = sorted(missing & _parameters_in_use(network.model, network.reading, name))
        if needed:
            raise WeightsError(
                f"the weights of {name} are incomplete ({len(needed)} missing, {needed[0]} among them): choose another "
                "model, or ask its authors"
            )
    if found.get("unexpected_keys"):
        _log.info("%s holds weights that its architecture has no use for: %s", name, found["unexpected_keys"])


def _parameters_in_use(model: PreTrainedModel, reading: PreprocessSpec, name: str) -> set[str]:
    """Names of the parameters and buffers that depth depends on. Raises `NetworkError`."""
    h, w = (reading.size,) * 2 if reading.square else (reading.multiple * factor for factor in _TINY_HW)
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad():
            model(pixel_values=torch.rand((1, 3, h, w))).predicted_depth.sum().backward()
    except Exception as error:  # whatever a stranger's config makes the library raise
        raise NetworkError(f"the config of {name} makes no network that runs: {_first_line(error)}") from error
    used = {name for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    return used | {name for name, _ in model.named_buffers()}


def _first_line(error: BaseException) -> str:
    """What went wrong, without the addresses and paths that libraries add."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"(?:https?:/|(?<!\w))/\S+", "...", lines[0])[:200]
