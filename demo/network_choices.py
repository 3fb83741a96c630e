"""The networks that a visitor can choose, and model ids that are typed: hostile until checked."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

from sfmttr import networks
from sfmttr.errors import NetworkError, SfmttrError
from sfmttr.networks import NetworkSummary, lookup
from sfmttr.networks.huggingface import model_files
from sfmttr.networks.huggingface.model_id import ModelId, looks_like_model_id

from .environment import has_gpu
from .eta import CostModel

OTHER = "another"
"""Value of the choice that opens a field for a model id."""
_OTHER_LABEL = "Another model of the Hugging Face Hub …"
_MAX_NAME_LENGTH = 300
_SUMMARIES_KEPT = 200
_MODEL_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?", re.IGNORECASE)
_REVISION = re.compile(r"/(?:tree|blob|resolve)/([^/?#]+).*$|[?#].*$")
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


class NetworkChoices:
    """Networks that can be chosen, with what is known of each."""

    def __init__(self, most_parameters: int) -> None:
        self._most_parameters = most_parameters
        self._summaries: dict[str, NetworkSummary] = {}
        self._lock = threading.Lock()

    def options(self) -> list[tuple[str, str]]:
        """Return (label, name) of every registered network, then the option that opens the field for others."""
        return [*((_label(each), each.info.name) for each in networks.describe_all()), (_OTHER_LABEL, OTHER)]

    def resolve(self, network: str, other: str, *, folders: bool) -> str:
        """Return the name that `networks.load` takes for the chosen network, or for `other` if that is `OTHER`.

        Raises `NetworkError` for anything that cannot be a name. Unless `folders` are allowed, the disk is not
        accessed, so that nobody can find out what is on it.
        """
        text = (other if network == OTHER else network).strip()
        if text in networks.names():
            return text
        if not text:
            raise NetworkError("Enter a model id of the Hugging Face Hub: ORG/NAME, as shown on its page.")
        if len(text) > _MAX_NAME_LENGTH or not text.isprintable():
            raise NetworkError("This is not a valid model id: enter ORG/NAME, as shown on its page on huggingface.co.")
        name = _without_address(text)
        if looks_like_model_id(name):
            ModelId.parse(name)  # raises for options that make no sense
            return name if name.startswith("hf:") else f"hf:{name}"
        if folders and not (_PLAIN_NAME.fullmatch(name) and not Path(name).is_dir()):
            ModelId.parse(name)  # raises if there is no such folder
            return name
        if _PLAIN_NAME.fullmatch(name):
            lookup.entry(name)  # raises, and lists the names
        raise NetworkError(
            "This is not a model of the Hugging Face Hub: enter ORG/NAME, as shown on its page. A folder is accepted "
            "only on your own machine, by a page that nobody else can open."
        )

    def describe(self, name: str) -> NetworkSummary:
        """Return a summary of a network that `resolve` returned; of Hub models the small files are read, once.

        This takes as long as the Hub takes to answer. Raises `NetworkError` and `WeightsError` for networks that cannot
        be used.
        """
        with self._lock:
            known = self._summaries.get(name)
        if known is not None and looks_like_model_id(name):
            known = replace(
                known, weights_available=known.weights_available or model_files.is_cached(ModelId.parse(name).location)
            )
        else:  # files on this disk may have changed
            known = networks.describe(name)
            with self._lock:
                self._summaries[name] = known
                while len(self._summaries) > _SUMMARIES_KEPT:
                    self._summaries.pop(next(iter(self._summaries)))
        if known.parameters > self._most_parameters:
            raise NetworkError(
                f"{known.info.name} has {known.parameters / 1e6:,.0f} million parameters, more than the "
                f"{self._most_parameters / 1e6:,.0f} million that this page accepts: choose a smaller model."
            )
        return known

    def cost_model(self, name: str) -> CostModel | None:
        """Return the estimated cost of a network on this machine; None while nothing is known of it."""
        with self._lock:
            known = self._summaries.get(name)
        try:
            if known is None and name not in networks.names():
                return None
            known = known or networks.describe(name)
        except SfmttrError:
            return None
        return CostModel.from_size(known.parameters, of_hub=known.model is not None, on_gpu=has_gpu())


def _without_address(text: str) -> str:
    """Return `ORG/NAME[@REVISION]` for the address of a model's page; anything else unchanged."""
    address = _MODEL_PAGE.match(text)
    if address is None:
        return text
    return _REVISION.sub(lambda found: f"@{found[1]}" if found[1] else "", text[address.end() :]).rstrip("/")


def _label(network: NetworkSummary) -> str:
    info, of_hub = network.info, network.model is not None
    downloadable = of_hub or all(file.url for file in lookup.entry(info.name).files)
    missing = "downloaded first" if downloadable else "weights not on this machine"
    state = "ready to use" if network.weights_available else missing
    source = "Hugging Face: " if of_hub else ""
    return f"{source}{info.name} · {network.parameters / 1e6:.1f} M parameters · {info.licence} · {state}"
