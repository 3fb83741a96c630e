"""Look up, describe, build and load networks by name: those of `catalog`, any Hub model, and refined ones.

Importing this imports neither torch nor any adapter, so that listing is instant.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks.catalog import ENTRIES, HUB_ALIASES, NetworkEntry
from sfmttr.networks.huggingface import model_files
from sfmttr.networks.huggingface.model_id import ModelId, is_model_id
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.weights import (
    apply_state,
    fetch,
    find,
    read_safetensors,
    read_safetensors_metadata,
    read_weights,
)
from sfmttr.types import DepthKind, OnProgress, ignore_progress

if TYPE_CHECKING:
    from sfmttr.networks.base import DepthNetwork


@dataclass(frozen=True)
class NetworkSummary:
    """One row of the list of networks."""

    info: NetworkInfo
    parameters: int
    """Number of parameters."""
    weights_available: bool
    """All files of weights are on this disk; they were not opened."""
    model: str | None = None
    """For a model of the Hub, its name for `ModelId.parse`; None: its architecture is in `models/`."""


def names() -> tuple[str, ...]:
    """Return every registered name."""
    return (*ENTRIES, *HUB_ALIASES)


def built_in() -> tuple[str, ...]:
    """Return the registered names whose architecture is in `models/`."""
    return tuple(ENTRIES)


def entry(name: str) -> NetworkEntry:
    """Return the entry of a `built_in` network. Raises `NetworkError` that lists the names."""
    if name in ENTRIES:
        return ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise NetworkError(
        f"no network is called {name!r}: {hint}There are: {', '.join(names())}; or hf:ORG/NAME for any depth model of "
        "the Hugging Face Hub, or a folder that holds one"
    )


def info(name: str) -> NetworkInfo:
    """Return the info of one of `names()`. Raises `NetworkError`."""
    return HUB_ALIASES[name].info if name in HUB_ALIASES else entry(name).info


def describe_all(weights_dir: Path | None = None) -> tuple[NetworkSummary, ...]:
    """Return a summary of every registered network; those of the Hub come last."""
    return tuple(describe(name, weights_dir) for name in names())


def describe(name: str, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> NetworkSummary:
    """Return a summary of one network that `load` takes.

    For one that is not registered, its small files are read, from the Hub if necessary, so that an unusable model is
    found before its weights are fetched. Raises `NetworkError` and `WeightsError`.
    """
    if alias := HUB_ALIASES.get(name):
        cached = model_files.is_cached(ModelId.parse(alias.model).location)
        return NetworkSummary(alias.info, alias.parameters, cached, alias.model)
    if name not in ENTRIES and is_model_id(name):
        from sfmttr.networks.huggingface import loader

        model_id = ModelId.parse(name)
        info, parameters = loader.describe(model_id, on_progress)
        return NetworkSummary(info, parameters, model_files.is_cached(model_id.location), name)
    known = entry(name)
    return NetworkSummary(known.info, known.parameters, all(find(file, weights_dir) for file in known.files))


def build(name: str) -> DepthNetwork:
    """Return a `built_in` network with random weights, in evaluation mode on the CPU. Raises `NetworkError`."""
    known = entry(name)
    return known.build(known.info).eval()


def load(name: str, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> DepthNetwork:
    """Return the network with the authors' weights (found, else downloaded), in evaluation mode on the CPU.

    `name` is one of `names()`, or what `ModelId.parse` takes. Downloads report progress as stage "weights", in bytes.
    Raises `NetworkError` and `WeightsError`.
    """
    if name in HUB_ALIASES or (name not in ENTRIES and is_model_id(name)):
        from sfmttr.networks.huggingface import loader

        alias = HUB_ALIASES.get(name)
        if alias is None:
            return loader.load(ModelId.parse(name), on_progress)
        return loader.load(ModelId.parse(alias.model), on_progress, alias.info)
    known = entry(name)
    paths = [fetch(file, weights_dir, on_progress) for file in known.files]
    network = build(name)
    state = network.merge_checkpoints([read_weights(path) for path in paths])
    apply_state(network, state, " and ".join(path.name for path in paths))
    return network


# ------------------------------------------------------------------------------------ refined networks


def weights_metadata(network: DepthNetwork) -> dict[str, str]:
    """Return the metadata of a file of `network`'s weights: its info, and what `load_refined` builds it from."""
    stored = {field.name: str(getattr(network.info, field.name)) for field in fields(NetworkInfo)}
    return {("network" if key == "name" else key): value for key, value in stored.items()} | dict(
        network.build_config()
    )


def refined_info(path: Path) -> NetworkInfo:
    """Return the info in a file of refined weights. Raises `WeightsError` when it has none."""
    metadata = read_safetensors_metadata(path)
    try:
        name, kind = metadata["network"], DepthKind(metadata["kind"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path.name} does not say which network its weights are of: run refine again") from error
    rest = (metadata.get(key, "") for key in ("licence", "source", "description", "copyright"))
    return NetworkInfo(name, kind, *rest)


def load_refined(path: str | Path) -> DepthNetwork:
    """Return a refined network from the file that a run wrote, in evaluation mode on the CPU.

    Needs neither the authors' files nor a connection. Raises `NetworkError` and `WeightsError`.
    """
    path = Path(path)
    metadata, known = read_safetensors_metadata(path), refined_info(path)
    state = read_safetensors(path)
    if "hf" in metadata:
        from sfmttr.networks.huggingface import loader

        network: DepthNetwork = loader.rebuild(metadata["hf"], known)
    else:
        network = build(known.name)
    if {"shift", "floor"} <= state.keys():  # its disparity was aligned
        from sfmttr.networks import disparity_to_depth

        network = disparity_to_depth.empty_disparity_network(network)
    apply_state(network, state, path.name)
    return network.eval()
