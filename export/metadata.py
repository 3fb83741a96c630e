"""Metadata of the exported files, from the run."""

from __future__ import annotations

import sfmttr
from sfmttr.evaluation.comparison import Column
from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.fingerprint import weights_hash
from sfmttr.run.finished import FinishedRun
from sfmttr.types import HW, DepthKind

from . import spec
from .spec import Graph, ModelMetadata, Variant


def model_metadata(
    run: FinishedRun, network: DepthNetwork, working_hw: HW, scale: float, *, in_meters: bool
) -> ModelMetadata:
    """Return the metadata of the fp32 image graph; other files replace `graph` or `variant`."""
    held_out = run.report.comparison.held_out
    refined = None if held_out is None else held_out.after
    return ModelMetadata(
        schema=spec.SCHEMA,
        version=sfmttr.__version__,
        graph=Graph.IMAGE,
        variant=Variant.FP32,
        network=run.info.name,
        network_source=run.info.source,
        network_licence=run.info.licence,
        kind=DepthKind.METRIC if in_meters else run.kind,
        unit="metres" if in_meters else run.unit,
        scale=scale,
        refined=not run.rolled_back,
        preset=run.report.preset,
        weights_sha256=weights_hash(network),
        clip_sha256=run.frames.content_hash,
        clip_frames=len(run.frames),
        frame_hw=run.frames.hw,
        working_hw=working_hw,
        held_out_abs_rel_before=run.held_out_abs_rel(Column.BEFORE),
        held_out_abs_rel_after=run.held_out_abs_rel(Column.AFTER),
        held_out_points=0 if refined is None else refined.count,
        neighbours=network.source_offsets,
    )
