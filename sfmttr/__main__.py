"""The command line: `python -m sfmttr refine|evaluate|networks`. Defaults live in `config.py` only.

Exit codes: 0 done; 2 something to be put right, said in one line; 3 done, but the clip was not refined; 130 stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sfmttr
from sfmttr.cli.exit_codes import Parser, exit_code
from sfmttr.config import GroundTruthConfig, Objective, OutputConfig, Preset, RefineConfig, RunConfig, Trained
from sfmttr.errors import ConfigError
from sfmttr.kitti.config import SCORED, KittiConfig, KittiSplit, Setting
from sfmttr.networks.huggingface.model_id import as_file_name
from sfmttr.types import DepthKind

NOT_REFINED = 3
_KITTI = "evaluate-kitti"
_DEFAULTS = RunConfig()
_TRUTH = GroundTruthConfig(Path())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["evaluate", "kitti"]:  # a data set is no run folder, and takes other options (else: ./kitti)
        given[:2] = [_KITTI]
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    return exit_code("sfmttr", lambda: int(options.command(options)), "the same command goes on where it was.")


# ---------------------------------------------------------------------------------------- parsing


def _at_least(least: int) -> Callable[[str], int]:
    """The type of an option that counts something."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sfmttr", description="Fine-tune a depth network on one clip.")
    parser.add_argument("--verbose", action="store_true", help="show what the libraries log")
    commands = parser.add_subparsers(required=True, metavar="refine|evaluate|networks")
    _add_refine(commands.add_parser("refine", help="clip in, refined depth and network out"))
    _add_evaluate(commands.add_parser("evaluate", help="compare a finished run with ground truth"))
    kitti = commands.add_parser(_KITTI, prog="sfmttr evaluate kitti", description="The paper's table, on KITTI.")
    _add_kitti(kitti)
    networks = commands.add_parser("networks", help="list the networks that can be refined")
    networks.add_argument("--weights-dir", type=Path, help="where weights lie")
    networks.set_defaults(command=_networks)
    return parser


def _add_refine(parser: argparse.ArgumentParser) -> None:
    c = _DEFAULTS
    parser.set_defaults(command=_refine)
    parser.add_argument("clip", type=Path, help="video file, folder of images, or zip of images")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/CLIP-NETWORK-PRESET)")
    parser.add_argument(
        "--network",
        default=c.network,
        help="one of `sfmttr networks`; hf:ORG/NAME, any depth model of the Hugging Face Hub; or a folder that holds "
        "one (default: %(default)s)",
    )
    parser.add_argument(
        "--depth-kind",
        choices=[str(kind) for kind in DepthKind],
        help="what a model of the Hub gives, where its config does not say",
    )
    parser.add_argument("--weights-dir", type=Path, help="look for weights here first")
    presets = [str(preset) for preset in Preset]
    parser.add_argument("--preset", choices=presets, default=str(c.preset), help="(default: %(default)s)")
    parser.add_argument("--steps", type=_at_least(1), help="instead of the preset's number")
    parser.add_argument(
        "--train",
        choices=[str(trained) for trained in Trained],
        help="what of the network moves (default: as preset and network choose)",
    )
    parser.add_argument("--learning-rate", type=float, help="(default: as preset and network choose)")
    parser.add_argument("--lora-rank", type=_at_least(1), help=f"of --train lora (default: {RefineConfig().lora_rank})")
    objectives = [str(objective) for objective in Objective]
    parser.add_argument(
        "--objective",
        choices=objectives,
        default=str(c.objective),
        help="what is minimised: depth of structure-from-motion's points (SfM-TTR), what neighbouring frames look like "
        "(Ph-TTR), or both (default: %(default)s)",
    )
    parser.add_argument("--seed", type=_at_least(0), default=c.seed, help="(default: %(default)s)")
    parser.add_argument("--device", default=c.device, help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="refine even when structure-from-motion is not trusted")
    _add_frames(parser.add_argument_group("frames"))
    _add_sfm(parser.add_argument_group("structure-from-motion"))
    _add_truth(parser.add_argument_group("ground truth"), required=False)
    output = parser.add_argument_group("output")
    output.add_argument("--exr", action="store_true", help="depth as OpenEXR too")
    output.add_argument("--no-pictures", action="store_true", help="no coloured depth, no video")
    output.add_argument("--no-clouds", action="store_true", help="no point clouds")
    output.add_argument(
        "--export",
        action="store_true",
        help="then freeze the refined network: `python -m export RUN`, which has options",
    )


