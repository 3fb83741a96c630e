"""A finished run of the tiny network, its export, and its kit: made once, in seconds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from export.exporter import export_run
from export.kit.builder import build_kit
from sfmttr.config import OutputConfig, RunConfig, VideoConfig
from sfmttr.networks.base import state_dict_cpu
from sfmttr.run import pipeline
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny
from tools.synthetic import render_room, write_frames

HW = (150, 200)
"""Size of the frames: larger than the tiny network works at, so that its graph has to resize."""


@dataclass(frozen=True)
class Exported:
    """Folders of a run and of its export."""

    run: Path
    export: Path

    def build_kit(self, folder: Path, *, bundle_runtime: bool = False) -> Path:
        """The kit, unzipped into `folder`."""
        path = build_kit(self.run, self.export, folder.with_suffix(".zip"), bundle_runtime=bundle_runtime)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        return folder


def export_tiny(folder: Path, patch: pytest.MonkeyPatch) -> Exported:
    """Refine the tiny network on a rendered room and export it. `patch` makes the network known while it lasts."""
    room = render_room(8, HW)
    write_frames(room, folder / "clip")
    torch.manual_seed(0)
    register_tiny(patch, folder / "weights", state_dict_cpu(fit(TinyNetwork(), room, steps=40)))
    FakeSfm(room).install(patch)
    config = RunConfig(
        network=TINY,
        steps=6,
        device="cpu",
        video=VideoConfig(duplicate_threshold=0.0),
        output=OutputConfig(pictures=False, clouds=False),
    )
    pipeline.run(folder / "clip", folder / "run", config)
    export_run(folder / "run")
    return Exported(folder / "run", folder / "run" / "export")


def register_again(exported: Exported, patch: pytest.MonkeyPatch) -> None:
    """Register the network of `export_tiny` again for another test."""
    register_tiny(patch, exported.run.parent / "weights")
