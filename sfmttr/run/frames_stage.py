"""First stage: the frames of the clip that are used."""

from __future__ import annotations

from pathlib import Path

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError
from sfmttr.frames import loader
from sfmttr.io.json_files import cache_key
from sfmttr.run.stage_runner import StageRunner
from sfmttr.run.stages import StageName
from sfmttr.types import FrameSet, OnProgress


def choose_frames(stages: StageRunner, clip: Path, config: VideoConfig, on_progress: OnProgress) -> FrameSet:
    """Choose frames of `clip` and store them in the run folder. Raises `ClipError` and leaves the old ones then."""
    folder = stages.path / "frames"
    return stages.run(
        StageName.FRAMES,
        cache_key("", [clip_identity(clip), config]),
        lambda: [folder],
        lambda: loader.load_frames(clip, config, folder, on_progress),
        lambda: loader.frame_set_from_folder(folder),
        atomic=True,  # a clip that cannot be used must not cost the results of an earlier run
    )


def clip_identity(clip: Path) -> tuple[str, list[tuple[str, int, int]]]:
    """Return what tells whether a clip has changed: its name; and name, size and modification time of its files."""
    try:
        files = sorted(clip.iterdir()) if clip.is_dir() else [clip]
        stats = [(file.name, file.stat()) for file in files if file.exists()]
    except OSError as error:
        raise ClipError(f"{clip} cannot be read ({error.strerror}): check its permissions.") from error
    return clip.name, [(name, each.st_size, each.st_mtime_ns) for name, each in stats]
