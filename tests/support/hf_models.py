"""Tiny models of every architecture of the Hub's that is a depth network, built from config and saved as folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

from sfmttr.networks.base import resize_depth
from sfmttr.networks.huggingface import adapter, loader
from sfmttr.networks.huggingface.model_id import ModelId
from sfmttr.types import DepthKind
from tools.synthetic import RenderedClip

_VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
_FUSION = {"neck_hidden_sizes": [8, 16, 32, 32], "fusion_hidden_size": 16}
_DINO = {
    **_VIT,
    "model_type": "dinov2",
    "image_size": 70,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
    "reshape_hidden_states": False,
    "apply_layernorm": True,
}
_PATCHES = {**_VIT, "model_type": "dinov2", "image_size": 32, "patch_size": 8, "mlp_ratio": 2}
_ANYTHING = {
    "backbone_config": _DINO,
    "reassemble_hidden_size": 32,
    "head_hidden_size": 8,
    "patch_size": 14,
    **_FUSION,
}
_IMAGENET = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class TinyModel:
    """One architecture."""

    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    kind: DepthKind
    options: str = ""
    """Options that its name needs."""

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])


MODELS = {
    "depth-anything": TinyModel(
        {"model_type": "depth_anything", **_ANYTHING},
        {**_IMAGENET, "size": {"height": 70, "width": 70}, "ensure_multiple_of": 14, "keep_aspect_ratio": True},
        DepthKind.AFFINE_DISPARITY,
    ),
    "depth-anything-metric": TinyModel(
        {"model_type": "depth_anything", "depth_estimation_type": "metric", "max_depth": 20, **_ANYTHING},
        None,
        DepthKind.METRIC,
        ",size=70",
    ),
    "dpt": TinyModel(
        {
            "model_type": "dpt",
            **_VIT,
            **_FUSION,
            "intermediate_size": 64,
            "image_size": 64,
            "patch_size": 16,
            "backbone_out_indices": [0, 1, 2, 3],
            "is_hybrid": False,
        },
        {"size": 64, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        DepthKind.AFFINE_DISPARITY,
    ),
    "dpt-dinov2": TinyModel(
        {"model_type": "dpt", "backbone_config": _DINO, **_FUSION},
        # As published: pixels of 0 to 255, sizes padded to multiples.
        {
            "do_rescale": False,
            "image_mean": [123.675, 116.28, 103.53],
            "image_std": [58.395, 57.12, 57.375],
            "size_divisor": 14,
            "size": {"height": 70, "width": 70},
        },
        DepthKind.METRIC,
        ",kind=metric",
    ),
    "glpn": TinyModel(
        {
            "model_type": "glpn",
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
        {"size_divisor": 32},
        DepthKind.METRIC,
        ",size=64",
    ),
    "zoedepth": TinyModel(
        {
            "model_type": "zoedepth",
            "backbone_config": {
                **_VIT,
                "model_type": "beit",
                "image_size": 64,
                "patch_size": 16,
                "intermediate_size": 64,
                "reshape_hidden_states": False,
                "use_relative_position_bias": True,
                "out_indices": [1, 2, 3, 4],
            },
            **_FUSION,
            "bottleneck_features": 16,
            "num_relative_features": 8,
            "bin_embedding_dim": 16,
            "bin_configurations": [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
            "num_attractors": [4, 2, 2, 1],
        },
        {"size": {"height": 64, "width": 64}, "ensure_multiple_of": 32},
        DepthKind.METRIC,
    ),
    "depth-pro": TinyModel(
        {
            "model_type": "depth_pro",
            "fusion_hidden_size": 16,
            "patch_size": 32,
            "intermediate_hook_ids": [2, 1],
            "intermediate_feature_dims": [8, 8],
            "scaled_images_ratios": [0.25, 0.5, 1.0],
            "scaled_images_overlap_ratios": [0.0, 0.5, 0.25],
            "scaled_images_feature_dims": [16, 16, 8],
            "merge_padding_value": 1,
            "use_fov_model": True,
            **{f"{part}_model_config": _PATCHES for part in ("image", "patch", "fov")},
        },
        None,
        DepthKind.METRIC,
    ),
}


def build(tiny: TinyModel) -> Any:
    """The model of `transformers`, randomly initialised."""
    from transformers import AutoConfig, AutoModelForDepthEstimation

    torch.manual_seed(0)
    config = {key: value for key, value in tiny.config.items() if key != "model_type"}
    model = AutoModelForDepthEstimation.from_config(AutoConfig.for_model(tiny.model_type, **config))
    # As they are initialised, decoders give about nothing: all parity would hold of it.
    generator = torch.Generator().manual_seed(1)
    pro = tiny.model_type == "depth_pro"
    for name, value in model.named_parameters():
        if not pro and name.split(".")[0] in ("neck", "head", "decoder", "fusion_stage") and value.dim() > 1:
            torch.nn.init.kaiming_uniform_(value, generator=generator)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == 1 and "head" in name:
            # What a ReLU or a sigmoid comes after: small, and on the side that learns. A view is 60 degrees wide.
            torch.nn.init.normal_(layer.weight, std=0.0 if pro else 0.02, generator=generator)
            metric = -1.5 if tiny.config.get("max_depth") else 2.0
            bias = metric if not pro else 60.0 if name.startswith("fov_model") else 0.3
            torch.nn.init.constant_(layer.bias, bias)
    return model


def save(tiny: TinyModel, folder: Path, model: Any = None) -> str:
    """Lay the model out as the Hub does; gives the name to load it by."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model or build(tiny)
    # As the library would, less its progress bar.
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\nFor tests alone.\n")
    if tiny.preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(tiny.preprocessor))
    return f"{folder}{tiny.options}"


def fit(network: adapter.HubNetwork, clip: RenderedClip, steps: int = 60) -> adapter.HubNetwork:
    """Train `network` on a clip's true depth, or on `5 / depth + 1`: the more steps, the better it fits."""
    images = torch.cat([network.prepare(rgb) for rgb in clip.rgb])
    depth = torch.from_numpy(clip.depth)[:, None]
    inverse = network.info.kind is DepthKind.AFFINE_DISPARITY
    true = 5 / depth + 1 if inverse else depth
    optimizer = torch.optim.Adam(
        network.parameters(), lr=1e-4 if network.model.config.model_type == "depth_pro" else 2e-3
    )
    for step in range(steps):
        rows = torch.arange(4) + 4 * step
        optimizer.zero_grad()
        said = network(images[rows % len(images)])
        target = functional.interpolate(true[rows % len(images)], said.shape[-2:], mode="area")
        (said / target - 1).abs().mean().backward()
        optimizer.step()
    return network.eval()


def load_fitted(name: str, folder: Path, clip: RenderedClip, steps: int = 60) -> str:
    """Save the architecture called `name` with weights that half fit the clip; gives the name to load it by."""
    tiny = MODELS[name]
    text = save(tiny, folder)
    network = fit(loader.load(ModelId.parse(text)), clip, steps)
    return save(tiny, folder, network.model)


def error(network: adapter.HubNetwork, clip: RenderedClip) -> float:
    """Mean relative error of what it says of the clip's first frame."""
    depth = torch.from_numpy(clip.depth[:1])[:, None]
    true = 5 / depth + 1 if network.info.kind is DepthKind.AFFINE_DISPARITY else depth
    with torch.no_grad():
        said = resize_depth(network(network.prepare(clip.rgb[0])), (depth.shape[-2], depth.shape[-1]))
    return float((said / true - 1).abs().mean())
