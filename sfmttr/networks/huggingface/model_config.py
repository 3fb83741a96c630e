"""Reading a model's `config.json`: its architecture, and the kind of its output.

A stranger's config is checked before anything is built from it, and never runs code of the model's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sfmttr.errors import NetworkError
from sfmttr.types import DepthKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# A config beyond these limits is a mistake, or meant to keep a machine busy.
_MAX_LAYERS, _MAX_WIDTH, _MAX_NESTING = 1_000, 1_000_000, 4


def library_config(config: Mapping[str, Any], name: str) -> PretrainedConfig:
    """Return transformers' own config object for `config`. Raises `NetworkError` for what is no depth network."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES as KNOWN

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in KNOWN:
        what = f"a {model_type} model" if isinstance(model_type, str) else "not a model of transformers"
        raise NetworkError(
            f"{name} is {what}, not a depth network that transformers knows ({', '.join(sorted(KNOWN))}): choose one "
            "of the Hub's models for depth estimation"
        )
    if model_type == "prompt_depth_anything":
        raise NetworkError(f"{name} needs measured depth as an input, which a clip does not have: choose another model")
    if config.get("use_timm_backbone"):
        raise NetworkError(f"{name} needs the library timm, which is not used here: choose another model")
    _check_config_limits(config, name)
    options = {key: value for key, value in config.items() if key not in ("auto_map", "_name_or_path", "model_type")}
    if options.get("max_depth", 1) is None:  # as earlier versions of the library wrote it
        del options["max_depth"]
    try:
        return AutoConfig.for_model(model_type, **options)
    except Exception as error:  # each architecture checks its options in its own way
        raise NetworkError(f"the config of {name} cannot be read: {first_line(error)}") from error


def output_kind(config: Mapping[str, Any], name: str) -> DepthKind:
    """Return the kind of a network's output by its config. Raises `NetworkError` where the config leaves it open."""
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
        return DepthKind.AFFINE_DISPARITY  # MiDaS; DPT on DINOv2 is published with and without metric output
    raise NetworkError(
        f"the config of {name} does not state what its output is: write {name},kind=metric if it is depth in metres, "
        f"or {name},kind=affine_disparity if it is inverse depth up to scale and shift"
    )


def encoder_config(config: PretrainedConfig) -> dict[str, Any]:
    """Return the config of the encoder, or all of it where the encoder has no config of its own."""
    for name in ("backbone_config", "patch_model_config"):
        inner = getattr(config, name, None)
        if inner is not None:
            return dict(inner if isinstance(inner, dict) else inner.to_dict())
    return config.to_dict()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the addresses and paths that libraries add."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"(?:https?:/|(?<!\w))/\S+", "...", lines[0])[:200]


def _check_config_limits(config: Mapping[str, Any], name: str, nesting: int = 0) -> None:
    """Raise `NetworkError` for a config that would take for ever to build."""
    for key, value in config.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if isinstance(value, Mapping) and nesting < _MAX_NESTING:
            _check_config_limits(value, name, nesting + 1)
        limit = _MAX_LAYERS if "layers" in str(key) or key == "depths" else _MAX_WIDTH
        too_large = any(isinstance(each, int) and each > limit for each in values)
        if too_large or (isinstance(value, Mapping) and nesting == _MAX_NESTING) or len(values) > _MAX_LAYERS:
            raise NetworkError(f"the config of {name} is of no network that fits on a machine ({key}): choose another")
