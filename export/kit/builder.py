"""The kit: everything that the network of one place needs to be used elsewhere, in one zip.

kit.json                 what is in here, for infer.py and the page
models/depth-*.onnx      the exported variants
infer.py runtime.py      depth from the command line, with onnxruntime, numpy and pillow
index.html js/ style.css serve.py      depth in a browser
runtime/                 onnxruntime-web, with `bundle_runtime`; else the page fetches it from a CDN
check/                   a frame of the clip, and what its depth should be
README.md LICENSES/      model card and terms
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
from PIL import Image

from sfmttr.evaluation.comparison import Column
from sfmttr.io.atomic import atomic_file
from sfmttr.io.depth_files import choose_png_scale
from sfmttr.io.depth_maps import read_aligned, read_maps
from sfmttr.networks.fingerprint import weights_hash
from sfmttr.run.finished import FinishedRun
from sfmttr.types import DepthKind
from sfmttr.viz import colormap

from .. import spec
from ..errors import ExportError
from ..report import ExportReport, FileReport, read_export_report
from ..runtime import ModelError, OnnxDepth
from ..spec import Variant
from . import model_card, ort_web

SCHEMA = 1
"""Schema version of kit.json."""
STATIC = Path(__file__).with_name("static")
"""Folder of the files that every kit holds as they are."""
STATIC_SUFFIXES = frozenset((".html", ".css", ".js", ".svg", ".py"))
CHECK_LIMIT = 1e-3
"""Largest relative difference that the self-check passes fp32 with: four decimals survive other processors' sums."""
FP16_LIMIT = 2e-2
"""For fp16, at least: some hardware also sums in half floats, and a network is a hundred sums deep."""
CHECK_PIXELS = 40_000
"""About as many depths of the stored frame are compared: more would only make the kit larger."""
CAUTION = (
    "Structure-from-motion of this clip was not trusted, and the network was tuned with it all the same: depth may be "
    "wrong, and so may the errors that are given here."
)
PNG_HEADROOM = 2.0
"""Other pictures of the place may look this much farther than the clip's own."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""One for all files: the same content gives the same zip."""
_STORED = frozenset((".png",))


class KitError(ExportError):
    """The kit cannot be made from this export."""


def build_kit(run: Path, export_dir: Path, out: Path, *, bundle_runtime: bool = False) -> Path:
    """Pack the export in `export_dir` of the finished run `run` into the zip `out`, atomically.

    `bundle_runtime`: put onnxruntime-web in, so that the page needs no other server (about 10 MB more).
    Raises `KitError` when `export_dir` holds no whole export of this run, `WebRuntimeError` when the browser's runtime
    cannot be fetched, `RunFolderError` when the run cannot be read or the zip not be written; `out` is then what it
    was before.
    """
    export = _Export.read(export_dir)
    finished = FinishedRun.read(run)
    export.refuse_other_than(finished)
    # Before all else, because it can fail for reasons that lie outside.
    runtime = ort_web.read_files() if bundle_runtime else {}
    check = _Check.compute(finished, export)
    kit = _kit_json(finished, export, check, "runtime/" if bundle_runtime else ort_web.CDN)
    files = {
        "kit.json": _json(kit),
        **export.models,
        **check.files,
        **_static_files(offline=bundle_runtime),
        **{f"runtime/{name}": content for name, content in runtime.items()},
        **model_card.documents(finished, export.report, kit),
    }
    with atomic_file(out) as part:
        _write_zip(part, files)
    return out


# ------------------------------------------------------------------------------------------ export


