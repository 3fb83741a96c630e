"""All defaults of the page. Those of a run are in `sfmttr.config`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sfmttr.config import Preset, RunConfig, VideoConfig
from sfmttr.networks.weights import cache_folder
from sfmttr.utils.resources import examples_folder

from .environment import default_network, is_private

EXAMPLES_FOLDER = examples_folder()


def _default_folder() -> Path:
    """Return `SFMTTR_PAGE`, else a folder in the user's cache."""
    given = os.environ.get("SFMTTR_PAGE")
    return Path(given).expanduser() if given else cache_folder() / "page"


@dataclass(frozen=True)
class Example:
    """A clip among the examples."""

    name: str
    title: str
    clip: Path
    description: str
    """Content of the clip, in one line."""


EXAMPLES = (
    Example("street", "Street", EXAMPLES_FOLDER / "street.mp4", "60 frames from a car, generated with exact depth"),
    Example("room", "Room", EXAMPLES_FOLDER / "room.mp4", "60 frames of a hand-held walk, generated with exact depth"),
)


@dataclass(frozen=True)
class PageConfig:
    """Settings of one page."""

    folder: Path = field(default_factory=_default_folder)
    """Folder of uploads, runs and finished examples."""
    examples: tuple[Example, ...] = EXAMPLES
    prepare_examples: bool = True
    """Compute the examples' results while nobody needs the machine."""
    network: str = field(default_factory=default_network)
    """The one that is selected at first."""
    example_network: str = RunConfig().network
    """A small one: results of examples are computed on the CPU wherever the page runs."""
    folders: bool = field(default_factory=is_private)
    """Accept folders of this machine as networks: only where nobody else can open the page."""
    most_parameters: int = 1_500_000_000
    """Largest number of parameters of a network; more do not fit in memory beside the page."""
    preset: Preset = Preset.FAST
    example_preset: Preset = Preset.DEFAULT
    max_frames: int = 60
    least_frames: int = 8
    most_frames: int = 150
    seed: int = RunConfig().seed

    max_upload_bytes: int = 500_000_000
    max_files: int = 500
    """Images of one upload."""
    max_duration_s: float = 900.0
    """Duration of the used part of a clip; longer ones need a start and an end."""
    max_source_pixels: int = 20_000_000
    """Pixels of a frame; 8K has 33 million."""

    keep_s: float = 24 * 3600.0
    """Uploads and runs that nobody opened for so long are deleted."""
    keep_most: int = 60
    """Largest number of them; a run takes about 200 MB."""
    sweep_every_s: float = 600.0

    queue_length: int = 8
    """Jobs that may wait; further visitors are asked to come back later."""
    stop_within_s: float = 3.0
    """Longest wait for the end of a stopped job."""
    live_every_s: float = 0.7
    """Shortest time between two live pictures."""
    poll_s: float = 0.25
    """Time between two updates of the page."""
    picture_width: int = 1280
    """Largest width of a picture that is sent, in pixels."""
    port: int | None = None

    # Limits of the warnings of a preview.
    short_clip_s: float = 2.0
    few_frames: int = 15
    hardly_moves: float = 6.0
    """Mean gray-level difference between neighboring frames of the preview below which there is a warning."""
    sparse_frames_s: float = 1.0
    """Time between used frames above which there is a warning."""

    @property
    def video(self) -> VideoConfig:
        """Settings for reading clips, with the limits of the page."""
        return VideoConfig(
            max_frames=self.max_frames,
            max_duration_s=self.max_duration_s,
            max_source_pixels=self.max_source_pixels,
            max_archive_bytes=2 * self.max_upload_bytes,
            max_archive_files=self.max_files,
        )