def _add_frames(group: argparse._ArgumentGroup) -> None:
    c = _DEFAULTS.video
    group.add_argument(
        "--max-frames", type=_at_least(3), default=c.max_frames, help="most frames used (default: %(default)s)"
    )
    group.add_argument(
        "--long-side", type=_at_least(16), default=c.long_side, help="of frames and results (default: %(default)s)"
    )
    group.add_argument("--start", type=float, default=c.start_s, metavar="S", help="skip the clip's first seconds")
    group.add_argument("--end", type=float, default=c.end_s, metavar="S", help="stop at this second")
    held_out = _DEFAULTS.split.hold_out_frames
    group.add_argument(
        "--hold-out-frames",
        type=_at_least(0),
        nargs="?",
        const=8,
        default=held_out,
        metavar="BLOCK",
        help="train on alternate blocks of BLOCK frames only (8 when given without a number)",
    )


def _add_sfm(group: argparse._ArgumentGroup) -> None:
    c = _DEFAULTS.sfm
    group.add_argument("--intrinsics", help="fx,fy,cx,cy[,k1,k2] at the clip's size, or a JSON file")
    group.add_argument("--sfm", type=Path, metavar="DIR", help="a COLMAP model of these frames (text or binary)")
    group.add_argument(
        "--sfm-long-side", type=_at_least(16), default=c.long_side, help="of matched images (default: %(default)s)"
    )
    group.add_argument(
        "--sfm-time-limit", type=float, default=c.time_limit_s, metavar="S", help="(default: %(default)s)"
    )


def _add_truth(group: argparse._ArgumentGroup, *, required: bool) -> None:
    group.add_argument("--ground-truth", type=Path, required=required, metavar="DIR", help="16-bit PNGs of true depth")
    group.add_argument(
        "--ground-truth-scale",
        type=float,
        default=_TRUTH.scale,
        metavar="SCALE",
        help="metres = value / scale (default: what the files state of themselves, else 1000: millimetres)",
    )
    group.add_argument(
        "--protocol", choices=["kitti", "indoor", "plain"], default=_TRUTH.protocol, help="(default: %(default)s)"
    )
    group.add_argument("--no-median-scaling", action="store_true", help="compare metric networks as they are")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_evaluate)
    parser.add_argument("run", type=Path, help="run folder of a finished `refine`")
    _add_truth(parser.add_argument_group("ground truth"), required=True)


def _words(text: str) -> list[str]:
    """The type of an option that lists: `a,b`."""
    return [word for word in text.replace(",", " ").split() if word]


