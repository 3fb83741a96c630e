"""The run folder: resuming, atomic writes, locking, JSON."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest

from sfmttr.errors import RunFolderError
from sfmttr.io.atomic import atomic_file, atomic_folder
from sfmttr.io.json_files import cache_key, read_json, write_json
from sfmttr.run import folder
from sfmttr.run.folder import RunFolder
from sfmttr.run.manifest import read_manifest


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    rate: float = float("nan")
    colour: Colour = Colour.RED
    folder: Path | None = None


def _finish(run: RunFolder, stage: str, key: str, *names: str) -> None:
    for name in names:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(name)
    run.record(stage, key, [run.path / name for name in names], 1.0)


def test_finished_stages_are_fresh_after_reopening(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.describe(Settings(), seed=7)
        _finish(run, "sfm", "k1", "model/points.txt")
    with RunFolder(tmp_path / "run") as run:
        assert run.is_fresh("sfm", "k1")
        assert not run.is_fresh("sfm", "other")
        assert not run.is_fresh("refine", "k1")
        assert run.manifest.seed == 7
        assert run.manifest.stage("sfm").files == {"model/points.txt": 16}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("cut")])
def test_missing_or_cut_files_are_not_fresh(tmp_path, damage):
    with RunFolder(tmp_path) as run:
        _finish(run, "sfm", "k1", "points.txt")
        damage(tmp_path / "points.txt")
        assert not run.is_fresh("sfm", "k1")


def test_folders_are_recorded_file_by_file(tmp_path):
    with RunFolder(tmp_path) as run:
        (tmp_path / "depth").mkdir()
        for name in ("a.png", "b.png"):
            (tmp_path / "depth" / name).write_text("x")
        record = run.record("predict", "k", [tmp_path / "depth"], 0.5)
    assert list(record.files) == ["depth/a.png", "depth/b.png"]


def test_invalidating_drops_these_stages_and_their_files(tmp_path):
    with RunFolder(tmp_path) as run:
        for stage in ("frames", "sfm", "refine"):
            _finish(run, stage, stage, f"{stage}/result.txt")
        run.invalidate(("sfm", "refine", "not there"))
        assert [record.name for record in read_manifest(tmp_path).stages] == ["frames"]
        assert (tmp_path / "frames/result.txt").exists()
        assert not (tmp_path / "sfm").exists()
        assert not (tmp_path / "refine").exists()


def test_recording_again_drops_what_it_is_said_to_void_and_files_of_old_and_nothing_else(tmp_path):
    with RunFolder(tmp_path) as run:
        _finish(run, "sfm", "old", "sfm/points.txt", "sfm/log.txt")
        _finish(run, "refine", "old", "weights.txt")
        _finish(run, "outputs", "old", "cloud.ply")
        _finish(run, "sfm", "new", "sfm/other.txt", "sfm/points.txt")
        assert run.is_fresh("sfm", "new")
        assert not (tmp_path / "sfm/log.txt").exists()
        assert run.is_fresh("refine", "old")
        run.record("sfm", "newest", [tmp_path / "sfm"], 1.0, invalidates=("refine",))
        assert run.is_fresh("sfm", "newest")
        assert not run.is_fresh("refine", "old")
        assert not (tmp_path / "weights.txt").exists()
        assert run.is_fresh("outputs", "old")


def test_files_from_elsewhere_are_refused(tmp_path):
    (tmp_path / "other.txt").write_text("x")
    with RunFolder(tmp_path / "run") as run:
        for given in (tmp_path / "other.txt", Path("nowhere.txt")):
            with pytest.raises(ValueError, match="not in the run folder"):
                run.record("sfm", "k", [given], 1.0)


@pytest.mark.parametrize("where", ["file/run", "x" * 300, "file/deeper/run"])
def test_a_folder_that_cannot_be_made_is_said(tmp_path, where):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match=r"choose (another|a) folder"):
        RunFolder(tmp_path / where)
    with pytest.raises(RunFolderError, match=r"choose (another|a) folder"), atomic_folder(tmp_path / where):
        pass


def test_folder_with_other_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="choose another"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 99, "sfmttr": "9.0", "stages": []}', "newer sfmttr"),
        ('{"schema": 1, "sta', "damaged"),
        ("[]", "damaged"),
        ('{"schema": 1, "stages": [{"name": "sfm"}]}', "damaged"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=message):
        RunFolder(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text
    assert not (tmp_path / ".lock").exists()


def test_manifest_may_not_reach_out_of_its_folder(tmp_path):
    RunFolder(tmp_path).close()
    plain = read_json(tmp_path / "manifest.json")
    plain["stages"] = [{"name": "a", "key": "", "finished": "", "seconds": 0, "files": {"../precious.txt": 1}}]
    write_json(tmp_path / "manifest.json", plain)
    with pytest.raises(RunFolderError, match="outside"):
        RunFolder(tmp_path)


def test_a_file_or_forbidden_place_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "file")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    with pytest.raises(RunFolderError, match="no permission"):
        RunFolder(tmp_path / "new")


HOLD = """
import sys
from pathlib import Path
from sfmttr.run.folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_second_process_is_refused_and_a_dead_one_forgotten(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(folder.__file__).parents[2]) as other:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(RunFolderError, match="in use"):
            RunFolder(tmp_path)
        other.kill()
        other.wait()
    with RunFolder(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    RunFolder(tmp_path).close()
    (tmp_path / "deep" / ".tmp-12-folder").mkdir(parents=True)
    (tmp_path / "deep" / ".tmp-34-a.png").write_text("half")
    RunFolder(tmp_path).close()
    assert not list((tmp_path / "deep").iterdir())


def _fail_writing(atomic, path: Path, error: type[BaseException]) -> None:
    with atomic(path) as part:
        (part / "x" if part.is_dir() else part).write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_writes_leave_the_old_content(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    for atomic, name in ((atomic_file, "a.txt"), (atomic_folder, "folder")):
        with pytest.raises(error):
            _fail_writing(atomic, tmp_path / name, error)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_atomic_folder_replaces_a_full_one(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as part:
            (part / f"{content}.txt").write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "fsync", full)
    for writing in (lambda: write_json(tmp_path / "a.json", 2), lambda: RunFolder(tmp_path / "run")):
        with pytest.raises(RunFolderError, match="is full; free some space"):
            writing()
    assert read_json(tmp_path / "a.json") == 1
    assert not list((tmp_path / "run").iterdir())


def test_json_of_all_that_results_hold(tmp_path):
    value = {
        "s": Settings(),
        "n": np.float32(0.5),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.eye(2),
        Colour.RED: (1,),
    }
    write_json(tmp_path / "a.json", value)
    read = read_json(tmp_path / "a.json")
    assert read["s"] == {"steps": 3, "rate": None, "colour": "red", "folder": None}
    assert [read["n"], read["i"], read["b"], read["a"], read["red"]] == [0.5, 3, True, [[1, 0], [0, 1]], [1]]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {(1, 2): 3}])
def test_json_refuses_what_nobody_meant_to_write(tmp_path, value):
    with pytest.raises(TypeError, match="cannot be written"):
        write_json(tmp_path / "a.json", [value])
    assert not list(tmp_path.iterdir())


def test_nothing_published_names_the_machine(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.describe(Settings(folder=tmp_path / "models" / "sparse"), seed=None)
        _finish(run, "sfm", cache_key("", Settings(folder=tmp_path)), "points.txt")
    text = (tmp_path / "run" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    assert json.loads(text)["config"]["folder"] == "sparse"


def test_keys_follow_settings_and_what_came_before(tmp_path):
    key = cache_key("up", Settings())
    assert key == cache_key("up", Settings(rate=float("nan")))
    others = [cache_key("down", Settings()), cache_key("up", Settings(steps=4))]
    folders = [cache_key("up", Settings(folder=tmp_path / name / "0")) for name in "ab"]
    assert len({key, *others, *folders}) == 5
