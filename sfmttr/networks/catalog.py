"""All networks with a name of their own: what is known before an adapter is imported, and the files of their weights.

`ENTRIES` are architectures in `models/`; `HUB_ALIASES` are short names for models of the Hugging Face Hub. To add a
network, see `sfmttr.networks.models`. Importing this imports neither torch nor any adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.weights import WeightFile
from sfmttr.types import DepthKind

if TYPE_CHECKING:
    from sfmttr.networks.base import DepthNetwork


@dataclass(frozen=True)
class NetworkEntry:
    """A network whose architecture is in `models/`."""

    info: NetworkInfo
    parameters: int
    """Number of parameters."""
    files: tuple[WeightFile, ...]
    """In the order in which the adapter's `merge_checkpoints` takes them."""
    build: Callable[[NetworkInfo], DepthNetwork]
    """Imports the adapter and returns the network, randomly initialized."""


@dataclass(frozen=True)
class HubAlias:
    """A short name for a model of the Hub."""

    info: NetworkInfo
    parameters: int
    """Number of parameters."""
    model: str
    """As `ModelId.parse` takes it."""


def _builder(module: str, *options: str) -> Callable[[NetworkInfo], DepthNetwork]:
    """Return `build` of an adapter in `models/`, which is imported when it is called."""

    def build(info: NetworkInfo) -> DepthNetwork:
        network: DepthNetwork = import_module(f"sfmttr.networks.models.{module}").build(info, *options)
        return network

    return build


_METER_PAGE = "https://github.com/lorenzopapa5/METER"
_METER_COMMIT = "0f9a49ada3af88393ba5dce3839ab471329e37bd"
_METER_SIZES = {"xxs": 713_464, "xs": 1_449_760, "s": 3_295_168}
_METER_SHA256 = {
    # The two xxs files were hashed here. nyu_s is as another project that pins this commit recorded it. The others
    # are unverified.
    ("xxs", "kitti"): "e55544ae36f9ad74237017fd5f8e761db4b258dbed44623c71ce305d44488bea",
    ("xxs", "nyu"): "327cddf3bfc85f4a13b8d18d2f13d8e40cdeb022ea397995c409ef1569bcbb53",
    ("s", "nyu"): "2bd1a7410d311ba5d9346b1d9aa5721d54c446791d9e0b619d830fe1072d4708",
}
_SUPERVISED = {"kitti": "outdoors from a car (KITTI)", "nyu": "indoors (NYU Depth v2)"}


def _meter(size: str, domain: str) -> NetworkEntry:
    file_name = f"build_model_best_{domain}_{size}"
    url = f"https://raw.githubusercontent.com/lorenzopapa5/METER/{_METER_COMMIT}/models/{file_name}"
    info = NetworkInfo(
        f"meter-{size}-{domain}",
        DepthKind.METRIC,
        "MIT",
        _METER_PAGE,
        f"METER-{size.upper()}, supervised with measured depth {_SUPERVISED[domain]}",
        copyright="Copyright (c) 2022 lorenzopapa5",
    )
    file = WeightFile(file_name, url, _METER_SHA256.get((size, domain)), _METER_PAGE)
    return NetworkEntry(info, _METER_SIZES[size], (file,), _builder("meter", size, domain))


_RT_PAGE = "https://github.com/Ecalpal/RT-MonoDepth"
_RT_FOLDER = "RTMonoDepth/s/m_640_192"
"""Inside the Google Drive folder in the authors' README, from which single files cannot be fetched."""


def _rt_file(part: str, sha256: str) -> WeightFile:
    unpacked = (f"{_RT_FOLDER}/{part}.pth", f"weights/{_RT_FOLDER}/{part}.pth")
    return WeightFile(f"m_640_192_{part}.pth", None, sha256, _RT_PAGE, unpacked)


