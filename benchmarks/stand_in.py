"""Train a small Depth Anything on generated scenes: something to measure refinements of transformers on, off-line.

    python -m tools.render_scene dataset data --scenes 500 --views 6
    python -m benchmarks.stand_in data --out stand-in [--minutes 20] [--seed 0] [--resume]

Writes a folder that `--network ./stand-in` takes: config.json, preprocessor_config.json, model.safetensors, README.md
and how the training went. Like the networks that it stands for, it gives inverse depth up to scale and shift, learned
from truth that is normalised as MiDaS does (Ranftl et al., TPAMI 2022). It has seen a millionth of what they have seen,
and no real picture: it tells how a transformer takes to being refined, not how good one is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from tools.train_bundled import keep_memory
from tools.training.batches import Batch, BatchSource, zoomed
from tools.training.loop import Average, learning_rate_factor, pixels_at
from tools.training.losses import gradient_loss
from tools.training.measure import kind_of
from tools.training.shards import Library, Scene

PATCH, SIZE, WIDTH, BLOCKS = 14, 196, 192, 8
"""Pixels of a patch; side of the square that it is made for; channels and blocks of the encoder."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHECKPOINT, CURVE, PREVIEW = "checkpoint.pt", "curve.json", "preview.png"
_AVERAGE = 0.995
_GRADIENT, _MIDDLE = 0.5, 3.0
_LEAST_SPREAD = 1e-3
_VIEWS = 60
"""Held-out views of each kind that it is measured on."""

_CARD = """---
license: apache-2.0
pipeline_tag: depth-estimation
library_name: transformers
---
# A stand-in

A Depth Anything of {parameters:,} parameters, trained for {minutes:.0f} minutes on {threads} thread(s) on generated
pictures alone, to measure refinements of such networks with. It has never seen a real picture.

- Made by `python -m benchmarks.stand_in`, seed {seed}, from {data}; {samples:,} pictures seen.
- AbsRel on held-out scenes, each view with its own scale and shift: {errors}.
"""


# -------------------------------------------------------------------------------------------- network


