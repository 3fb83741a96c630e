"""Names of models outside this package: `hf:ORG/NAME[@REVISION]` or a folder, with options after commas.

Examples: `hf:Intel/dpt-large`, `hf:facebook/dpt-dinov2-small-kitti,kind=metric`, `./my-depth-anything,size=392`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sfmttr.errors import NetworkError
from sfmttr.types import DepthKind

_PREFIX = "hf:"
_OPTION = re.compile(r",\s*(\w+)\s*=\s*([\w-]+)\s*$")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=#@/-]{0,199}")
_MAX_QUOTED_CHARACTERS = 120


@dataclass(frozen=True)
class ModelLocation:
    """A model on the Hub, or a folder that holds one."""

    repository: str | None
    """`ORG/NAME`; None for a folder."""
    folder: Path | None
    revision: str | None = None
    """Branch, tag or commit; None: main. Only with a repository."""

    def __post_init__(self) -> None:
        if (self.repository is None) == (self.folder is None):
            raise ValueError("a model is either on the Hub or in a folder")
        if self.repository is not None and not _is_repository(self.repository):
            raise NetworkError(f"{quoted(self.repository)} is no name of a model on the Hub: write ORG/NAME")
        if self.revision is not None and (self.repository is None or not _is_revision(self.revision)):
            raise NetworkError(
                f"{quoted(self.revision)} is no revision: write ORG/NAME@REVISION with a branch, tag or commit"
            )

    @staticmethod
    def parse(text: str) -> ModelLocation:
        """Parse `ORG/NAME`, `ORG/NAME@REVISION`, or the path of a folder. Raises `NetworkError`.

        `ORG/NAME` always means the Hub, even where a folder has that name: `./ORG/NAME` is the folder.
        """
        repository, at, revision = text.partition("@")
        if _is_repository(repository):
            return ModelLocation(repository, None, revision if at else None)
        folder = _folder_at(text)
        if folder is None:
            raise NetworkError(
                f"{quoted(text)} is neither a model on the Hub nor a folder: "
                "write ORG/NAME, ORG/NAME@REVISION, or the path of a folder that holds a model"
            )
        return ModelLocation(None, folder)

    def __str__(self) -> str:
        if self.repository is None:
            return str(self.folder)
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


@dataclass(frozen=True)
class ModelId:
    """Location of a model, and options for what its own files leave open."""

    location: ModelLocation
    kind: DepthKind | None = None
    """Kind of its output; None: as its config states."""
    size: int | None = None
    """Input size in pixels, instead of the one that its preprocessor states."""

    @staticmethod
    def parse(text: str) -> ModelId:
        """Parse a name with its options. Raises `NetworkError`."""
        rest, options = _split_options(text)
        unknown = options.keys() - {"kind", "size"}
        if unknown:
            raise NetworkError(f"{text!r} has an option {unknown.pop()!r}: there are kind and size")
        try:
            kind = DepthKind(options["kind"]) if "kind" in options else None
            size = int(options["size"]) if "size" in options else None
        except ValueError:
            kinds = ", ".join(DepthKind)
            raise NetworkError(f"in {text!r}, kind has to be one of {kinds}, and size a number of pixels") from None
        return ModelId(ModelLocation.parse(rest), kind, size)

    @property
    def display_name(self) -> str:
        """Name for messages, without the path of a folder."""
        repository = self.location.repository
        return f"{_PREFIX}{repository}" if repository else f"the folder {self._folder.name}"

    def pinned(self, revision: str | None) -> str:
        """Return the name with `revision` fixed, for run folders and refined weights: it keeps its meaning for ever."""
        name = self.location.repository or self._folder.name
        options = [f"{key}={value}" for key, value in (("kind", self.kind), ("size", self.size)) if value]
        return ",".join([f"{_PREFIX}{name}" + (f"@{revision[:12]}" if revision else ""), *options])

    @property
    def _folder(self) -> Path:
        assert self.location.folder is not None, "or it has a repository"
        return self.location.folder.expanduser().resolve()


def as_file_name(text: str) -> str:
    """Return a network's name in characters that a file name may have."""
    return re.sub(r"[^\w.=,@-]+", "-", text).strip("-.")


def is_model_id(text: str) -> bool:
    """Return whether a network's name means a model of the Hub (by its prefix) or an existing folder."""
    return text.startswith(_PREFIX) or Path(_split_options(text)[0]).expanduser().is_dir()


def looks_like_model_id(text: str) -> bool:
    """Return whether a name, with its prefix or without, has the form of a Hub model's. Does not access the disk."""
    return _is_repository(_split_options(text)[0].partition("@")[0])


def quoted(text: str) -> str:
    """Return text of a user or a stranger's file for a message: quoted, at most 120 characters."""
    return repr(text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[:_MAX_QUOTED_CHARACTERS]}…")


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    """Return the name without its prefix and options, and the options."""
    rest, options = text.strip().removeprefix(_PREFIX), dict[str, str]()
    while option := _OPTION.search(rest):
        options.setdefault(option[1], option[2])
        rest = rest[: option.start()]
    return rest, options


def _is_repository(text: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return _REPOSITORY.fullmatch(text) is not None


def _is_revision(text: str) -> bool:
    # Stricter than git: a revision becomes part of an address and of a path in the cache.
    parts = text.split("/")
    return _REVISION.fullmatch(text) is not None and not any(
        not part or part.startswith(".") or part.endswith((".", ".lock")) or ".." in part for part in parts
    )


def _folder_at(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path.absolute() if text and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # no such home, a name too long, a null character
        return None