def _rt_monodepth_s() -> NetworkEntry:
    info = NetworkInfo(
        "rt-monodepth-s",
        DepthKind.SCALE_INVARIANT,
        "non-commercial use only (authors' README)",
        _RT_PAGE,
        "RT-MonoDepth-S, self-supervised on videos from a car (KITTI)",
    )
    files = (
        _rt_file("encoder", "98a980c4de0a95a42629b5b748a005d4a2edfbdb848b1deed45379b695beb015"),
        _rt_file("depth", "6b9fcd7cea15d593ef4457240596733ecf5bfb905161bce87ec6dc78275bfad1"),
    )
    return NetworkEntry(info, 1_235_027, files, _builder("rt_monodepth"))


# ------------------------------------------------------------------------- the paper's four networks


def _parts(folder: str, unpacked: str, parts: tuple[str, ...], page: str, **where: str) -> tuple[WeightFile, ...]:
    """Return one file per part, looked for in `folder`, or in the folder `unpacked` of the authors' archive."""
    return tuple(
        WeightFile(f"{folder}/{part}.pth", None, None, page, (f"{unpacked}/{part}.pth",), **where)  # type: ignore[arg-type]
        for part in parts
    )


def _drive_instruction(link: str, page: str, what: str) -> str:
    """Return the instruction for files on Google Drive, from which files cannot be fetched."""
    return f"open {link} (from {page}) in a browser, download {what}"


_ADABINS_PAGE = "https://github.com/shariqfarooq123/AdaBins"
_ADABINS_DRIVE = "https://drive.google.com/drive/folders/1nYyaQXOBjNdUJDsmJpcRpu6oE55aQoLA"


def _adabins(name: str, domain: str) -> NetworkEntry:
    info = NetworkInfo(
        name,
        DepthKind.METRIC,
        "GPL-3.0 (authors' repository)",
        _ADABINS_PAGE,
        f"AdaBins, supervised with measured depth {_SUPERVISED[domain]}; large",
    )
    file_name = f"AdaBins_{domain}.pt"
    how = _drive_instruction(_ADABINS_DRIVE, _ADABINS_PAGE, file_name)
    file = WeightFile(file_name, None, None, _ADABINS_PAGE, (f"pretrained/{file_name}",), how=how)
    return NetworkEntry(info, 78_253_232, (file,), _builder("adabins", domain))


_MANYDEPTH_PAGE = "https://github.com/nianticlabs/manydepth"
_MANYDEPTH_ZIP = "https://storage.googleapis.com/niantic-lon-static/research/manydepth/models/KITTI_HR.zip"


def _manydepth() -> NetworkEntry:
    info = NetworkInfo(
        "manydepth",
        DepthKind.SCALE_INVARIANT,
        "ManyDepth License: non-commercial use only",
        _MANYDEPTH_PAGE,
        "ManyDepth (KITTI_HR), self-supervised on videos from a car; sees the frame before, too",
        copyright="Copyright © Niantic, Inc. 2021. Patent Pending. All rights reserved.",
    )
    parts = ("encoder", "depth", "pose_encoder", "pose")
    files = _parts("manydepth_KITTI_HR", "KITTI_HR", parts, _MANYDEPTH_PAGE, archive=_MANYDEPTH_ZIP)
    return NetworkEntry(info, 26_921_952, files, _builder("manydepth"))


_CADEPTH_PAGE = "https://github.com/kamiLight/CADepth-master"
_CADEPTH_DRIVE = "https://drive.google.com/open?id=100m6JHvxEcsCmHhZkQw8_wW8KXqiPSfp"


def _cadepth() -> NetworkEntry:
    info = NetworkInfo(
        "cadepth",
        DepthKind.SCALE_INVARIANT,
        "authors' LICENSE (builds on Monodepth2: non-commercial)",
        _CADEPTH_PAGE,
        "CADepth (M_1024x320), self-supervised on videos from a car (KITTI)",
    )
    how = _drive_instruction(
        _CADEPTH_DRIVE, _CADEPTH_PAGE, "M_1024x320, unpack encoder.pth and depth.pth as cadepth_M_1024x320/"
    )
    files = _parts("cadepth_M_1024x320", "M_1024x320", ("encoder", "depth"), _CADEPTH_PAGE, how=how)
    return NetworkEntry(info, 56_292_484, files, _builder("cadepth"))