def build(seed: int) -> DepthAnythingForDepthEstimation:
    """With first weights that learn faster than random ones."""
    backbone = Dinov2Config(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=3,
        out_indices=[2, 4, 6, 8],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=WIDTH,
        neck_hidden_sizes=[32, 48, 96, 192],
        fusion_hidden_size=48,
        head_hidden_size=16,
        depth_estimation_type="relative",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        _first_weights(model, np.random.default_rng(seed))
    return model


def _first_weights(model: DepthAnythingForDepthEstimation, rng: np.random.Generator) -> None:
    """Patches by their cosine transform, places by sines, attention that looks at what is alike and near (Trockman and
    Kolter, "Mimetic initialization", ICML 2023), and a decoder that says one depth of everything."""
    embeddings = model.backbone.embeddings
    embeddings.patch_embeddings.projection.weight.copy_(torch.from_numpy(cosine_patches(WIDTH, PATCH)))
    embeddings.patch_embeddings.projection.bias.zero_()
    embeddings.position_embeddings[0, 1:] = torch.from_numpy(sine_places(SIZE // PATCH, WIDTH))
    for layer in model.backbone.encoder.layer:
        attention = layer.attention
        heads, size = 3, WIDTH // 3
        query, key = attention.q_proj.weight, attention.k_proj.weight
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            noise = rng.standard_normal((WIDTH, WIDTH)) / math.sqrt(WIDTH)
            u, s, v = np.linalg.svd(0.7 * noise + 0.7 * np.eye(WIDTH))
            root = np.sqrt(s[:size])[:, None]
            query[rows] = torch.from_numpy((root * u.T[:size]).astype(np.float32))
            key[rows] = torch.from_numpy((root * v[:size]).astype(np.float32))
        noise = rng.standard_normal((WIDTH, WIDTH)) / math.sqrt(WIDTH)
        u, s, v = np.linalg.svd(0.4 * noise - 0.4 * np.eye(WIDTH))
        attention.v_proj.weight.copy_(torch.from_numpy((np.sqrt(s)[:, None] * v).astype(np.float32)))
        attention.o_proj.weight.copy_(torch.from_numpy((u * np.sqrt(s)).astype(np.float32)))
    for part in [*model.neck.modules(), *model.head.modules()]:
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    for fusion in model.neck.fusion_stage.layers:
        for residual in (fusion.residual_layer1, fusion.residual_layer2):
            residual.convolution2.weight.mul_(0.1)
    model.head.conv3.weight.mul_(0.1)
    model.head.conv3.bias.fill_(_MIDDLE)


def cosine_patches(count: int, side: int) -> np.ndarray:
    """(count, 3, side, side) float32: low frequencies of brightness, and lower ones of two colours, about equal in
    strength on natural pictures."""
    x = (np.arange(side) + 0.5) / side
    waves = np.cos(np.pi * np.arange(side)[:, None] * x) * np.sqrt(np.where(np.arange(side) == 0, 1, 2) / side)[:, None]
    order = sorted(((i, j) for i in range(side) for j in range(side)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    colours = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
    bright = count * 2 // 3
    chosen = [(0, f) for f in order[:bright]]
    rest = count - bright
    chosen += [(1, f) for f in order[: rest // 2]] + [(2, f) for f in order[: rest - rest // 2]]
    kernels = [
        (1 + math.hypot(*f)) / side * colours[c][:, None, None] * np.outer(waves[f[0]], waves[f[1]]) for c, f in chosen
    ]
    return np.stack(kernels).astype(np.float32)


def sine_places(side: int, count: int) -> np.ndarray:
    """(side * side, count) float32: sines and cosines of rows and columns."""
    cycles = np.geomspace(0.25, 5.0, count // 4)
    place = 2 * np.pi * cycles * (np.arange(side)[:, None] + 0.5) / side
    waves = np.concatenate([np.sin(place), np.cos(place)], axis=1)
    rows = np.repeat(waves, side, axis=0)
    columns = np.tile(waves, (side, 1))
    return (0.5 * np.concatenate([rows, columns], axis=1)).astype(np.float32)


def normalised(image: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 1] as the network takes it."""
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def make_optimizer(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; norms, biases and places do not decay. (Muon, which `tools` trains convolutions with, was worse here: at a
    batch of eight, noise is most of what it makes orthogonal.)"""
    matrices = [value for value in model.parameters() if value.ndim in (2, 4)]
    others = [value for value in model.parameters() if value.ndim not in (2, 4)]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


# ----------------------------------------------------------------------------------------------- loss


def relative(truth: Tensor) -> Tensor:
    """Inverse depth (B, h, w) less its median, over its mean distance from it (MiDaS, equation 5): what is left of it
    without scale and shift. Moved to where the last ReLU lets all but the farthest through."""
    flat = truth.flatten(1)
    shifted = flat - flat.median(dim=1, keepdim=True).values
    spread = shifted.abs().mean(dim=1, keepdim=True).clamp(min=_LEAST_SPREAD)
    return (shifted / spread + _MIDDLE).clamp(0.0, 3 * _MIDDLE).view_as(truth)


def loss_of(disparity: Tensor, batch: Batch) -> Tensor:
    """Compute the loss of disparity (B, h, w) before its last ReLU: error and edges at several scales.

    The sky is infinitely far, so its inverse depth is known.
    """
    # Normalizing predictions as MiDaS does makes small batches diverge: uncertain predictions get large gradients.
    error = disparity - relative(torch.where(batch.valid, (-batch.log_depth).exp(), 0.0)[:, 0])
    everywhere = torch.ones_like(error, dtype=torch.bool)
    return error.abs().mean() + _GRADIENT * gradient_loss(error[:, None], everywhere[:, None], 4)


# -------------------------------------------------------------------------------------------- training


class StandIn:
    """The network on its way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = build(options.seed).to(memory_format=torch.channels_last)
        self.model.head.activation2 = nn.Identity()  # see `loss_of`
        self.average = Average(self.model, _AVERAGE)
        self.optimizer = make_optimizer(self.model, options.learning_rate, 0.02)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._options = options
        self.step, self.samples, self.seconds = 0, 0, 0.0
        self.curve: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        return self.seconds / (60 * self._options.minutes)

    def learn(self, batch: Batch) -> float:
        factor = learning_rate_factor(self.progress, 0.04)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        image = normalised(batch.image).contiguous(memory_format=torch.channels_last)
        loss = loss_of(self.model(pixel_values=image).predicted_depth, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += len(batch.image)
        self.average.update(self.model, self.step)
        return float(loss.detach())

    def averaged(self) -> DepthAnythingForDepthEstimation:
        model = build(self._options.seed)
        model.load_state_dict(self.average.state)
        return model.eval()

    def save(self, path: Path) -> None:
        state = {
            "network": self.model.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
            "counts": (self.step, self.samples, self.seconds),
            "curve": self.curve,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["network"])
        self.average.state = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.samples, self.seconds = state["counts"]
        self.curve = state["curve"]


def main() -> None:
    options = _parse()
    torch.set_num_threads(options.threads)
    keep_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    library = Library(options.data)
    library.refresh()
    print(library.describe(), flush=True)
    sizes = tuple((float(until), int(pixels)) for until, pixels in (s.split(":") for s in options.sizes.split(",")))
    training = StandIn(options)
    if options.resume and (options.out / CHECKPOINT).is_file():
        training.load(options.out / CHECKPOINT)
        print(f"going on after step {training.step}", flush=True)
    while training.progress < 1:
        source = BatchSource(library.train, options.batch, options.seed, PATCH)
        losses, until = [], training.seconds + 60 * options.check_minutes
        while training.seconds < until and training.progress < 1:
            started = time.perf_counter()
            batch = source.make(training.step, pixels_at(training.progress, sizes))
            losses.append(training.learn(batch))
            training.seconds += time.perf_counter() - started
        errors = held_out_errors(training.averaged(), library.held_out)
        training.curve.append(
            {"step": training.step, "seconds": training.seconds, "loss": sum(losses[-50:]) / len(losses[-50:])} | errors
        )
        print(json.dumps({"progress": round(training.progress, 3), **training.curve[-1]}), flush=True)
        training.save(options.out / CHECKPOINT)
        preview(training.averaged(), library.held_out, options.out / PREVIEW)
        if library.refresh():
            print(library.describe(), flush=True)
    write(training, library, options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders by `tools.render_scene dataset`; may still grow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--sizes", default="0.5:12000,0.85:24000,1:52000", help="until share of training:pixels,...")
    parser.add_argument("--check-minutes", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


# ----------------------------------------------------------------------------------------- measuring it


@torch.inference_mode()
def held_out_errors(model: DepthAnythingForDepthEstimation, scenes: list[Scene]) -> dict[str, float]:
    """AbsRel by kind of scene, mean over views, of depth up to 80 m; each view with the best scale and shift."""
    errors: dict[str, list[float]] = {}
    for scene in scenes:
        mine = errors.setdefault(kind_of(scene), [])
        for view in range(0, len(scene), 3):
            if len(mine) < _VIEWS:
                disparity, depth = _view(model, scene, view)
                known = (depth > 0) & (depth < 80)
                if known.sum() > 100:
                    mine.append(_affine_error(disparity[known], depth[known]))
    return {kind: float(np.mean(values)) for kind, values in sorted(errors.items()) if values}


def _view(model: DepthAnythingForDepthEstimation, scene: Scene, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Disparity and true depth in metres (0: sky), both (h, w), of about as many pixels as a refinement works on."""
    scale = math.sqrt(1.4 * SIZE**2 / scene.depth[view].size)
    h, w = (PATCH * round(min(1.0, scale) * side / PATCH) for side in scene.depth[view].shape)
    rgb, depth = torch.from_numpy(scene.rgb[view][None]), torch.from_numpy(scene.depth[view][None])
    image, *_ = zoomed(rgb, depth, torch.ones(1), (h, w))
    true = functional.interpolate(depth[None].float(), (h, w), mode="nearest-exact")[0, 0]
    return model(pixel_values=normalised(image)).predicted_depth[0].numpy(), true.numpy()


def _affine_error(disparity: np.ndarray, depth: np.ndarray) -> float:
    """AbsRel with the least squares of inverse depth relative to it."""
    rows = np.stack([disparity, np.ones_like(disparity)], axis=1) * depth[:, None]
    fit, *_ = np.linalg.lstsq(rows, np.ones(len(depth)), rcond=None)
    inverse = np.maximum(disparity * fit[0] + fit[1], 1 / 200)
    return float(np.mean(np.abs(1 / inverse - depth) / depth))


@torch.inference_mode()
def preview(model: DepthAnythingForDepthEstimation, scenes: list[Scene], path: Path) -> None:
    """Held-out views: picture, true inverse depth, what the network says."""
    rows, shown = [], {kind: 0 for kind in ("street", "room")}
    for scene in scenes:
        if shown.get(kind_of(scene), 9) < 4:
            shown[kind_of(scene)] += 1
            disparity, depth = _view(model, scene, 0)
            true = np.where(depth > 0, 1 / np.maximum(depth, 0.1), 0)
            size = (disparity.shape[1], disparity.shape[0])
            picture = np.asarray(Image.fromarray(scene.rgb[0]).resize(size))
            parts = [picture, *(_coloured(values) for values in (true, disparity))]
            rows.append(Image.fromarray(np.concatenate(parts, axis=1)).resize((1200, 1200 * size[1] // (3 * size[0]))))
    sheet = Image.new("RGB", (1200, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)


def _coloured(disparity: np.ndarray) -> np.ndarray:
    low, high = np.quantile(disparity, [0.01, 0.99])
    shade = np.clip((disparity - low) / max(high - low, 1e-6), 0, 1)
    return (255 * np.stack([shade] * 3, axis=-1)).astype(np.uint8)


def write(training: StandIn, library: Library, options: argparse.Namespace) -> None:
    """The folder that others take for a model of the Hub."""
    out: Path = options.out
    model = training.averaged()
    model.save_pretrained(out)
    preprocessor = {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": PATCH,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    (out / CURVE).write_text(json.dumps(training.curve, indent=2) + "\n")
    kinds = [kind for kind in training.curve[-1] if kind not in ("step", "seconds", "loss")]
    card = _CARD.format(
        parameters=sum(p.numel() for p in model.parameters()),
        minutes=training.seconds / 60,
        threads=options.threads,
        data=library.describe(),
        samples=training.samples,
        seed=options.seed,
        errors=", ".join(f"{kind} {training.curve[-1][kind]:.3f}" for kind in kinds),
    )
    (out / "README.md").write_text(card)


if __name__ == "__main__":
    main()
