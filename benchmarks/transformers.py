"""Compare what to train of a transformer on a clip, and how fast: encoder, decoder, all, or LoRA of some rank.

    python -m benchmarks.transformers NETWORK [--clips drive_0002 ...] [--steps 80] [--settings lora:8:1e-3 ...]
                                      [--out benchmarks/results/transformers] [--final]

NETWORK is a folder or an id of the Hub, as `--network` takes it. Every setting gets the time that --steps steps of
training the encoder take, whatever its own steps take: of decoders' it makes more. Frames, reconstruction, alignment
and targets are made once a clip, by the pipeline itself; refinements alone are repeated. Prints a row each, and writes
`transformers.json`, which a second call goes on from. The error is AbsRel at held-out points: validation points, which
settings are chosen on, and test points. --final then runs the pipeline with the setting that is best on the validation
points of all clips together, and prints its columns, at test points and against ground truth.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfmttr.config import FuseConfig, OutputConfig, RunConfig, TrainableScope
from sfmttr.errors import SfmttrError
from sfmttr.evaluation.comparison import Column
from sfmttr.evaluation.metrics import depth_metrics
from sfmttr.geometry import sample_numpy
from sfmttr.io.json_files import write_json
from sfmttr.networks.base import DepthNetwork, state_dict_cpu
from sfmttr.refinement.backend import LocalBackend, OnStep
from sfmttr.refinement.loop import Refinement
from sfmttr.refinement.observations import Observations
from sfmttr.refinement.task import RefineResult, RefineTask
from sfmttr.run import pipeline
from sfmttr.utils.device import Compute
from tools.clips import CLIPS, WEIGHTS

_CLIPS = ["drive_0002", "redkitchen", "street", "room"]
_TIMED_STEPS = 4
_LOOKS = 3
"""Number of validations of a refinement; one takes the time of several steps."""
_TEST_FRAMES = 16
"""Frames that test points are looked at in, evenly spaced."""
_CPU = Compute(torch.device("cpu"), None)


@dataclass(frozen=True)
class Way:
    """One way of training."""

    trained: TrainableScope
    learning_rate: float
    rank: int = 0
    """Rank of LoRA; 0 otherwise."""

    @staticmethod
    def parse(text: str) -> Way:
        """`encoder:3e-5`, `lora:8:1e-3`"""
        trained, *rank, rate = text.split(":")
        return Way(TrainableScope(trained), float(rate), int(rank[0]) if rank else 0)

    def __str__(self) -> str:
        return ":".join([self.trained, *([str(self.rank)] if self.rank else []), f"{self.learning_rate:g}"])


GRID = (
    *(Way(TrainableScope.ENCODER, rate) for rate in (3e-5, 1e-4, 3e-4)),
    *(Way(TrainableScope.DECODER, rate) for rate in (1e-4, 3e-4, 1e-3)),
    *(Way(TrainableScope.ALL, rate) for rate in (3e-5, 1e-4, 3e-4)),
    *(Way(TrainableScope.LORA, rate, rank) for rank in (4, 8, 16) for rate in (3e-4, 1e-3, 3e-3)),
)


# -------------------------------------------------------------------------------------- once for a clip


@dataclass(frozen=True)
class Prepared:
    """A clip, up to the point where it is learnt from."""

    task: RefineTask
    test: Observations
    """Rows that errors are shown on, those of some frames."""
    scale: float
    """Network units for one unit of the reconstruction."""
    before: float
    """AbsRel at all test points of the unrefined network with the best scale alone."""


class _Capturing(LocalBackend):
    """Takes what is to be refined, and says that nothing came of it."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.task: RefineTask | None = None

    def refine(self, task: RefineTask, on_step: OnStep) -> RefineResult:
        self.task = task
        return RefineResult(state_dict_cpu(task.network), 0, 0, True, 0.0, (), ())


