"""Files of a refinement: the refined weights as safetensors, and the curves of their training as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import sfmttr
from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file
from sfmttr.io.json_files import read_model, write_json
from sfmttr.networks import lookup
from sfmttr.networks.base import DepthNetwork
from sfmttr.refinement.task import RefineResult

REFINED_WEIGHTS = "refined.safetensors"
REFINEMENT = "refinement.json"


@dataclass(frozen=True)
class RefinementCurves:
    """Everything of a `RefineResult` but its weights."""

    steps: int
    best_step: int
    rolled_back: bool
    seconds: float
    losses: tuple[float, ...]
    """Training loss of every step."""
    validation: tuple[tuple[int, float], ...]
    """(step, error at validation points)"""


def write_refinement(weights: Path, curves: Path, result: RefineResult, network: DepthNetwork) -> None:
    """Write the state dict as safetensors, with its license and what rebuilds `network`, and the curves as JSON."""
    metadata = {
        "sfmttr": sfmttr.__version__,
        **lookup.weights_metadata(network),
        "best_step": str(result.best_step),
    }
    with atomic_file(weights) as part:
        # safetensors gives read permission to the owner alone; give the file the mode of any other file.
        part.touch()
        mode = part.stat().st_mode
        save_file({name: value.contiguous() for name, value in result.weights.items()}, part, metadata)
        part.chmod(mode)
    write_json(curves, RefinementCurves(**{name: value for name, value in vars(result).items() if name != "weights"}))


def read_refinement(weights: Path, curves: Path) -> RefineResult:
    """Return the result that `write_refinement` wrote. Raises `RunFolderError` when a file is missing or damaged."""
    rest = read_curves(curves)
    try:
        return RefineResult(weights=load_file(weights), **vars(rest))
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{weights} is damaged ({error}); delete it and run again") from error


def read_curves(path: Path) -> RefinementCurves:
    """Return the curves of a refinement. Raises `RunFolderError` when the file is missing or damaged."""
    curves = read_model(path, RefinementCurves)
    losses = tuple(map(_finite_or_inf, curves.losses))
    validation = tuple((step, _finite_or_inf(error)) for step, error in curves.validation)
    return RefinementCurves(curves.steps, curves.best_step, curves.rolled_back, curves.seconds, losses, validation)


def _finite_or_inf(value: float) -> float:
    """Return an error as it was; JSON has null, read as NaN, where it was not finite."""
    return math.inf if math.isnan(value) else value
