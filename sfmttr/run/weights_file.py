"""What a run leaves behind beside its report: depth, pictures, video, clouds, weights."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import sfmttr
from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file
from sfmttr.io.json_files import read_json, write_json
from sfmttr.networks import registry
from sfmttr.networks.base import DepthNetwork
from sfmttr.refinement.task import RefineResult

REFINED_WEIGHTS = "refined.safetensors"


def write_refinement(weights: Path, curves: Path, result: RefineResult, network: DepthNetwork) -> None:
    """The state dict as safetensors, with its terms and what rebuilds `network`, and everything else as JSON."""
    metadata = {
        "sfmttr": sfmttr.__version__,
        **registry.weights_metadata(network),
        "best_step": str(result.best_step),
    }
    with atomic_file(weights) as part:
        part.touch()
        mode = part.stat().st_mode  # as any file has it; the library lets nobody else read its own
        save_file({name: value.contiguous() for name, value in result.weights.items()}, part, metadata)
        part.chmod(mode)
    rest = {name: value for name, value in vars(result).items() if name != "weights"}
    write_json(curves, rest)


def read_refinement(weights: Path, curves: Path) -> RefineResult:
    """What `write_refinement` wrote. Raises `RunFolderError` when it is damaged."""
    rest = read_json(curves)
    try:
        rest["losses"] = tuple(map(_from_json, rest["losses"]))
        rest["validation"] = tuple((int(step), _from_json(value)) for step, value in rest["validation"])
        return RefineResult(weights=load_file(weights), **rest)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{weights.name} or {curves.name} is damaged ({error}); delete it.") from error


def _from_json(value: float | None) -> float:
    """A loss or an error; JSON has null where it was not finite."""
    return float("inf") if value is None else float(value)
