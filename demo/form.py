"""The settings of the form, parsed and checked: typed values for a run or an export, or one sentence that says why not.

Whatever a visitor or a program sends arrives here as plain values; nothing in this module knows gradio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfmttr.config import Preset, RunConfig, VideoConfig
from sfmttr.errors import ConfigError, IntrinsicsError

from .config import PageConfig
from .export_worker import ExportRequest


@dataclass(frozen=True)
class SelectedClip:
    """The clip that a visitor selected."""

    clip: Path
    example: str | None = None
    """Name of the example, or None for an upload."""


@dataclass(frozen=True)
class RunRequest:
    """Settings of one run, as the form holds them."""

    network: str
    preset: str
    max_frames: int
    start_s: float
    end_s: float | None
    """None: to the end of the clip."""
    intrinsics: str
    seed: int
    force: bool
    other: str = ""
    """Model id in the field below the list of networks; read when `network` is `network_choices.OTHER`."""

    @classmethod
    def parse(cls, values: Sequence[Any]) -> RunRequest:
        """Parse component values in the order of the fields; the page sends `other`, the API does not.

        Raises `ConfigError`.
        """
        network, preset, max_frames, start_s, end_s, intrinsics, seed, force, *more = values
        for name, value in (("Start", start_s), ("End", end_s)):
            if value is not None and not (math.isfinite(float(value)) and float(value) >= 0):
                raise ConfigError(f"{name} is {value} s: enter seconds from the beginning of the clip, 0 or more.")
        start_s, end_s = float(start_s or 0.0), float(end_s or 0.0) or None
        if end_s is not None and end_s <= start_s:
            raise ConfigError("End is before start: swap them.")
        if preset not in list(Preset):
            raise ConfigError(f"There is no preset {preset!r}: choose {', '.join(Preset)}.")
        if seed is None or not 0 <= int(seed) < 2**32:
            raise ConfigError(f"The seed must be a whole number from 0 to {2**32 - 1}.")
        return cls(
            str(network or ""),
            str(preset),
            int(max_frames),
            start_s,
            end_s,
            str(intrinsics or "").strip(),
            int(seed),
            bool(force),
            *(str(each or "") for each in more),
        )

    def video(self, config: PageConfig) -> VideoConfig:
        """Return how the clip is read. Raises `ConfigError`."""
        if not config.least_frames <= self.max_frames <= config.most_frames:
            raise ConfigError(f"Choose {config.least_frames} to {config.most_frames} frames.")
        return replace(config.video, max_frames=self.max_frames, start_s=self.start_s, end_s=self.end_s)

    def run_config(self, config: PageConfig, network: str) -> RunConfig:
        """Return the configuration of the run, with `network` as resolved by `NetworkChoices.resolve`."""
        check_intrinsics(self.intrinsics)
        return RunConfig(
            network=network,
            preset=Preset(self.preset),
            video=self.video(config),
            intrinsics=self.intrinsics or None,
            seed=self.seed,
            force=self.force,
        )


def check_intrinsics(intrinsics: str) -> None:
    """Raise `IntrinsicsError` for anything but numbers: a file name would be looked up on the server's disk."""
    if intrinsics and not all(_is_number(part) for part in intrinsics.split(",")):
        raise IntrinsicsError('Enter intrinsics as numbers, "fx, fy, cx, cy" in pixels of the clip.')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_export_request(
    point: str, distance_m: float | None, height_m: float | None, *, bundle: bool = False
) -> ExportRequest:
    """Parse the fields of the export: a known distance, or the camera height, or neither. Raises `ConfigError`."""
    known = parse_known_depth(point, distance_m)
    if height_m and not (math.isfinite(height_m) and height_m > 0):
        raise ConfigError("Enter the camera height in meters, more than 0, or 0 if it is unknown.")
    if known and height_m:
        raise ConfigError("Enter a known distance or the camera height, not both: they may contradict each other.")
    return ExportRequest(known, float(height_m) if height_m else None, bundle)


def parse_known_depth(point: str, distance_m: float | None) -> tuple[int, int, int, float] | None:
    """Return frame, row, column and meters of a measured distance, or None. Raises `ConfigError`."""
    if not (point or "").strip() and not distance_m:
        return None
    if not distance_m or not math.isfinite(distance_m) or distance_m <= 0:
        raise ConfigError("Enter the distance of the point in meters, more than 0, or clear the point.")
    try:
        frame, row, column = (int(part) for part in (point or "").split(","))
    except ValueError:
        raise ConfigError('Mark the point under Compare, or enter it as "frame, row, column".') from None
    return frame, row, column, float(distance_m)
