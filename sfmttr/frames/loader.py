"""Load a video, a folder or a zip file of images as a `FrameSet`: a limited number of frames, evenly spaced in time.

`video` decodes videos, `images` and `zip_archive` read pictures, `selection` chooses the frames to keep, `store` writes
them atomically.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sfmttr.config import VideoConfig
from sfmttr.errors import ConfigError
from sfmttr.frames.clip_info import ClipInfo, ClipKind, kind_of
from sfmttr.frames.images import SUFFIXES as IMAGE_SUFFIXES
from sfmttr.frames.images import ImageSource, archive_files, folder_files, natural_key
from sfmttr.frames.selection import MIN_FRAMES, check_enough, keep_frames
from sfmttr.frames.store import frame_set_from_folder, frame_store
from sfmttr.frames.video import probe_video, video_source
from sfmttr.frames.zip_archive import Archive
from sfmttr.types import FrameSet, OnProgress, ignore_progress

__all__ = ["IMAGE_SUFFIXES", "ClipInfo", "ClipKind", "frame_set_from_folder", "load_frames", "probe"]


def probe(clip: Path, config: VideoConfig) -> ClipInfo:
    """Return a clip's properties from its header and first frame. Raises `ClipError` when the clip cannot be used."""
    kind = kind_of(clip)
    if kind is ClipKind.VIDEO:
        return probe_video(clip, config)
    with _image_source(clip, kind, config) as source:
        count = len(source.names)
        return ClipInfo(kind, None, source.first_hw(), count, min(count, config.max_frames), "images")


def load_frames(clip: Path, config: VideoConfig, folder: Path, on_progress: OnProgress = ignore_progress) -> FrameSet:
    """Select frames of a clip and store them in `folder`, which appears only on success.

    Raises `ClipError` for a clip that cannot be used, `ConfigError` for settings that are invalid in themselves or for
    this kind of clip, and `RunFolderError` when `folder` cannot be written. Exceptions of `on_progress` pass through.
    On any error nothing is left on disk.
    """
    kind = kind_of(clip)
    _check_settings(config, kind)
    opened = video_source(clip, config) if kind is ClipKind.VIDEO else _image_source(clip, kind, config)
    with opened as source, frame_store(folder) as store:
        kept = keep_frames(source, store, config, on_progress)
        check_enough(kept, source, clip.name)
        frames = FrameSet(
            folder=folder,
            files=tuple(store.files),
            names=tuple(source.names[number] for number in kept.numbers),
            numbers=tuple(kept.numbers),
            time_s=tuple(kept.time_s),
            hw=kept.hw,
            source_hw=source.source_hw,
            source_count=len(source.names),
            from_video=kind is ClipKind.VIDEO,
            content_hash=store.content_hash,
            focal_prior_px=source.focal_px and source.focal_px * max(kept.hw) / max(source.source_hw),
            skipped=tuple(sorted(source.skipped + kept.skipped, key=lambda frame: natural_key(frame.name))),
        )
        store.write_index(frames)
    return frames


def _check_settings(config: VideoConfig, kind: ClipKind) -> None:
    if config.max_frames < MIN_FRAMES:
        raise ConfigError(f"at most {config.max_frames} frames are allowed; allow {MIN_FRAMES} or more, better 20")
    if config.start_s < 0 or (config.end_s is not None and config.end_s <= config.start_s):
        end = "the clip's end" if config.end_s is None else f"{config.end_s:g} s"
        raise ConfigError(
            f"from {config.start_s:g} s to {end} there is nothing; give a start of 0 or more, and a later end"
        )
    if kind is not ClipKind.VIDEO and (config.start_s > 0 or config.end_s is not None):
        raise ConfigError("start and end are times of a video, and this clip is of images; leave them out")


@contextmanager
def _image_source(clip: Path, kind: ClipKind, config: VideoConfig) -> Iterator[ImageSource]:
    if kind is ClipKind.FOLDER:
        yield ImageSource(folder_files(clip), clip.name, config)
        return
    with closing(Archive(clip, config)) as archive:
        yield ImageSource(archive_files(archive), clip.name, config)