def prepare(clip: str, network: str, force: bool) -> Prepared:
    """Everything before the refinement, by the pipeline itself. Raises `SfmttrError` when nothing would be refined."""
    backend = _Capturing()
    # The fused columns are not looked at: small ones cost nothing.
    config = replace(_config(network, force=force), fuse=FuseConfig(long_side=64))
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.run(CLIPS[clip].path, Path(folder) / "run", config, backend=backend)
    if backend.task is None or result.aligned is None:
        raise SfmttrError(f"{clip} is not refined: {result.advice}")
    held_out = result.comparisons["held_out"]
    assert held_out is not None, "what is aligned has points"
    rows = result.aligned.observations
    rows = rows.where(rows.test & rows.reliable)
    frames = np.unique(rows.frame)
    some = frames[:: max(1, -(-len(frames) // _TEST_FRAMES))]
    return Prepared(
        backend.task,
        rows.where(np.isin(rows.frame, some)),
        result.aligned.alignment.scale,
        held_out.columns[Column.BEFORE].overall.abs_rel,
    )


def _config(network: str, *, pictures: bool = False, force: bool = False) -> RunConfig:
    output = OutputConfig(pictures=pictures, clouds=False)
    return RunConfig(network=network, weights_dir=WEIGHTS, device="cpu", output=output, force=force)


# -------------------------------------------------------------------------------------- for each setting


def seconds_a_step(prepared: Prepared, way: Way) -> float:
    """CPU seconds, of all threads."""
    steps = _start(prepared, way, 100).steps()  # so many that none of those timed looks at validation points
    next(steps)  # the first one sets things up
    times = []
    for _ in range(_TIMED_STEPS):
        started = time.process_time()
        next(steps)
        times.append(time.process_time() - started)
    return statistics.median(times)


def _start(prepared: Prepared, way: Way, steps: int) -> Refinement:
    task = prepared.task
    config = replace(
        task.config,
        trained=way.trained,
        learning_rate=way.learning_rate,
        lora_rank=way.rank or task.config.lora_rank,
        steps=steps,
        match_time_budget=False,
        num_validations=_LOOKS,
    )
    return Refinement(replace(task, config=config), _CPU)


def measure(prepared: Prepared, way: Way, steps: int) -> dict[str, Any]:
    """One refinement: errors at validation points, of the unrefined network and the best step's, and at test points."""
    started, cpu = time.perf_counter(), time.process_time()
    refinement = _start(prepared, way, steps)
    for _ in refinement.steps():
        pass
    result = refinement.result()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    network = prepared.task.network
    kept = state_dict_cpu(network)
    network.load_state_dict(result.weights)
    test = _error(network, prepared, 1.0 if not result.rolled_back else prepared.task.targets.network_scale)
    network.load_state_dict(kept)
    return {
        "steps": steps,
        "best_step": result.best_step,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "validation_aligned": result.validation[0][1],
        "validation": min(error for _, error in result.validation),
        "last_validation": result.validation[-1][1],
        "test": test,
        "curve": result.validation,
    }


@torch.inference_mode()
def _error(network: DepthNetwork, prepared: Prepared, scale: float) -> float:
    """AbsRel at the test points."""
    rows = prepared.test
    predicted = np.empty(len(rows), np.float32)
    for frame in np.unique(rows.frame):
        here = rows.frame == frame
        image = network.stack_source_frames(prepared.task.images, int(frame))
        depth = network.predict_full(image)[0, 0].numpy()
        predicted[here] = scale * sample_numpy(depth, rows.grid[here], mode="bilinear")
    return depth_metrics(predicted, prepared.scale * rows.z).abs_rel


# ---------------------------------------------------------------------------------------------- the whole


def main() -> None:
    options = _parse()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "transformers.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    for clip in options.clips:
        done = {row["way"] for row in rows if row["clip"] == clip}
        ways = [way for way in options.settings if str(way) not in done]
        if not ways:
            continue
        prepared = prepare(clip, options.network, options.force)
        aligned = _error(prepared.task.network, prepared, prepared.task.targets.network_scale)
        print(f"{clip}: test points before {prepared.before:.4f}, aligned {aligned:.4f}", flush=True)
        of_part: dict[tuple[TrainableScope, int], float] = {}
        for way in [Way(TrainableScope.ENCODER, 1e-5), *ways]:
            if (way.trained, way.rank) not in of_part:
                of_part[way.trained, way.rank] = seconds_a_step(prepared, way)
        for way in ways:
            a_step = of_part[way.trained, way.rank]
            steps = max(1, round(options.steps * of_part[TrainableScope.ENCODER, 0] / a_step))
            row = measure(prepared, way, steps)
            facts = {"clip": clip, "way": str(way), "seconds_a_step": a_step}
            rows.append(facts | {"test_before": prepared.before, "test_aligned": aligned} | row)
            write_json(path, rows)
            _print(rows[-1])
    _summarise(rows, [str(way) for way in options.settings], options.clips)
    if options.final:
        way = Way.parse(best_way(rows, options.clips))
        for clip in options.clips:
            _final(clip, way, options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument(
        "--clips", nargs="+", choices=list(CLIPS), default=["drive_0002", "redkitchen", "street", "room"]
    )
    parser.add_argument("--steps", type=int, default=80, help="of training the encoder; others get the same time")
    parser.add_argument("--settings", nargs="+", type=Way.parse, default=list(GRID), help="PART:RATE, lora:RANK:RATE")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/transformers"))
    parser.add_argument("--force", action="store_true", help="refine even where the trust gate is closed")
    parser.add_argument("--final", action="store_true", help="then run the best setting and compare with ground truth")
    parser.add_argument("--final-steps", type=int, help="instead of the preset's number")
    return parser.parse_args()


def _print(row: dict[str, Any]) -> None:
    print(
        f"{row['clip']:<11} {row['way']:<16} {row['seconds_a_step']:6.3f} s a step, {row['steps']:>4} steps (best "
        f"{row['best_step']:>4}), {row['seconds']:6.1f} s   validation {row['validation_aligned']:.4f} -> "
        f"{row['validation']:.4f}   test {row['test_aligned']:.4f} -> {row['test']:.4f}",
        flush=True,
    )


def gains(rows: Sequence[dict[str, Any]], clips: Sequence[str]) -> dict[str, float]:
    """By way that every clip was refined in: geometric mean over clips of validation error after over before."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["clip"] in clips:
            found.setdefault(row["way"], {})[row["clip"]] = row["validation"] / row["validation_aligned"]
    whole = {way: ratios for way, ratios in found.items() if len(ratios) == len(set(clips))}
    return {way: math.exp(statistics.fmean(map(math.log, ratios.values()))) for way, ratios in whole.items()}


def best_way(rows: Sequence[dict[str, Any]], clips: Sequence[str]) -> str:
    ratios = gains(rows, clips)
    if not ratios:
        raise SystemExit("no setting was measured on every clip")
    return min(ratios, key=lambda way: ratios[way])


def _summarise(rows: Sequence[dict[str, Any]], ways: Sequence[str], clips: Sequence[str]) -> None:
    ratios = gains(rows, clips)
    table = {(row["clip"], row["way"]): row for row in rows}
    print(f"\n{'validation AbsRel':<18}" + "".join(f"{clip:>12}" for clip in clips) + f"{'left of it':>12}")
    for way in ways:
        cells = [table.get((clip, way)) for clip in clips]
        shown = "".join(f"{cell['validation']:>12.4f}" if cell else f"{'-':>12}" for cell in cells)
        print(f"{way:<18}{shown}" + (f"{ratios[way]:>12.3f}" if way in ratios else ""))


def _final(clip: str, way: Way, options: argparse.Namespace) -> None:
    """The whole pipeline, preset default, with that setting."""
    config = replace(
        _config(options.network, pictures=True, force=options.force),
        trained=way.trained,
        learning_rate=way.learning_rate,
        lora_rank=way.rank or None,
        steps=options.final_steps,
        ground_truth=CLIPS[clip].truth,
    )
    out = options.out / "final" / clip
    result = pipeline.run(CLIPS[clip].path, out, config)
    for name, comparison in result.comparisons.items():
        if comparison is not None:
            columns = {column: asdict(errors.overall) for column, errors in comparison.columns.items()}
            line = "  ".join(
                f"{column} {values['abs_rel']:.4f}/{values['a1']:.3f}" for column, values in columns.items()
            )
            print(f"{clip:<11} {way} {name:<13} AbsRel/d1: {line}", flush=True)


if __name__ == "__main__":
    main()
