"""`sfmttr refine CLIP`: refine a network on a clip."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sfmttr.cli.exit_codes import NOT_REFINED
from sfmttr.cli.export import export_in_subprocess, require_export
from sfmttr.cli.parser import add_ground_truth, at_least, ground_truth_config
from sfmttr.config import Objective, OutputConfig, Preset, RefineConfig, RunConfig, TrainableScope
from sfmttr.networks.huggingface.model_id import as_file_name
from sfmttr.types import DepthKind

_DEFAULTS = RunConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(command=run)
    parser.add_argument("clip", type=Path, help="video file, folder of images, or zip of images")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/CLIP-NETWORK-PRESET)")
    _add_network(parser)
    _add_refinement(parser)
    _add_frames(parser.add_argument_group("frames"))
    _add_sfm(parser.add_argument_group("structure-from-motion"))
    add_ground_truth(parser.add_argument_group("ground truth"), required=False)
    _add_output(parser.add_argument_group("output"))


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        default=_DEFAULTS.network,
        help="a name from `sfmttr networks`; hf:ORG/NAME, a depth model of the Hugging Face Hub; or a folder that "
        "holds such a model (default: %(default)s)",
    )
    parser.add_argument(
        "--depth-kind",
        choices=[str(kind) for kind in DepthKind],
        help="kind of depth that a model of the Hub predicts, if its config does not say",
    )
    parser.add_argument("--weights-dir", type=Path, help="folder to look for weights in first")


def _add_refinement(parser: argparse.ArgumentParser) -> None:
    c = _DEFAULTS
    parser.add_argument(
        "--preset",
        choices=[str(preset) for preset in Preset],
        default=str(c.preset),
        help="settings of the refinement (default: %(default)s)",
    )
    parser.add_argument("--steps", type=at_least(1), help="refinement steps (default: set by the preset)")
    parser.add_argument(
        "--train",
        choices=[str(trained) for trained in TrainableScope],
        help="parameters to train (default: set by the preset and the network)",
    )
    parser.add_argument(
        "--learning-rate", type=float, help="learning rate (default: set by the preset and the network)"
    )
    parser.add_argument(
        "--lora-rank", type=at_least(1), help=f"rank for --train lora (default: {RefineConfig().lora_rank})"
    )
    parser.add_argument(
        "--objective",
        choices=[str(objective) for objective in Objective],
        default=str(c.objective),
        help="loss to minimize: depth error at structure-from-motion points (SfM-TTR), photometric error between "
        "neighboring frames (Ph-TTR), or both (default: %(default)s)",
    )
    parser.add_argument("--seed", type=at_least(0), default=c.seed, help="random seed (default: %(default)s)")
    parser.add_argument("--device", default=c.device, help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="refine even if structure-from-motion is not trusted")


def _add_frames(group: argparse._ArgumentGroup) -> None:
    c = _DEFAULTS.video
    group.add_argument(
        "--max-frames", type=at_least(3), default=c.max_frames, help="maximum number of frames (default: %(default)s)"
    )
    group.add_argument(
        "--long-side",
        type=at_least(16),
        default=c.long_side,
        help="longer side of frames and results in pixels (default: %(default)s)",
    )
    group.add_argument("--start", type=float, default=c.start_s, metavar="S", help="skip the first S seconds")
    group.add_argument("--end", type=float, default=c.end_s, metavar="S", help="stop at second S")
    group.add_argument(
        "--hold-out-frames",
        type=at_least(0),
        nargs="?",
        const=8,
        default=_DEFAULTS.split.hold_out_frames,
        metavar="BLOCK",
        help="train on alternate blocks of BLOCK frames only (8 if no number is given)",
    )


def _add_sfm(group: argparse._ArgumentGroup) -> None:
    c = _DEFAULTS.sfm
    group.add_argument("--intrinsics", help="fx,fy,cx,cy[,k1,k2] at the size of the clip, or a JSON file")
    group.add_argument("--sfm", type=Path, metavar="DIR", help="existing COLMAP model of these frames (text or binary)")
    group.add_argument(
        "--sfm-long-side",
        type=at_least(16),
        default=c.long_side,
        help="longer side of the images that are matched, in pixels (default: %(default)s)",
    )
    group.add_argument(
        "--sfm-time-limit",
        type=float,
        default=c.time_limit_s,
        metavar="S",
        help="time limit in seconds (default: %(default)s)",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--exr", action="store_true", help="also write depth as OpenEXR")
    group.add_argument("--no-pictures", action="store_true", help="no colored depth maps, no video")
    group.add_argument("--no-clouds", action="store_true", help="no point clouds")
    group.add_argument(
        "--export",
        action="store_true",
        help="then export the refined network to ONNX; `sfmttr export RUN` has options",
    )


def run_config(options: argparse.Namespace) -> RunConfig:
    """Return the configuration that the parsed options ask for."""
    c = _DEFAULTS
    kind = options.depth_kind
    return RunConfig(
        network=options.network if kind is None else f"{options.network},kind={kind}",
        weights_dir=options.weights_dir,
        preset=Preset(options.preset),
        steps=options.steps,
        objective=Objective(options.objective),
        trained=None if options.train is None else TrainableScope(options.train),
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
        ground_truth=ground_truth_config(options),
        intrinsics=options.intrinsics,
        device=options.device,
        seed=options.seed,
        force=options.force,
    )


def default_run_folder(clip: Path, config: RunConfig) -> Path:
    """Return runs/CLIP-NETWORK-PRESET, with the objective appended where it is not the default."""
    suffix = "" if config.objective is Objective.SFM else f"-{config.objective}"
    return Path("runs") / f"{clip.stem}-{as_file_name(config.network)}-{config.preset}{suffix}"


def run(options: argparse.Namespace) -> int:
    """Run the pipeline, print its summary, and export the network if asked to."""
    from sfmttr.cli import console
    from sfmttr.run import pipeline

    config = run_config(options)
    out = options.out or default_run_folder(options.clip, config)
    # Checked here already: a refinement takes minutes.
    export_package = require_export("--export") if options.export else None
    with console.progress_bars() as bars:
        result = pipeline.run(options.clip, out, config, bars.on_progress, bars.on_step)
    console.print_summary(result)
    if result.refined is None:
        return NOT_REFINED
    return 0 if export_package is None else export_in_subprocess(export_package, out)
