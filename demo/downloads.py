"""Files of a run that can be downloaded: as they are in its folder, or folders as zips that are made on request."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfmttr.io.atomic import atomic_file

from .sessions import Session
from .views.downloads import DownloadItem

# Compressed already.
_STORED = frozenset({".png", ".npz", ".onnx"})


@dataclass(frozen=True)
class _Source:
    name: str
    """File name of the download."""
    path: str
    """Within the run folder; a folder is zipped."""
    title: str
    description: str


_SOURCES = (
    _Source("kit.zip", "kit.zip", "ONNX kit", "the tuned network as fp32, fp16 and int8, with a script and a web page"),
    _Source("refined.safetensors", "refined.safetensors", "Weights", "the tuned network for PyTorch"),
    _Source("comparison.mp4", "comparison.mp4", "Video", "frame, before and after, side by side"),
    _Source("compare.png", "pictures/compare.png", "Picture", "one frame, before and after"),
    _Source("depth-refined.zip", "depth/refined", "Depth maps", "16-bit PNG of every frame, scale and unit inside"),
    _Source("depth-fused.zip", "depth/fused", "Fused depth maps", "the same, corrected with each frame's 3D points"),
    _Source("depth-after.npz", "depth/after.npz", "Depth, float32", "the whole clip as one array"),
    _Source("cloud_after.ply", "cloud_after.ply", "Point cloud", "PLY, after"),
    _Source("cloud_before.ply", "cloud_before.ply", "Point cloud, before", "PLY, scaled to fit"),
    _Source("cloud_after.glb", "cloud_after.glb", "3D model", "GLB with cameras, after"),
    _Source("cloud_before.glb", "cloud_before.glb", "3D model, before", "GLB with cameras"),
    _Source("colmap.zip", "sfm", "COLMAP model", "cameras, poses and points"),
    _Source("report.json", "report.json", "Report", "every figure of this page"),
    _Source("export_report.json", "export/export_report.json", "Export report", "accuracy and speed of each ONNX file"),
)


def available_downloads(session: Session) -> list[DownloadItem]:
    """Return the downloads that exist for this run."""
    return [
        DownloadItem(source.name, source.title, source.description, _size(path))
        for source in _SOURCES
        if (path := session.run / source.path).exists()
    ]


def download_path(session: Session, name: str) -> Path:
    """Return the file to send for a download. Raises KeyError when there is none."""
    source = next((source for source in _SOURCES if source.name == name), None)
    path = session.run / source.path if source else None
    if path is None or not path.exists():
        raise KeyError(name)
    return path if path.is_file() else _zipped(path, session.folder / "zips" / name)


def _zipped(folder: Path, target: Path) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    if target.is_file() and target.stat().st_mtime >= newest:
        return target
    with atomic_file(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            compression = zipfile.ZIP_STORED if path.suffix in _STORED else zipfile.ZIP_DEFLATED
            archive.write(path, path.relative_to(folder).as_posix(), compress_type=compression)
    return target


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    return iter([path]) if path.is_file() else (file for file in path.rglob("*") if file.is_file())
