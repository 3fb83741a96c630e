"""Access to the packages that are built on top of this one, `export` and `demo`, and what they need installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from sfmttr.errors import ConfigError
from sfmttr.utils.resources import companion_package


def require(name: str, libraries: Iterable[str], *, extra: str, needed_by: str) -> str:
    """Return the import name of the package `name`.

    Raises `ConfigError`, with the command that installs what is missing, when it or one of `libraries` is not there.
    """
    package = companion_package(name)
    missing = [library for library in libraries if find_spec(library) is None]
    if package is None:
        missing.insert(0, name)
    if package is None or missing:
        raise ConfigError(f"{needed_by} needs {', '.join(missing)}: pip install {_install_target(package, extra)}.")
    return package


def _install_target(package: str | None, extra: str) -> str:
    in_clone = package is not None and not package.startswith("sfmttr.")
    return "-r requirements.txt" if in_clone else f"'sfmttr[{extra}]'"
