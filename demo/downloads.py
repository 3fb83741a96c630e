"""What can be downloaded of a run: files as they lie in its folder, and folders as zips, made when asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfmttr.io.atomic import atomic_file

from .sessions import Session
from .views.downloads import DownloadItem

_STORED = frozenset({".png", ".npz", ".onnx"})


@dataclass(frozen=True)
class _Item:
    name: str
    """Of the download."""
    path: str
    """Within the run folder; a folder is zipped."""
    title: str
    words: str


_ITEMS = (
    _Item("kit.zip", "kit.zip", "ONNX kit", "the tuned network in three sizes, with a script and a web page"),
    _Item("refined.safetensors", "refined.safetensors", "Weights", "the tuned network for PyTorch"),
    _Item("comparison.mp4", "comparison.mp4", "Video", "frame, before and after, side by side"),
    _Item("compare.png", "pictures/compare.png", "Picture", "one frame, before and after"),
    _Item("depth-refined.zip", "depth/refined", "Depth maps", "16-bit PNG of every frame, scale and unit inside"),
    _Item("depth-fused.zip", "depth/fused", "Fused depth maps", "the same, corrected by each frame's points"),
    _Item("depth-after.npz", "depth/after.npz", "Depth, float32", "the whole clip as one array"),
    _Item("cloud_after.ply", "cloud_after.ply", "Point cloud", "PLY, after"),
    _Item("cloud_before.ply", "cloud_before.ply", "Point cloud, before", "PLY, scaled to fit"),
    _Item("cloud_after.glb", "cloud_after.glb", "3D surfaces", "GLB with cameras, after"),
    _Item("cloud_before.glb", "cloud_before.glb", "3D surfaces, before", "GLB with cameras"),
    _Item("colmap.zip", "sfm", "COLMAP model", "cameras, poses and points"),
    _Item("report.json", "report.json", "Report", "every figure of this page"),
    _Item("export_report.json", "export/export_report.json", "Export report", "how faithful each ONNX file is"),
)


def available_downloads(session: Session) -> list[DownloadItem]:
    """What there is of this run."""
    return [
        DownloadItem(item.name, item.title, item.words, _size(path))
        for item in _ITEMS
        if (path := session.run / item.path).exists()
    ]


def download_path(session: Session, name: str) -> Path:
    """The file to send for a download. Raises KeyError for what there is not."""
    item = next((item for item in _ITEMS if item.name == name), None)
    path = session.run / item.path if item else None
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
            kind = zipfile.ZIP_STORED if path.suffix in _STORED else zipfile.ZIP_DEFLATED
            archive.write(path, path.relative_to(folder).as_posix(), compress_type=kind)
    return target


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    return iter([path]) if path.is_file() else (file for file in path.rglob("*") if file.is_file())
