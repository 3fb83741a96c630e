"""The run folder: a manifest that says what was made from what, atomic writes, and JSON that can be published."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file


def _published_path(path: PurePath) -> str:
    """Relative paths as they are; of absolute ones the name only, which says nothing about the machine."""
    return path.name if path.is_absolute() else path.as_posix()


def _plain_key(key: object) -> str:
    """A JSON object's key."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"a key of type {type(key).__name__} cannot be written as JSON")


def _plain(value: object, path_text: Callable[[PurePath], str]) -> Any:
    """`value` in JSON's own types; TypeError for anything that nobody meant to write."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), path_text) for field in fields(value)}
    if isinstance(value, Enum):
        return _plain(value.value, path_text)
    if isinstance(value, PurePath):
        return path_text(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), path_text)
    if isinstance(value, Mapping):
        return {_plain_key(key): _plain(item, path_text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path_text) for item in value]
    if isinstance(value, float):
        # JSON has no NaN or infinity; a browser's JSON.parse refuses Python's spelling of them.
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def to_plain(value: object) -> Any:
    """`value` as dicts, lists, strings and numbers: dataclasses, enums, numpy and paths converted.

    NaN and infinity become None, absolute paths their last part. Raises TypeError for any other type.
    """
    return _plain(value, _published_path)


def write_json(path: Path, value: object) -> None:
    """Write `to_plain(value)` as indented UTF-8, atomically. Raises TypeError before anything is written."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises RunFolderError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); run the stage that writes it again") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); delete it and run again") from error


def cache_key(upstream: str, config: object) -> str:
    """sha256 (hex) of what a stage depends on: the key of the stage before it ("" for the first) and its own config."""
    # Whole paths here: two models that are both named "sparse/0" are two inputs. A hash gives neither of them away.
    plain = {"upstream": upstream, "config": _plain(config, lambda path: path.as_posix())}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