_DIFFNET_PAGE = "https://github.com/brandleyzhou/DIFFNet"
_DIFFNET_DRIVE = "https://drive.google.com/file/d/1SuyBMS3ZLYuZwgyGSpmNrag7ESjRUC52/view"


def _diffnet() -> NetworkEntry:
    info = NetworkInfo(
        "diffnet",
        DepthKind.SCALE_INVARIANT,
        "none stated (builds on Monodepth2: non-commercial)",
        _DIFFNET_PAGE,
        "DIFFNet (1024x320), self-supervised on videos from a car (KITTI)",
    )
    how = _drive_instruction(
        _DIFFNET_DRIVE, _DIFFNET_PAGE, "1024x320, unpack encoder.pth and depth.pth as diffnet_1024x320/"
    )
    files = _parts("diffnet_1024x320", "diffnet/diffnet_1024x320", ("encoder", "depth"), _DIFFNET_PAGE, how=how)
    return NetworkEntry(info, 10_869_100, files, _builder("diffnet"))


# ---------------------------------------------------------------------- the bundled one, and the tables

_BUNDLED_SHA256 = "0dddd1d461f8f2b2e970a72e5aa338b38af038299e3ff87ad572c6870ed234d8"


def _bundled() -> NetworkEntry:
    info = NetworkInfo(
        "bundled",
        DepthKind.SCALE_INVARIANT,
        "Apache-2.0",
        "examples/bundled.md of this repository",
        "comes with this project; trained on generated streets and rooms, never on a real picture",
    )
    file = WeightFile("bundled.safetensors", None, _BUNDLED_SHA256, info.source, shipped=True)
    return NetworkEntry(info, 1_861_361, (file,), _builder("bundled"))


ENTRIES: dict[str, NetworkEntry] = {
    entry.info.name: entry
    for entry in (
        _bundled(),
        *(_meter(size, domain) for size in _METER_SIZES for domain in _SUPERVISED),
        _rt_monodepth_s(),
        _adabins("adabins", "kitti"),
        _adabins("adabins-nyu", "nyu"),
        _manydepth(),
        _cadepth(),
        _diffnet(),
    )
}


_APACHE, _NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0: non-commercial use only"
_ANYWHERE = "any scene; inverse depth up to scale and shift"
_SMALL_REVISION = "5426e4f0f36572d16453bbda7a8389317b1bef99"


def _depth_anything(size: str, license_name: str, parameters: int, domain: str = "") -> HubAlias:
    """Return the alias of a Depth Anything V2 as published for transformers."""
    name = "-".join(filter(None, ("depth-anything-v2", size.lower(), domain.lower())))
    repository = f"depth-anything/Depth-Anything-V2-{f'Metric-{domain}-' if domain else ''}{size}-hf"
    places = {
        "Indoor": "metres, indoors to 20 m (Hypersim)",
        "Outdoor": "metres, on streets to 80 m (Virtual KITTI)",
    }
    info = NetworkInfo(
        name,
        DepthKind.METRIC if domain else DepthKind.AFFINE_DISPARITY,
        license_name,
        f"https://huggingface.co/{repository}",
        f"Depth Anything V2 {size}: {places.get(domain, _ANYWHERE)}",
    )
    pinned = f"@{_SMALL_REVISION}" if name == "depth-anything-v2-small" else ""
    return HubAlias(info, parameters, f"hf:{repository}{pinned}")


HUB_ALIASES: dict[str, HubAlias] = {
    alias.info.name: alias
    for domain in ("", "Indoor", "Outdoor")
    for alias in (
        _depth_anything("Small", _APACHE, 24_785_089, domain),
        _depth_anything("Base", _NON_COMMERCIAL, 97_470_785, domain),
        _depth_anything("Large", _NON_COMMERCIAL, 335_315_649, domain),
    )
}
