"""Train the network `bundled` on generated scenes, and measure it.

    python -m tools.train_bundled train DATA [DATA ...] --out OUT --minutes 60 [--seed 0] [--resume] [--refresh-data]
    python -m tools.train_bundled evaluate OUT [DATA ...]

DATA are folders of `tools/scenes/dataset.py`. OUT gets `bundled.safetensors`, `curve.csv`, `curve.json`, `curve.png`,
`checkpoint.pt` (to resume from) and `facts.json`; `evaluate` adds `errors.json` and `README.md`, the model card.
With `--steps` in place of `--minutes`, and one thread, the same data and seed give the same weights.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.bundled import Bundled
from sfmttr.types import DepthKind
from tools.clips import CLIPS
from tools.training.batches import BatchSource
from tools.training.loop import StepRecord, TrainConfig, Training, seeded
from tools.training.measure import clip_errors, existing_clips, kind_of, scene_errors
from tools.training.report import write_card, write_curve
from tools.training.shards import Library

WEIGHTS, CHECKPOINT, FACTS = "bundled.safetensors", "checkpoint.pt", "facts.json"
_CHECKED_VIEWS, _FINAL_VIEWS = 24, 100
INFO = NetworkInfo(
    "bundled", DepthKind.SCALE_INVARIANT, "Apache-2.0", "tools/train_bundled.py", "trained on generated scenes alone"
)


def main(arguments: list[str] | None = None) -> None:
    options = _parse(arguments)
    keep_memory()
    torch.set_num_threads(options.threads)
    if options.command == "train":
        train(options)
    else:
        evaluate(options.out, options.data)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    defaults = TrainConfig()
    new = commands.add_parser("train", help="train, for a time or a number of steps")
    new.add_argument("data", nargs="+", type=Path)
    new.add_argument("--out", type=Path, required=True)
    length = new.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=defaults.minutes, help="the learning rate ends at zero then")
    length.add_argument("--steps", type=int, help="instead; repeats exactly")
    new.add_argument("--seed", type=int, default=defaults.seed)
    new.add_argument("--batch", type=int, default=defaults.batch)
    new.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    new.add_argument("--optimizer", choices=["muon", "adamw"], default="muon" if defaults.muon else "adamw")
    new.add_argument(
        "--sizes", default=",".join(f"{until:g}:{pixels}" for until, pixels in defaults.sizes), help="until:pixels,..."
    )
    new.add_argument("--first-weights", type=Path, help="start from these instead of from random ones")
    new.add_argument("--check-minutes", type=float, default=4.0, help="between checkpoints")
    new.add_argument("--resume", action="store_true", help="go on from OUT's checkpoint, if there is one")
    new.add_argument("--refresh-data", action="store_true", help="at every checkpoint take in scenes that came since")
    measure = commands.add_parser("evaluate", help="measure OUT's weights and write the model card")
    measure.add_argument("out", type=Path)
    measure.add_argument("data", nargs="*", type=Path)
    for command in (new, measure):
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(arguments)


def keep_memory() -> None:
    """Ask glibc not to give freed memory back: fetching it anew in every step takes a tenth of the time."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, top_pad, mmap_threshold = -1, -2, -3
            mallopt(mmap_threshold, 32 << 20)
            mallopt(trim_threshold, 2000 << 20)
            mallopt(top_pad, 64 << 20)


def config_of(options: argparse.Namespace) -> TrainConfig:
    sizes = tuple((float(until), int(pixels)) for until, pixels in (s.split(":") for s in options.sizes.split(",")))
    return TrainConfig(
        seed=options.seed,
        batch=options.batch,
        steps=options.steps,
        minutes=options.minutes,
        sizes=sizes,
        learning_rate=options.learning_rate,
        muon=options.optimizer == "muon",
    )


