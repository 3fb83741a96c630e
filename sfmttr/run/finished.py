"""A finished run, read back: its network, its frames, and the points that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sfmttr import networks
from sfmttr.config import SplitConfig
from sfmttr.errors import RunFolderError
from sfmttr.evaluation.comparison import Column, compare_at_points
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.json_files import read_json
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.info import NetworkInfo
from sfmttr.refinement.observations import Observations, observe
from sfmttr.run import weights_file
from sfmttr.run.manifest import Manifest, read_manifest
from sfmttr.run.results import REPORT
from sfmttr.sfm import reconstruction
from sfmttr.types import DepthKind, FrameSet

_SAME = 1e-4
"""Two ways to the same AbsRel may differ by so much of it: other processors round otherwise."""


@dataclass(frozen=True)
class HeldOut:
    """Sparse points that a network may be judged at."""

    observations: Observations
    scale: float
    """Network units (of the unrefined and of the refined network) in one SfM unit."""


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose clip was refined."""

    folder: Path
    report: dict[str, Any]
    """`report.json`."""
    manifest: Manifest
    frames: FrameSet
    info: NetworkInfo
    """Of the network that was refined."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a run folder for reading.

        Raises `RunFolderError` when it holds no finished run, or its clip was not refined,
        `WeightsError` when its weights are damaged.
        """
        if not (folder / REPORT).is_file():
            raise RunFolderError(f"{folder} is not a finished run: there is no {REPORT} in it; run refine first")
        report, manifest = read_json(folder / REPORT), read_manifest(folder)
        try:
            refined, advice = report["refinement"] is not None, str(report["advice"])
            _ = report["network"], report["preset"], report["comparison"]["held_out"], manifest.config["split"]
        except (KeyError, TypeError) as error:
            raise RunFolderError(f"{folder / REPORT} is damaged or from another version; run refine again") from error
        if not refined:
            raise RunFolderError(f"{folder} holds no refined network: its clip was not refined. {advice}".rstrip())
        info = networks.refined_info(_weights(folder))
        if info.name != report["network"]:
            raise RunFolderError(
                f"{folder} holds parts of different runs: its weights are those of {info.name}, its report's of "
                f"{report['network']}; run refine again"
            )
        return cls(folder, report, manifest, loader.frame_set_from_folder(folder / "frames"), info)

    @property
    def network_name(self) -> str:
        return self.info.name

    @property
    def kind(self) -> DepthKind:
        return self.info.kind

    @property
    def unit(self) -> str:
        """Of the network's output."""
        return "metres" if self.kind is DepthKind.METRIC else "network units"

    @property
    def rolled_back(self) -> bool:
        """The refinement found nothing better than the unrefined weights, and kept them."""
        return bool(self.report["refinement"]["rolled_back"])

    def held_out_abs_rel(self, column: Column) -> float | None:
        """What the report says; None when the run had no points to say it with."""
        comparison = self.report["comparison"]["held_out"]
        return None if comparison is None else float(comparison[column]["abs_rel"])

    def refined_network(self) -> DepthNetwork:
        """The network with its refined weights, in evaluation mode on the CPU.

        Raises `RunFolderError` when they are missing, `WeightsError` when they are damaged.
        """
        return networks.load_refined(_weights(self.folder))

    def held_out(self) -> HeldOut | None:
        """The points that the report's "held_out" comparison was made at; None when there were none.

        They are found again from the reconstruction and the seed, and must give the report's own figure for the
        refined network. Raises `RunFolderError` when they do not: the folder then holds parts of different runs.
        """
        known = self.held_out_abs_rel(Column.AFTER)
        if known is None:
            return None
        model = reconstruction.load_model(self.frames, self.folder / "sfm")
        split = SplitConfig(**self.manifest.config["split"])
        rng = np.random.default_rng(self.report["seed"])
        observations = observe(model, len(self.frames), self.frames.hw, split, rng)
        found = observations.where(observations.test & observations.reliable)
        scale = float(self.report["alignment"]["scale"])
        maps = {Column.AFTER: depth_maps.read_maps(self.folder / "depth" / f"{Column.AFTER}.npz")}
        comparison = compare_at_points(maps, found, scale, self.unit, "held out")
        again = float("nan") if comparison is None else comparison.columns[Column.AFTER].overall.abs_rel
        if not math.isclose(again, known, rel_tol=_SAME):
            raise RunFolderError(
                f"{self.folder} holds parts of different runs: its held-out points give AbsRel {again:.4f} where "
                f"{REPORT} says {known:.4f}; run refine again"
            )
        return HeldOut(found, scale)


def _weights(folder: Path) -> Path:
    """The refined network's file. Raises `RunFolderError` when it is missing."""
    path = folder / weights_file.REFINED_WEIGHTS
    if not path.is_file():
        raise RunFolderError(f"{path} is missing; run refine again")
    return path
