"""JSON files of frozen dataclasses: the only place that turns typed values into JSON and back.

Writing converts dataclasses, enums, numpy values and paths. Reading validates against the dataclass (pydantic), so a
damaged or hostile file ends in one `RunFolderError` and never in a half-built value. Two keys of `dataclasses.field`
metadata shape an object: `JSON_KEY` (a key other than the field's name) and `OMIT_NONE` (no entry for None).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sfmttr.errors import RunFolderError, SfmttrError
from sfmttr.io.atomic import atomic_file

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator, ValidationError

T = TypeVar("T")

JSON_KEY = "json_key"
"""Metadata of a dataclass field: its key in JSON, a string."""
OMIT_NONE = "omit_none"
"""Metadata of a dataclass field: True for one that JSON lacks where it is None."""

_INT64 = {"ge": -(2**63), "le": 2**63 - 1}


def _json_key(field: Any) -> str:
    return str(field.metadata.get(JSON_KEY, field.name))


# ----------------------------------------------------------------------------------------- write


def _published_path(path: PurePath) -> str:
    """Return relative paths whole and of absolute ones the name only, which says nothing about the machine."""
    return path.name if path.is_absolute() else path.as_posix()


def _plain_key(key: object) -> str:
    """Return the key of a JSON object for `key`."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"a key of type {type(key).__name__} cannot be written as JSON")


def _plain(value: object, path_text: Callable[[PurePath], str]) -> Any:
    """Return `value` in JSON's own types. Raises TypeError for a type that is not meant to be written."""
    if is_dataclass(value) and not isinstance(value, type):
        items = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            _json_key(field): _plain(item, path_text)
            for field, item in items
            if not (item is None and field.metadata.get(OMIT_NONE))
        }
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
    """Return `value` as dicts, lists, strings and numbers; dataclasses, enums, numpy values and paths are converted.

    NaN and infinity become None, absolute paths their last part. Raises TypeError for any other type.
    """
    return _plain(value, _published_path)


def write_json(path: Path, value: object, *, indent: int = 2, sort_keys: bool = False) -> None:
    """Write `to_plain(value)` as indented UTF-8, atomically. Raises TypeError before anything is written."""
    text = json.dumps(to_plain(value), indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def cache_key(upstream: str, config: object) -> str:
    """Return the sha256 (hex) of what a stage depends on.

    `upstream` is the key of the stage before it ("" for the first), `config` its own settings.
    """
    # Whole paths here: two models that are both named "sparse/0" are two inputs. A hash gives neither of them away.
    plain = {"upstream": upstream, "config": _plain(config, lambda path: path.as_posix())}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# ------------------------------------------------------------------------------------------ read


def read_json(path: Path) -> Any:
    """Return the content of a JSON file in plain types. Raises RunFolderError when it is missing or damaged."""
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); delete it and run again") from error


def read_model(
    path: Path,
    model: type[T],
    *,
    newest_schema: int | None = None,
    advice: str = "delete it and run again",
    error_type: type[SfmttrError] = RunFolderError,
) -> T:
    """Return the content of a JSON file as a `model`, a dataclass that `write_json` wrote.

    Null where `model` has a float is NaN; keys that it does not have are ignored. Raises RunFolderError when the file
    is missing or its "schema" is above `newest_schema`, and `error_type`, with a message that ends in `advice`, when
    it does not fit `model`.
    """
    data = _read(path)
    try:
        if newest_schema is not None:
            _refuse_newer(path, parse_json(data, _Version), newest_schema)
        return parse_json(data, model)
    except ValueError as error:
        raise error_type(f"{path} is damaged or from another version ({error}); {advice}") from error


def parse_json(data: bytes | str, model: type[T]) -> T:
    """Return JSON text as a `model`, as `read_model` does. Raises ValueError with the place and the reason."""
    from pydantic_core import ValidationError

    try:
        # mypy takes a type variable's class for unhashable
        value: T = _validator(model).validate_json(data, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(_first_reason(error)) from error
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); run the stage that writes it again") from error


@dataclass(frozen=True)
class _Version:
    """Version of a file's layout and of the package that wrote it."""

    schema: int
    sfmttr: str = "unknown version"


def _refuse_newer(path: Path, version: _Version, newest_schema: int) -> None:
    if version.schema > newest_schema:
        raise RunFolderError(
            f"{path} was made by a newer sfmttr ({version.sfmttr}); update sfmttr or choose another folder"
        )


def _first_reason(error: ValidationError) -> str:
    """Return place and reason of the first violation, e.g. "alignment.scale: Input should be a valid number"."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


@cache
def _validator(model: type) -> SchemaValidator:
    """Return the validator of a dataclass. Imports pydantic, which most commands do without, at the first call."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_as_written(TypeAdapter(model).core_schema))


def _as_written(schema: Any) -> Any:
    """Return pydantic's schema with the conventions of `write_json`: null for NaN, `JSON_KEY`, integers of 64 bits."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_as_written, schema))
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind == "float":
        before = {"type": "no-info", "function": lambda value: math.nan if value is None else value}
        return {"type": "function-before", "function": before, "schema": schema}
    if kind == "int":
        return schema | _INT64
    schema = {name: _as_written(part) if name != "default" else part for name, part in schema.items()}
    if kind == "dataclass":
        keys = {field.name: _json_key(field) for field in fields(schema["cls"])}
        for field in schema["schema"].get("fields", ()):
            if keys[field["name"]] != field["name"]:
                field["validation_alias"] = keys[field["name"]]
    return schema