@dataclass(frozen=True)
class _Export:
    """A whole export: what its report lists is there, unchanged."""

    folder: Path
    report: ExportReport
    models: Mapping[str, bytes]
    """Files by their names in the kit."""

    @classmethod
    def read(cls, folder: Path) -> _Export:
        try:
            report = read_export_report(folder)
        except ExportError as error:
            raise KitError(str(error)) from error
        if Variant.FP32 not in report.variants:
            raise KitError("a kit checks itself with fp32, which is not among the variants; add it, or make no kit")
        models = {_in_kit(each.file): _read_model(folder, each.file, each.sha256) for each in report.variants.values()}
        return cls(folder, report, models)

    @property
    def model(self) -> spec.NetworkDescription:
        return self.report.model

    @property
    def variants(self) -> Mapping[Variant, FileReport]:
        return self.report.variants

    def refuse_other_than(self, finished: FinishedRun) -> None:
        """Raise `KitError` when this was not exported from what `finished` holds now."""
        if self.model.clip_sha256 != finished.frames.content_hash:
            raise KitError(f"{self.folder} is an export of another clip than {finished.folder} is of; export again")
        if self.model.weights_sha256 != weights_hash(finished.refined_network()):
            raise KitError(f"{finished.folder} was refined anew since {self.folder} was made; export again")

    def content(self, variant: Variant) -> bytes:
        return self.models[_in_kit(self.variants[variant].file)]

    def network(self, variant: Variant) -> OnnxDepth:
        path = self.folder / self.variants[variant].file
        try:
            return OnnxDepth(path)
        except ModelError as error:
            raise KitError(f"{path.name} cannot be run; export again ({error})") from error


def _in_kit(file: str) -> str:
    if PurePath(file).name != file:
        raise KitError(f"the export report lists {file!r}, which lies outside of its folder; export again")
    return f"models/{file}"


