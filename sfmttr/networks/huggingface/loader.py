"""Describe, load and rebuild any depth network of the Hugging Face Hub whose architecture `transformers` has.

The kind of output and the preprocessing are read from its config and its preprocessor's; what they leave open is given
with the name (`model_id`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks.huggingface.adapter import HubNetwork, adapter_class
from sfmttr.networks.huggingface.model_card import ModelCard, read_card
from sfmttr.networks.huggingface.model_config import first_line, library_config, output_kind
from sfmttr.networks.huggingface.model_files import fetch_weights
from sfmttr.networks.huggingface.model_id import ModelId
from sfmttr.networks.huggingface.preprocess import PreprocessSpec, preprocess_spec
from sfmttr.networks.info import NetworkInfo
from sfmttr.types import DepthKind, OnProgress, ignore_progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_log = logging.getLogger(__name__)
# Input size, in multiples, of the pass that finds which parameters are in use.
_PROBE_HW = (2, 3)


@dataclass(frozen=True)
class _ModelSpec:
    """Metadata from a model's small files."""

    card: ModelCard
    config: PretrainedConfig
    preprocess: PreprocessSpec
    info: NetworkInfo


def _read_spec(model_id: ModelId, on_progress: OnProgress) -> _ModelSpec:
    """Raises `NetworkError` for what is no depth network, `WeightsError` for files that cannot be fetched."""
    name = model_id.display_name
    card = read_card(model_id.location, on_progress)
    config = library_config(card.config, name)
    kind = model_id.kind or output_kind(card.config, name)
    preprocess = preprocess_spec(config, card.preprocessor, model_id.size, name)
    return _ModelSpec(card, config, preprocess, _info(model_id, card, kind))


def describe(model_id: ModelId, on_progress: OnProgress = ignore_progress) -> tuple[NetworkInfo, int]:
    """Return a model's info and its number of parameters, from its small files alone.

    Raises as `load` does before it fetches any weights.
    """
    from transformers import AutoModelForDepthEstimation

    spec = _read_spec(model_id, on_progress)
    try:
        with torch.device("meta"):  # nothing is computed or allocated
            model = AutoModelForDepthEstimation.from_config(spec.config)
    except Exception as error:  # whatever a stranger's config makes the library raise
        raise NetworkError(
            f"no network can be built by the config of {model_id.display_name}: {first_line(error)}"
        ) from error
    return spec.info, sum(value.numel() for value in model.parameters())


def load(
    model_id: ModelId, on_progress: OnProgress = ignore_progress, registered: NetworkInfo | None = None
) -> HubNetwork:
    """Load the network with its published weights, in evaluation mode on the CPU.

    `registered` is its info where the catalog has a name for it. Raises `NetworkError` for what is no depth network,
    `WeightsError` for weights that cannot be fetched or do not fit.
    """
    from transformers import AutoModelForDepthEstimation

    spec, name = _read_spec(model_id, on_progress), model_id.display_name
    folder = fetch_weights(model_id.location, spec.card.revision, on_progress)[0].parent
    info = replace(registered, kind=spec.info.kind, source=spec.info.source) if registered else spec.info
    try:
        with _quiet():
            model, report = AutoModelForDepthEstimation.from_pretrained(
                folder,
                config=spec.config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # whatever a stranger's files make the library raise
        raise WeightsError(f"the weights of {name} do not fit its config: {first_line(error)}") from error
    build_config = _build_config(spec.card.config, spec.card.preprocessor, model_id.size)
    network = adapter_class(model)(info, model.eval(), spec.preprocess, build_config).eval()
    _check_complete(network, report, name)
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars, and warnings of what is checked here."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def rebuild(build_config: str, info: NetworkInfo) -> HubNetwork:
    """Build the architecture that `HubNetwork.build_config` stored, with random weights. Raises `NetworkError`."""
    from transformers import AutoModelForDepthEstimation

    try:
        stored = json.loads(build_config)
        config, preprocessor, size = stored["config"], stored["preprocessor"], stored["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(
            f"the description of {info.name} in its weights file is damaged; run refine again"
        ) from error
    built = library_config(config, info.name)
    model = AutoModelForDepthEstimation.from_config(built, dtype=torch.float32)
    preprocess = preprocess_spec(built, preprocessor, size, info.name)
    return adapter_class(model)(info, model.eval(), preprocess, stored).eval()


def _build_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, size: int | None
) -> dict[str, Any]:
    """Return what `rebuild` needs, without entries that state where somebody keeps their files."""
    kept = {key: value for key, value in config.items() if key not in ("_name_or_path", "auto_map")}
    return {"config": kept, "preprocessor": preprocessor, "size": size}


def _info(model_id: ModelId, card: ModelCard, kind: DepthKind) -> NetworkInfo:
    repository = model_id.location.repository
    description = f"{card.config['model_type']} {'of the Hugging Face Hub' if repository else 'from a folder'}"
    page = f"https://huggingface.co/{repository}/tree/{card.revision}" if repository else "a folder of the user's"
    return NetworkInfo(model_id.pinned(card.revision), kind, card.licence, page, description)


def _check_complete(network: HubNetwork, report: Mapping[str, Any], name: str) -> None:
    """Raise `WeightsError` unless every weight that depth depends on came from the files."""
    missing, mismatched = set(report.get("missing_keys", ())), report.get("mismatched_keys", ())
    if mismatched:
        raise WeightsError(f"the weights of {name} do not fit its config ({len(mismatched)} of another shape)")
    if missing:
        # Published files leave out weights that no image passes through, as of a fusion stage with nothing to fuse.
        needed = sorted(missing & _parameters_in_use(network.model, network.preprocess, name))
        if needed:
            raise WeightsError(
                f"the weights of {name} are incomplete ({len(needed)} missing, {needed[0]} among them): choose another "
                "model, or ask its authors"
            )
    if report.get("unexpected_keys"):
        _log.info("%s holds weights that its architecture has no use for: %s", name, report["unexpected_keys"])


def _parameters_in_use(model: PreTrainedModel, preprocess: PreprocessSpec, name: str) -> set[str]:
    """Return the names of the parameters with a gradient of depth, and of all buffers. Raises `NetworkError`."""
    if preprocess.square:
        h, w = preprocess.size, preprocess.size
    else:
        h, w = (preprocess.multiple * factor for factor in _PROBE_HW)
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad():
            model(pixel_values=torch.rand((1, 3, h, w))).predicted_depth.sum().backward()
    except Exception as error:  # whatever a stranger's config makes the library raise
        raise NetworkError(f"the config of {name} makes no network that runs: {first_line(error)}") from error
    used = {name for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    return used | {name for name, _ in model.named_buffers()}