def train(options: argparse.Namespace) -> None:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    library = Library(options.data)
    library.refresh()
    print(library.describe(), flush=True)
    config = config_of(options)
    network = seeded(config.seed, lambda: Bundled(INFO))
    if options.first_weights:
        network.load_state_dict(load_file(options.first_weights))
    training = Training(network, config)
    records: list[StepRecord] = []
    checks: list[dict[str, Any]] = []
    if options.resume and (out / CHECKPOINT).is_file():
        extra = training.load(out / CHECKPOINT)
        records = [StepRecord(*row) for row in extra["records"]]
        checks = extra["checks"]
        print(f"going on after step {training.step}", flush=True)
    while training.progress < 1:
        _train_on(training, library, records, options.check_minutes)
        checks.append(_check(training, library))
        print(_line(records, checks[-1]), flush=True)
        training.save(out / CHECKPOINT, {"records": [tuple(asdict(r).values()) for r in records], "checks": checks})
        write_curve(out, records, checks)
        if options.refresh_data and library.refresh():
            print(library.describe(), flush=True)
    facts = facts_of(training, library, options)
    (out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    save_weights(training.averaged(), out / WEIGHTS, facts)


def _train_on(training: Training, library: Library, records: list[StepRecord], minutes: float) -> None:
    """Until the end, or for so long."""
    started = time.perf_counter()
    for record in training.steps(BatchSource(library.train, training.config.batch, training.config.seed)):
        records.append(record)
        if time.perf_counter() - started > 60 * minutes:
            break


def _check(training: Training, library: Library) -> dict[str, Any]:
    errors = scene_errors(training.averaged(), library.held_out, _CHECKED_VIEWS)
    row = {"step": training.step, "samples": training.samples, "progress": training.progress}
    return row | {kind: error.per_scene for kind, error in errors.items()}


def _line(records: list[StepRecord], check: dict[str, Any]) -> str:
    recent = records[-200:]
    seconds = recent[-1].seconds - recent[0].seconds
    rate = (recent[-1].samples - recent[0].samples) / seconds if seconds else 0.0
    loss = sum(record.loss for record in recent) / len(recent)
    errors = " ".join(f"{k} {v:.4f}" for k, v in check.items() if k not in ("step", "samples", "progress"))
    return f"{check['progress']:5.1%} step {check['step']} loss {loss:.4f} {rate:.0f} pictures/s, held out: {errors}"


def facts_of(training: Training, library: Library, options: argparse.Namespace) -> dict[str, Any]:
    """Return the facts about data and training that the model card states."""
    kinds = sorted({kind_of(scene) for scene in library.train})
    counts = {kind: [s for s in library.train if kind_of(s) == kind] for kind in kinds}
    data = ", ".join(f"{len(s)} {kind} scenes with {sum(map(len, s))} views" for kind, s in counts.items())
    length = ["--steps", str(options.steps)] if options.steps else ["--minutes", f"{options.minutes:g}"]
    command = ["python", "-m", "tools.train_bundled", "train", *(path.name for path in options.data)]
    command += ["--out", options.out.name, *length, "--seed", str(options.seed), "--batch", str(options.batch)]
    command += ["--learning-rate", f"{options.learning_rate:g}", "--optimizer", options.optimizer]
    command += ["--sizes", options.sizes, *(["--refresh-data"] if options.refresh_data else [])]
    return {
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "data": data,
        "samples": training.samples,
        "steps": training.step,
        "minutes": training.seconds / 60,
        "threads": options.threads,
        "seed": training.config.seed,
        "command": shlex.join(command),
        "config": asdict(training.config),
    }


def save_weights(network: Bundled, path: Path, facts: dict[str, Any]) -> None:
    """fp32 safetensors with what the weights are."""
    keep = ("data", "samples", "steps", "seed", "command")
    metadata = {"network": "bundled", "licence": "Apache-2.0", "kind": str(network.info.kind)}
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, metadata | {key: str(facts[key]) for key in keep})


def evaluate(out: Path, data: list[Path]) -> None:
    network = Bundled(INFO).eval()
    network.load_state_dict(load_file(out / WEIGHTS))
    library = Library(data)
    library.refresh()
    scenes = scene_errors(network, library.held_out, _FINAL_VIEWS)
    clips = existing_clips((name, clip.path, clip.truth) for name, clip in CLIPS.items())
    errors = {name: clip_errors(network, *clip) for name, clip in clips.items()}
    rows = {name: asdict(e) for name, e in scenes.items()} | {name: asdict(e) for name, e in errors.items()}
    (out / "errors.json").write_text(json.dumps(rows, indent=2) + "\n")
    for name, row in rows.items():
        print(name, row)
    write_card(out / "README.md", json.loads((out / FACTS).read_text()), scenes, errors)


if __name__ == "__main__":
    main()
