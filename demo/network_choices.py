"""The networks that a visitor can choose, and what may be typed in their place: hostile until checked."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

from sfmttr import networks
from sfmttr.errors import NetworkError, SfmttrError
from sfmttr.networks import NetworkSummary, registry
from sfmttr.networks.huggingface import repository
from sfmttr.networks.huggingface.model_id import ModelId, looks_like_model_id

from .environment import has_gpu
from .eta import CostModel

OTHER = "another"
"""The choice that opens a field to type a model's name in."""
_OTHER_LABEL = "Another model of the Hugging Face Hub …"
_LONGEST = 300
_KEPT = 200
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?", re.IGNORECASE)
_TREE = re.compile(r"/(?:tree|blob|resolve)/([^/?#]+).*$|[?#].*$")
_WORD = re.compile(r"[\w-][\w.-]*")


class NetworkChoices:
    """What can be chosen, and what has been found out about it."""

    def __init__(self, most_parameters: int) -> None:
        self._most = most_parameters
        self._seen: dict[str, NetworkSummary] = {}
        self._lock = threading.Lock()

    def options(self) -> list[tuple[str, str]]:
        """(label, name) of every network with a name of ours, then what opens the field for others."""
        return [*((_label(each), each.info.name) for each in networks.describe_all()), (_OTHER_LABEL, OTHER)]

    def resolve(self, network: str, other: str, *, folders: bool) -> str:
        """The name that `networks.load` takes for what was chosen, and typed in case that is `OTHER`.

        Raises `NetworkError` for what cannot be a name. Unless `folders` are allowed the disk is not looked at, so that
        nobody learns by asking what lies there.
        """
        text = (other if network == OTHER else network).strip()
        if text in networks.names():
            return text
        if not text:
            raise NetworkError("Write which model of the Hugging Face Hub you want: ORG/NAME, as its page has it.")
        if len(text) > _LONGEST or not text.isprintable():
            raise NetworkError("This is no name of a network: write ORG/NAME, as its page on huggingface.co has it.")
        name = _without_address(text)
        if looks_like_model_id(name):
            ModelId.parse(name)  # its options make sense
            return name if name.startswith("hf:") else f"hf:{name}"
        if folders and not (_WORD.fullmatch(name) and not Path(name).is_dir()):
            ModelId.parse(name)  # it is there
            return name
        if _WORD.fullmatch(name):
            registry.entry(name)  # says which there are
        raise NetworkError(
            "This is no model of the Hugging Face Hub: write ORG/NAME, as its page has it. A folder is taken only on "
            "your own machine, by a page that nobody else can open."
        )

    def describe(self, name: str) -> NetworkSummary:
        """What is known of a network that `resolve` gave; of others than ours the small files are read, once.

        It takes as long as the Hub takes to answer. Raises `NetworkError` and `WeightsError` for what cannot be used.
        """
        with self._lock:
            seen = self._seen.get(name)
        if seen is not None and looks_like_model_id(name):
            seen = replace(
                seen, weights_available=seen.weights_available or repository.is_cached(ModelId.parse(name).location)
            )
        else:  # what lies on this disk may have changed
            seen = networks.describe(name)
            with self._lock:
                self._seen[name] = seen
                while len(self._seen) > _KEPT:
                    self._seen.pop(next(iter(self._seen)))
        if seen.parameters > self._most:
            raise NetworkError(
                f"{seen.info.name} has {seen.parameters / 1e6:,.0f} million parameters, more than the "
                f"{self._most / 1e6:,.0f} million that this page takes: choose a smaller model."
            )
        return seen

    def cost_model(self, name: str) -> CostModel | None:
        """What a network asks of this machine; None while nothing is known of it."""
        with self._lock:
            seen = self._seen.get(name)
        try:
            if seen is None and name not in networks.names():
                return None
            seen = seen or networks.describe(name)
        except SfmttrError:
            return None
        return CostModel.from_size(seen.parameters, of_hub=seen.model is not None, on_gpu=has_gpu())


def _without_address(text: str) -> str:
    """`ORG/NAME[@REVISION]` of the address of a model's page; anything else as it is."""
    address = _ADDRESS.match(text)
    if address is None:
        return text
    return _TREE.sub(lambda found: f"@{found[1]}" if found[1] else "", text[address.end() :]).rstrip("/")


def _label(each: NetworkSummary) -> str:
    of_hub = each.model is not None
    fetched = of_hub or all(file.url for file in registry.entry(each.info.name).files)
    missing = "weights are fetched first" if fetched else "its weights are not on this machine"
    here = "weights here" if each.weights_available else missing
    where = "Hugging Face: " if of_hub else ""
    return f"{where}{each.info.name} · {each.parameters / 1e6:.1f} M parameters · {each.info.licence} · {here}"
