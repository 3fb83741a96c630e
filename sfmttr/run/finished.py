"""A finished run, read back: its report, frames, refined network, and the points it was not trained on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from sfmttr import networks
from sfmttr.config import SplitConfig
from sfmttr.errors import RunFolderError
from sfmttr.evaluation.comparison import Column, compare_at_points
from sfmttr.frames import loader
from sfmttr.io import depth_maps
from sfmttr.io.json_files import parse_json
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.info import NetworkInfo
from sfmttr.refinement.observations import Observations, observe
from sfmttr.run import weights_file
from sfmttr.run.manifest import MANIFEST, REPORT, Manifest, read_manifest
from sfmttr.run.report import AlignmentReport, RefinementReport, RunReport, read_report
from sfmttr.sfm import reconstruction
from sfmttr.types import DepthKind, FrameSet

# Other processors round otherwise.
_ABS_REL_TOLERANCE = 1e-4
"""Largest relative difference between the AbsRel of the report and the same figure computed again."""


@dataclass(frozen=True)
class HeldOut:
    """Sparse points to evaluate a network at."""

    observations: Observations
    scale: float
    """Network units (of the unrefined and of the refined network) per SfM unit."""


@dataclass(frozen=True)
class FinishedRun:
    """A run folder whose clip was refined."""

    folder: Path
    report: RunReport
    alignment: AlignmentReport
    """`report.alignment`, which a refined clip always has."""
    refinement: RefinementReport
    """`report.refinement`, likewise."""
    manifest: Manifest
    frames: FrameSet
    info: NetworkInfo
    """Facts about the network that was refined."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a run folder for reading.

        Raises `RunFolderError` when it holds no finished run, or its clip was not refined,
        `WeightsError` when its weights are damaged.
        """
        if not (folder / REPORT).is_file():
            raise RunFolderError(f"{folder} is not a finished run: there is no {REPORT} in it; run refine first")
        report, manifest = read_report(folder), read_manifest(folder)
        alignment, refinement = report.alignment, report.refinement
        if refinement is None or alignment is None:
            raise RunFolderError(
                f"{folder} holds no refined network: its clip was not refined. {report.advice}".rstrip()
            )
        info = networks.refined_info(_weights(folder))
        if info.name != report.network:
            raise RunFolderError(
                f"{folder} holds parts of different runs: its weights are those of {info.name}, its report's of "
                f"{report.network}; run refine again"
            )
        frames = loader.frame_set_from_folder(folder / "frames")
        return cls(folder, report, alignment, refinement, manifest, frames, info)

    @property
    def kind(self) -> DepthKind:
        return self.info.kind

    @property
    def unit(self) -> str:
        """Unit of the network's output."""
        return "metres" if self.kind is DepthKind.METRIC else "network units"

    @property
    def rolled_back(self) -> bool:
        """True if no step was better than the unrefined weights, which were then kept."""
        return self.refinement.rolled_back

    def held_out_abs_rel(self, column: Column) -> float | None:
        """Return AbsRel at held-out points as the report has it, or None when the run had no such points."""
        comparison = self.report.comparison.held_out
        errors = None if comparison is None else comparison.columns.get(column)
        return None if errors is None else errors.abs_rel

    def refined_network(self) -> DepthNetwork:
        """Return the network with its refined weights, in evaluation mode on the CPU.

        Raises `RunFolderError` when they are missing, `WeightsError` when they are damaged.
        """
        return networks.load_refined(_weights(self.folder))

    def held_out(self) -> HeldOut | None:
        """Return the points of the report's "held_out" comparison, or None when there were none.

        They are found again from the reconstruction and the seed, and must give the report's own figure for the
        refined network. Raises `RunFolderError` when they do not: the folder then holds parts of different runs.
        """
        known = self.held_out_abs_rel(Column.AFTER)
        if known is None:
            return None
        model = reconstruction.load_model(self.frames, self.folder / "sfm")
        split = self._split_config()
        rng = np.random.default_rng(self.report.seed)
        observations = observe(model, len(self.frames), self.frames.hw, split, rng)
        found = observations.where(observations.test & observations.reliable)
        scale = self.alignment.scale
        maps = {Column.AFTER: depth_maps.read_maps(self.folder / "depth" / f"{Column.AFTER}.npz")}
        comparison = compare_at_points(maps, found, scale, self.unit, "held out")
        again = float("nan") if comparison is None else comparison.columns[Column.AFTER].overall.abs_rel
        if not math.isclose(again, known, rel_tol=_ABS_REL_TOLERANCE):
            raise RunFolderError(
                f"{self.folder} holds parts of different runs: its held-out points give AbsRel {again:.4f} where "
                f"{REPORT} says {known:.4f}; run refine again"
            )
        return HeldOut(found, scale)

    def _split_config(self) -> SplitConfig:
        try:
            return parse_json(json.dumps(self.manifest.config["split"]), SplitConfig)
        except (KeyError, TypeError, ValueError) as error:
            path = self.folder / MANIFEST
            raise RunFolderError(f"{path} is damaged or from another version ({error}); run refine again") from error


def _weights(folder: Path) -> Path:
    """Return the file of the refined network. Raises `RunFolderError` when it is missing."""
    path = folder / weights_file.REFINED_WEIGHTS
    if not path.is_file():
        raise RunFolderError(f"{path} is missing; run refine again")
    return path