def _read_model(folder: Path, file: str, sha256: str) -> bytes:
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise KitError(f"{folder / file} cannot be read ({error.strerror}); export again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise KitError(f"{folder / file} is not what the report beside it is about; export again")
    return content


# ------------------------------------------------------------------------------------------- check


@dataclass(frozen=True)
class _Check:
    """A frame of the clip, its depth by fp32 as computed here, and how far each variant may be from that elsewhere."""

    description: Mapping[str, Any]
    """For kit.json."""
    limits: Mapping[Variant, float]
    """Largest relative difference, by variant."""
    files: Mapping[str, bytes]

    @classmethod
    def compute(cls, finished: FinishedRun, export: _Export) -> _Check:
        rgb = finished.frames.read(len(finished.frames) // 2).rgb
        step = max(1, round((rgb.shape[0] * rgb.shape[1] / CHECK_PIXELS) ** 0.5))
        first = step // 2
        some = (slice(first, None, step),) * 2
        expected = export.network(Variant.FP32).predict(rgb)[some].astype("<f4")
        limits = {name: CHECK_LIMIT for name in export.variants}
        for name in export.variants:
            if name != Variant.FP32:
                # Other processors round these otherwise too: twice what they differ by here is still the same network.
                found = np.abs(export.network(name).predict(rgb)[some] - expected) / expected
                limits[name] += 2.0 * float(found.max())
        if Variant.FP16 in limits:
            limits[Variant.FP16] = max(limits[Variant.FP16], FP16_LIMIT)
        frame, depth = io.BytesIO(), io.BytesIO()
        Image.fromarray(rgb).save(frame, "PNG", compress_level=9)
        np.lib.format.write_array(depth, np.ascontiguousarray(expected), (1, 0), allow_pickle=False)
        files = {"check/frame.png": frame.getvalue(), "check/expected.npy": depth.getvalue()}
        description = {
            "frame": _asset("check/frame.png", files["check/frame.png"]),
            "expected": _asset("check/expected.npy", files["check/expected.npy"]),
            "first": first,
            "step": step,
            "pixel_sum": int(rgb.sum(dtype=np.int64)),
        }
        return cls(description, limits, files)


# ---------------------------------------------------------------------------------------- kit.json


def _asset(name: str, content: bytes) -> dict[str, Any]:
    """Return the entry of a file in kit.json."""
    return {"file": name, "bytes": len(content), "sha384": ort_web.sha384(content)}


_OF_MODEL = (
    *("network", "network_source", "network_licence", "kind", "unit", "refined"),
    *("clip_frames", "frame_hw", "working_hw"),
)
"""Fields of the network's description that kit.json repeats."""


def _kit_json(finished: FinishedRun, export: _Export, check: _Check, runtime_base: str) -> dict[str, Any]:
    model, held_out = export.model, export.report.held_out
    depth = finished.folder / "depth"
    alignment = finished.alignment
    # As in the run's own pictures: disparity that is not aligned has depths of its own.
    is_depth = alignment.shift is None
    before = read_maps(depth / f"{Column.BEFORE}.npz") if is_depth else read_aligned(depth, alignment.network_scale)
    maps = [before, read_maps(depth / f"{Column.AFTER}.npz")]
    scale = model.scale
    colours = colormap.color_range(frame for values in maps for frame in values)
    farthest = PNG_HEADROOM * scale * float(maps[-1].max())
    return {
        "schema": SCHEMA,
        "sfmttr": export.report.sfmttr,
        "place": finished.folder.resolve().name,
        **{
            name: getattr(model, name)
            for name in ("network", "network_source", "network_licence", "kind", "unit", "refined")
        },
        **{name: getattr(model, name) for name in ("clip_frames", "frame_hw", "working_hw")},
        "caution": "" if alignment.trusted else CAUTION,
        "held_out": held_out
        and {
            "protocol": held_out.protocol,
            "points": held_out.points,
            "abs_rel_before": model.held_out_abs_rel_before,
            "abs_rel_after": model.held_out_abs_rel_after,
        },
        "colour_range": {"near": scale * colours.near, "far": scale * colours.far},
        "png_steps_per_unit": choose_png_scale(DepthKind(model.kind), farthest).steps_per_unit,
        "default_variant": str(Variant.FP32),
        "variants": {
            str(name): {
                "model": _asset(_in_kit(entry.file), export.content(name)),
                "held_out_abs_rel": entry.held_out and entry.held_out.abs_rel,
                "largest_difference": check.limits[name],
                "cpu_nodes_on_webgpu": list(_antialiased(export.content(name))),
            }
            for name, entry in export.variants.items()
        },
        "check": check.description,
        "web_runtime": {
            "package": ort_web.PACKAGE,
            "version": ort_web.VERSION,
            "base": runtime_base,
            **{
                provider: {
                    part: {"file": file["name"], "bytes": file["bytes"], "sha384": file["sha384"]}
                    for part, file in asdict(build).items()
                }
                for provider, build in ort_web.BUILDS.items()
            },
        },
    }


def _antialiased(model: bytes) -> Iterator[str]:
    """Names of nodes that onnxruntime-web's WebGPU takes on and then fails at: Resize with antialiasing."""
    for node in onnx.load_from_string(model).graph.node:
        if node.op_type == "Resize" and any(each.name == "antialias" and each.i for each in node.attribute):
            yield node.name


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


# -------------------------------------------------------------------------------------------- files


def _static_files(*, offline: bool) -> dict[str, bytes]:
    """The page, its server, infer.py and the runtime that it imports."""
    paths = [path for path in STATIC.rglob("*") if path.suffix in STATIC_SUFFIXES]
    files = {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in paths}
    files["runtime.py"] = Path(__file__).parents[1].joinpath("runtime.py").read_bytes()
    if offline:
        # A page that needs no other server is not allowed to ask one.
        address = f" {ort_web.CDN.split('/npm/')[0]}".encode()
        if files["index.html"].count(address) != 1:
            raise KitError(f"index.html does not name{address.decode()} once, in its content security policy")
        files["index.html"] = files["index.html"].replace(address, b"")
    return files


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """`files` by their names, in the order of the names, with nothing of this machine in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.create_system = 3  # Unix, wherever this runs; else the permissions below mean nothing
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_STORED if PurePath(name).suffix in _STORED else zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
