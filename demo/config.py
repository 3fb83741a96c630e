"""Every default of the page, once. What a run depends on has its own in `sfmttr.config`."""

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
    """`SFMTTR_PAGE`, else the user's cache."""
    given = os.environ.get("SFMTTR_PAGE")
    return Path(given).expanduser() if given else cache_folder() / "page"


@dataclass(frozen=True)
class Example:
    """A clip of the gallery."""

    name: str
    title: str
    clip: Path
    words: str
    """One line on what there is to see."""


EXAMPLES = (
    Example("street", "Street", EXAMPLES_FOLDER / "street.mp4", "60 frames from a car, generated with exact depth"),
    Example("room", "Room", EXAMPLES_FOLDER / "room.mp4", "60 frames of a hand-held walk, generated with exact depth"),
)


@dataclass(frozen=True)
class PageConfig:
    """Settings of one page."""

    folder: Path = field(default_factory=_default_folder)
    """Uploads, runs and finished examples."""
    examples: tuple[Example, ...] = EXAMPLES
    prepare_examples: bool = True
    """Make the examples' results when nobody else needs the machine."""
    network: str = field(default_factory=default_network)
    """That is chosen at first."""
    example_network: str = RunConfig().network
    """Their results are made on a CPU wherever the page runs: with a small one."""
    folders: bool = field(default_factory=is_private)
    """Networks may lie in folders of this machine: only where nobody else can open the page."""
    most_parameters: int = 1_500_000_000
    """Of a network: larger ones do not fit beside a page."""
    preset: Preset = Preset.FAST
    example_preset: Preset = Preset.DEFAULT
    max_frames: int = 60
    least_frames: int = 8
    most_frames: int = 150
    seed: int = RunConfig().seed

    max_upload_bytes: int = 500_000_000
    max_files: int = 500
    """Images at once."""
    max_duration_s: float = 900.0
    """Longer clips need a start and an end."""
    max_source_pixels: int = 20_000_000
    """Of a frame: 8K has 33 million."""

    keep_s: float = 24 * 3600.0
    """Uploads and runs that nobody has looked at for so long are deleted."""
    keep_most: int = 60
    """Of them, at once: a run takes about 200 MB."""
    sweep_every_s: float = 600.0

    queue_length: int = 8
    """Who comes when so many are waiting is asked to come back later."""
    stop_within_s: float = 3.0
    live_every_s: float = 0.7
    """Least time between two live pictures."""
    poll_s: float = 0.25
    """How often the page is told what happens."""
    picture_width: int = 1280
    port: int | None = None

    short_clip_s: float = 2.0
    few_frames: int = 15
    hardly_moves: float = 6.0
    """Mean grey levels between frames of the preview below which there is a warning."""
    sparse_frames_s: float = 1.0
    """Time between used frames above which there is one."""

    @property
    def video(self) -> VideoConfig:
        """What the page takes in."""
        return VideoConfig(
            max_frames=self.max_frames,
            max_duration_s=self.max_duration_s,
            max_source_pixels=self.max_source_pixels,
            max_archive_bytes=2 * self.max_upload_bytes,
            max_archive_files=self.max_files,
        )
