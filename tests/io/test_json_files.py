"""Typed values as JSON files: round trips, aliases, omitted fields, and input that is damaged or hostile."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from sfmttr.errors import NetworkError, RunFolderError
from sfmttr.io.json_files import JSON_KEY, OMIT_NONE, cache_key, parse_json, read_model, to_plain, write_json


class Color(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    error: float
    count: int = 0


@dataclass(frozen=True)
class Whole:
    color: Color
    hw: tuple[int, int]
    parts: tuple[Part, ...]
    by_frame: dict[int, float]
    speed_cv: float = field(default=0.0, metadata={JSON_KEY: "step_evenness"})
    limit: float | None = None
    note: str | None = field(default=None, metadata={OMIT_NONE: True})


WHOLE = Whole(Color.RED, (3, 4), (Part(0.5, 2), Part(math.inf)), {0: 1.0, 12: 2.0}, speed_cv=0.25)


def test_values_are_read_back_and_what_was_not_finite_is_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", WHOLE)
    read = read_model(tmp_path / "a.json", Whole)
    assert (read.color, read.hw, read.by_frame, read.speed_cv) == (Color.RED, (3, 4), {0: 1.0, 12: 2.0}, 0.25)
    assert read.parts[0] == Part(0.5, 2)
    assert math.isnan(read.parts[1].error)
    assert read.limit is None


def test_keys_of_json_may_differ_from_names_and_none_may_be_left_out() -> None:
    assert list(to_plain(WHOLE)) == ["color", "hw", "parts", "by_frame", "step_evenness", "limit"]


def test_keys_that_are_not_known_are_ignored() -> None:
    assert parse_json('{"error": 1, "later": [1]}', Part) == Part(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        '{"error": "1"}',
        '{"error": true}',
        '{"error": 1, "count": 1.5}',
        '{"error": 1, "count": 9223372036854775808}',
        '{"error": 1, "count": ' + "9" * 10_000 + "}",
        '{"error": ' + "[" * 100_000,
        '{"error": 1' + " " * 10,
        b'{"error": 1, "count": "\xff"}',
        '{"error": "\\ud800"}',
    ],
)
def test_damaged_and_hostile_files_end_in_one_sentence(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunFolderError, match=r"a\.json is damaged or from another version \(.*\); make it again"):
        read_model(tmp_path / "a.json", Part, advice="make it again")
    with pytest.raises(NetworkError, match="damaged"):
        read_model(tmp_path / "a.json", Part, error_type=NetworkError)


def test_the_place_of_a_wrong_value_is_named() -> None:
    plain: dict[str, Any] = to_plain(WHOLE)
    plain["parts"][1]["count"] = "many"
    with pytest.raises(ValueError, match=r"^parts\.1\.count: "):
        parse_json(json.dumps(plain), Whole)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(RunFolderError, match="cannot be read"):
            read_model(path, Part)


def test_digests_are_those_of_earlier_versions() -> None:
    key = cache_key("up", {"path": Path("/a/b"), "values": [1, 0.5, None, float("nan")], "color": Color.RED})
    assert key == "d8b6d370ea7cfa146eff451db6f23b890f1b2b4314a52d8c76eabb6c8d0d7e0e"


def test_pydantic_is_imported_by_the_first_reader_only() -> None:
    code = "import sys, sfmttr.run.report; print('pydantic' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "False\n"