def _add_kitti(parser: argparse.ArgumentParser) -> None:
    c = KittiConfig(Path(), Path())
    parser.set_defaults(command=_evaluate_kitti)

    def add_list(flag: str, default: Sequence[str], **more: Any) -> None:
        listed = ",".join(default) or "all that are there"
        more["help"] = f"{more['help']} (default: {listed})"
        parser.add_argument(flag, type=_words, nargs="+", default=[list(default)], **more)

    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="KITTI's raw data, synced and rectified")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="DIR", help="annotated depth: train/, val/")
    parser.add_argument(
        "--split", choices=[str(s) for s in KittiSplit], default=str(c.split), help="(default: %(default)s)"
    )
    add_list("--networks", c.networks, help="see `sfmttr networks`")
    add_list("--objectives", c.objectives, help=f"of {','.join(SCORED)}")
    add_list("--sequences", c.sequences, help="drives, by name or number", metavar="DRIVE")
    add_list(
        "--settings", c.settings, help="the paper's (learn from the listed frames), or ours (from the drive as a clip)"
    )
    parser.add_argument("--out", type=Path, default=c.out, help="(default: %(default)s)")
    parser.add_argument(
        "--sfm", type=Path, metavar="DIR", help="COLMAP models that you have: DIR/DRIVE or DIR/DRIVE/sparse"
    )
    parser.add_argument("--sfm-time-limit", type=float, default=c.sfm.time_limit_s, metavar="S", help="for a drive")
    parser.add_argument("--steps", type=_at_least(1), help="instead of the presets' numbers")
    parser.add_argument("--weights-dir", type=Path, help="look for weights here first")
    parser.add_argument("--device", default=c.device, help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--seed", type=_at_least(0), default=c.seed, help="(default: %(default)s)")


# --------------------------------------------------------------------------------------- commands


def _truth_config(options: argparse.Namespace) -> GroundTruthConfig | None:
    if options.ground_truth is None:
        return None
    return GroundTruthConfig(
        options.ground_truth, options.ground_truth_scale, options.protocol, not options.no_median_scaling
    )


def run_config(options: argparse.Namespace) -> RunConfig:
    """The configuration that the parsed options of `refine` ask for."""
    c = _DEFAULTS
    kind = options.depth_kind
    return RunConfig(
        network=options.network if kind is None else f"{options.network},kind={kind}",
        weights_dir=options.weights_dir,
        preset=Preset(options.preset),
        steps=options.steps,
        objective=Objective(options.objective),
        trained=None if options.train is None else Trained(options.train),
        learning_rate=options.learning_rate,
        lora_rank=options.lora_rank,
        video=replace(
            c.video,
            max_frames=options.max_frames,
            long_side=options.long_side,
            start_s=options.start,
            end_s=options.end,
        ),
        sfm=replace(
            c.sfm, long_side=options.sfm_long_side, model_folder=options.sfm, time_limit_s=options.sfm_time_limit
        ),
        split=replace(c.split, hold_out_frames=options.hold_out_frames),
        output=OutputConfig(exr=options.exr, pictures=not options.no_pictures, clouds=not options.no_clouds),
        ground_truth=_truth_config(options),
        intrinsics=options.intrinsics,
        device=options.device,
        seed=options.seed,
        force=options.force,
    )


def _refine(options: argparse.Namespace) -> int:
    from sfmttr.cli import console  # after parsing: torch takes seconds to import, --help should not
    from sfmttr.run import pipeline

    config = run_config(options)
    by = "" if config.objective is Objective.SFM else f"-{config.objective}"
    name = f"{options.clip.stem}-{as_file_name(config.network)}-{config.preset}{by}"
    out = options.out or Path("runs") / name
    if options.export:
        _check_export()
    with console.progress_bars() as bars:
        result = pipeline.run(options.clip, out, config, bars.on_progress, bars.on_step)
    console.print_summary(result)
    if result.refined is None:
        return NOT_REFINED
    return _export(out) if options.export else 0


def _check_export() -> None:
    """Raise `ConfigError` now, not after the minutes of a refinement, when there is nothing to export with."""
    missing = [name for name in ("export", "onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--export needs {', '.join(missing)}; pip install -r requirements.txt, or leave it out.")


def _export(run: Path) -> int:
    """`python -m export RUN`, and its exit code.

    A process of its own: nothing in this package may import what is built on top of it, and what is run here is word
    for word what a user would type.
    """
    beside = str(Path(sfmttr.__file__).resolve().parents[1])  # the package `export` lies where this one does
    path = os.pathsep.join([beside, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "export", str(run)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def _evaluate(options: argparse.Namespace) -> int:
    from sfmttr.cli import console
    from sfmttr.run import evaluate

    truth = _truth_config(options)
    assert truth is not None, "argparse requires it"
    evaluated = evaluate.evaluate_run(options.run, truth)
    console.print_evaluation(evaluated)
    return 0


def kitti_config(options: argparse.Namespace) -> KittiConfig:
    """The configuration that the parsed options of `evaluate kitti` ask for."""

    def listed(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for words in getattr(options, name) for word in words))

    unknown = [name for name in listed("settings") if name not in list(Setting)]
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]!r}: choose from {', '.join(Setting)}.")
    c = KittiConfig(options.raw, options.ground_truth)
    return replace(
        c,
        out=options.out,
        split=KittiSplit(options.split),
        networks=listed("networks"),
        objectives=listed("objectives"),
        settings=tuple(map(Setting, listed("settings"))),
        sequences=listed("sequences"),
        models=options.sfm,
        steps=options.steps,
        weights_dir=options.weights_dir,
        device=options.device,
        seed=options.seed,
        sfm=replace(c.sfm, time_limit_s=options.sfm_time_limit),
    )


def _evaluate_kitti(options: argparse.Namespace) -> int:
    from sfmttr.cli import console
    from sfmttr.kitti import experiment

    config = kitti_config(options)
    with console.progress_bars() as bars:
        table = experiment.reproduce(config, bars.on_progress)
    print(table.text(), end="")
    print(f"Written to {config.out}")
    return 0


def _networks(options: argparse.Namespace) -> int:
    from sfmttr import networks
    from sfmttr.cli.networks import print_networks

    print_networks(networks.describe_all(options.weights_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
