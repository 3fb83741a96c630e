"""How a network that is not one of ours is asked for: `hf:ORG/NAME[@REVISION]`, or a folder, and what has to be said.

`hf:Intel/dpt-large`, `hf:facebook/dpt-dinov2-small-kitti,kind=metric`, `./my-depth-anything,size=392`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sfmttr.errors import NetworkError
from sfmttr.networks.huggingface.repository import ModelLocation
from sfmttr.types import DepthKind

_PREFIX = "hf:"
_OPTION = re.compile(r",\s*(\w+)\s*=\s*([\w-]+)\s*$")


@dataclass(frozen=True)
class ModelId:
    """A model of the Hub or a folder, and what its own files do not say."""

    location: ModelLocation
    kind: DepthKind | None = None
    size: int | None = None
    """Instead of the size that its preprocessor asks for."""

    @staticmethod
    def parse(text: str) -> ModelId:
        """Raises `NetworkError` for what cannot be a name."""
        rest, given = _split(text)
        unknown = given.keys() - {"kind", "size"}
        if unknown:
            raise NetworkError(f"{text!r} has an option {unknown.pop()!r}: there are kind and size")
        try:
            kind = DepthKind(given["kind"]) if "kind" in given else None
            size = int(given["size"]) if "size" in given else None
        except ValueError:
            kinds = ", ".join(DepthKind)
            raise NetworkError(f"in {text!r}, kind has to be one of {kinds}, and size a number of pixels") from None
        return ModelId(ModelLocation.parse(rest), kind, size)

    @property
    def shown(self) -> str:
        """For messages: without anything of where a folder lies."""
        repository = self.location.repository
        return f"{_PREFIX}{repository}" if repository else f"the folder {self._folder.name}"

    def pinned(self, revision: str | None) -> str:
        """The name to go by in what is left behind: the same weights, whatever happens to the model meanwhile."""
        name = self.location.repository or self._folder.name
        options = [f"{key}={value}" for key, value in (("kind", self.kind), ("size", self.size)) if value]
        return ",".join([f"{_PREFIX}{name}" + (f"@{revision[:12]}" if revision else ""), *options])

    @property
    def _folder(self) -> Path:
        assert self.location.folder is not None, "or it has a repository"
        return self.location.folder.expanduser().resolve()


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The name without its prefix, and its options."""
    rest, given = text.strip().removeprefix(_PREFIX), dict[str, str]()
    while option := _OPTION.search(rest):
        given.setdefault(option[1], option[2])
        rest = rest[: option.start()]
    return rest, given


def as_file_name(text: str) -> str:
    """A network's name, whatever it is, as part of a file's name."""
    return re.sub(r"[^\w.=,@-]+", "-", text).strip("-.")


def is_model_id(text: str) -> bool:
    """Whether a network's name asks for a model of the Hub, or for a folder that is there."""
    return text.startswith(_PREFIX) or Path(_split(text)[0]).expanduser().is_dir()


def looks_like_model_id(text: str) -> bool:
    """Whether a name, with its prefix or without, can be that of a model of the Hub: the disk is not asked."""
    return ModelLocation.on_hub(_split(text)[0])
