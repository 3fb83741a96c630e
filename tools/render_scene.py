"""Render procedural places: example clips with true depth, training scenes, contact sheets.

python -m tools.render_scene clip street --seed 7 --frames 60 --out examples/street
python -m tools.render_scene preview room --seeds 1 2 3 --out sheet.png
python -m tools.render_scene dataset data/ --scenes 1000 --views 8 --workers 2
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tools.scenes import NoContextError, Renderer, SceneKind, build_scene
from tools.scenes.clip import write_clip
from tools.scenes.dataset import HW_BY_KIND, TRAINING_SEEDS_FROM, render_dataset
from tools.scenes.preview import contact_sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 something to be put right, said in one line."""
    parsed = _parser().parse_args(arguments)
    parsed.command = "python -m tools.render_scene " + shlex.join(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed.run(parsed)
    except (NoContextError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.render_scene", description="Render procedural places.")
    commands = parser.add_subparsers(required=True)

    clip = commands.add_parser("clip", help="a clip with true depth, poses and intrinsics")
    clip.add_argument("kind", type=SceneKind, choices=list(SceneKind))
    clip.add_argument("--seed", type=int, default=7, help=f"below {TRAINING_SEEDS_FROM}")
    clip.add_argument("--frames", type=int, default=60)
    clip.add_argument("--hw", type=int, nargs=2, metavar=("H", "W"), help="size of the clip")
    clip.add_argument("--out", type=Path, required=True, help="path without an ending")
    clip.set_defaults(run=_clip)

    preview = commands.add_parser("preview", help="a contact sheet")
    preview.add_argument("kind", type=SceneKind, choices=list(SceneKind))
    preview.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    preview.add_argument("--views", type=int, default=2)
    preview.add_argument("--out", type=Path, required=True)
    preview.set_defaults(run=_preview)

    dataset = commands.add_parser("dataset", help="training scenes; goes on where it was stopped")
    dataset.add_argument("folder", type=Path)
    dataset.add_argument("--kinds", type=SceneKind, nargs="+", choices=list(SceneKind), default=list(SceneKind))
    dataset.add_argument("--scenes", type=int, default=100, help="of each kind")
    dataset.add_argument("--views", type=int, default=8, help="of each scene")
    dataset.add_argument("--street-hw", type=int, nargs=2, default=HW_BY_KIND[SceneKind.STREET], metavar=("H", "W"))
    dataset.add_argument("--room-hw", type=int, nargs=2, default=HW_BY_KIND[SceneKind.ROOM], metavar=("H", "W"))
    dataset.add_argument(
        "--seed", type=int, default=TRAINING_SEEDS_FROM, help=f"first seed, from {TRAINING_SEEDS_FROM} up"
    )
    dataset.add_argument("--workers", type=int, default=2)
    dataset.set_defaults(run=_dataset)
    return parser


def _clip(options: argparse.Namespace) -> None:
    if not 0 <= options.seed < TRAINING_SEEDS_FROM:
        raise ValueError(f"--seed {options.seed}: examples have seeds from 0 to {TRAINING_SEEDS_FROM - 1}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    hw = tuple(options.hw) if options.hw else None
    with Renderer() as renderer:
        scene = build_scene(options.kind, options.seed)
        files = write_clip(renderer, scene, options.out, options.frames, options.command, hw)
    truth = sum(file.stat().st_size for file in files.truth.iterdir())
    print(f"{files.video}: {files.video.stat().st_size / 1e6:.2f} MB; {files.truth}: {truth / 1e6:.2f} MB")


def _preview(options: argparse.Namespace) -> None:
    hw = (240, 624) if options.kind is SceneKind.STREET else (360, 480)
    with Renderer() as renderer:
        scenes = [build_scene(options.kind, seed) for seed in options.seeds]
        Image.fromarray(contact_sheet(renderer, scenes, options.views, hw)).save(options.out)


def _dataset(options: argparse.Namespace) -> None:
    sizes = {SceneKind.STREET: tuple(options.street_hw), SceneKind.ROOM: tuple(options.room_hw)}
    start = time.perf_counter()
    made = render_dataset(
        options.folder, options.kinds, options.scenes, options.views, sizes, options.seed, options.workers
    )
    seconds = time.perf_counter() - start
    print(f"{made} views in {seconds:.1f} s: {made / seconds:.1f} views/s")


if __name__ == "__main__":
    sys.exit(main())
