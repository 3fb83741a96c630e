"""The networks there are, by name; any of the Hugging Face Hub besides. Listing them imports neither torch nor any
adapter."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks.huggingface import model_files
from sfmttr.networks.huggingface.model_id import ModelId, is_model_id
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.weights import (
    WeightFile,
    apply_state,
    fetch,
    find,
    read_safetensors,
    read_safetensors_metadata,
    read_weights,
)
from sfmttr.types import DepthKind, OnProgress, ignore_progress

if TYPE_CHECKING:
    from sfmttr.networks.base import DepthNetwork


@dataclass(frozen=True)
class NetworkEntry:
    """All that is known about a network before its adapter is imported."""

    info: NetworkInfo
    parameters: int
    files: tuple[WeightFile, ...]
    """In the order in which the adapter's `merge_checkpoints` wants them."""
    build: Callable[[NetworkInfo], DepthNetwork]
    """Imports the adapter and constructs the network, randomly initialised."""


@dataclass(frozen=True)
class HubAlias:
    """A name of ours for a model of the Hub."""

    info: NetworkInfo
    parameters: int
    model: str
    """As `ModelId.parse` takes it."""


@dataclass(frozen=True)
class NetworkSummary:
    """One line of the `networks` command."""

    info: NetworkInfo
    parameters: int
    weights_available: bool
    """Every file was found without a download; it was not opened."""
    model: str | None = None
    """Of a model of the Hub, what `ModelId.parse` takes; None: its architecture is this package's own."""


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
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import meter

        return meter.build(info, size, domain)

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
    return NetworkEntry(info, _METER_SIZES[size], (file,), build)


_RT_PAGE = "https://github.com/Ecalpal/RT-MonoDepth"
_RT_FOLDER = "RTMonoDepth/s/m_640_192"
"""Within what the authors' README links to on Google Drive, which has no address to fetch single files from."""


def _rt_file(part: str, sha256: str) -> WeightFile:
    unpacked = (f"{_RT_FOLDER}/{part}.pth", f"weights/{_RT_FOLDER}/{part}.pth")
    return WeightFile(f"m_640_192_{part}.pth", None, sha256, _RT_PAGE, unpacked)


def _rt_monodepth_s() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import rt_monodepth

        return rt_monodepth.build(info)

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
    return NetworkEntry(info, 1_235_027, files, build)


# ------------------------------------------------------------------------- the paper's four networks


def _parts(folder: str, unpacked: str, parts: tuple[str, ...], page: str, **where: str) -> tuple[WeightFile, ...]:
    """One file for each part, in a folder of our name, or of the name that the authors' archive gives it."""
    return tuple(
        WeightFile(f"{folder}/{part}.pth", None, None, page, (f"{unpacked}/{part}.pth",), **where)  # type: ignore[arg-type]
        for part in parts
    )


def _drive(link: str, page: str, what: str) -> str:
    """What a person has to do where authors publish on Google Drive, which has no address to fetch files from."""
    return f"open {link} (from {page}) in a browser, download {what}"


_ADABINS_PAGE = "https://github.com/shariqfarooq123/AdaBins"
_ADABINS_DRIVE = "https://drive.google.com/drive/folders/1nYyaQXOBjNdUJDsmJpcRpu6oE55aQoLA"


def _adabins(name: str, domain: str) -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import adabins

        return adabins.build(info, domain)

    info = NetworkInfo(
        name,
        DepthKind.METRIC,
        "GPL-3.0 (authors' repository)",
        _ADABINS_PAGE,
        f"AdaBins, supervised with measured depth {_SUPERVISED[domain]}; large",
    )
    file_name = f"AdaBins_{domain}.pt"
    how = _drive(_ADABINS_DRIVE, _ADABINS_PAGE, file_name)
    file = WeightFile(file_name, None, None, _ADABINS_PAGE, (f"pretrained/{file_name}",), how=how)
    return NetworkEntry(info, 78_253_232, (file,), build)


_MANYDEPTH_PAGE = "https://github.com/nianticlabs/manydepth"
_MANYDEPTH_ZIP = "https://storage.googleapis.com/niantic-lon-static/research/manydepth/models/KITTI_HR.zip"


def _manydepth() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import manydepth

        return manydepth.build(info)

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
    return NetworkEntry(info, 26_921_952, files, build)


_CADEPTH_PAGE = "https://github.com/kamiLight/CADepth-master"
_CADEPTH_DRIVE = "https://drive.google.com/open?id=100m6JHvxEcsCmHhZkQw8_wW8KXqiPSfp"


def _cadepth() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import cadepth

        return cadepth.build(info)

    info = NetworkInfo(
        "cadepth",
        DepthKind.SCALE_INVARIANT,
        "authors' LICENSE (builds on Monodepth2: non-commercial)",
        _CADEPTH_PAGE,
        "CADepth (M_1024x320), self-supervised on videos from a car (KITTI)",
    )
    how = _drive(_CADEPTH_DRIVE, _CADEPTH_PAGE, "M_1024x320, unpack encoder.pth and depth.pth as cadepth_M_1024x320/")
    files = _parts("cadepth_M_1024x320", "M_1024x320", ("encoder", "depth"), _CADEPTH_PAGE, how=how)
    return NetworkEntry(info, 56_292_484, files, build)


_DIFFNET_PAGE = "https://github.com/brandleyzhou/DIFFNet"
_DIFFNET_DRIVE = "https://drive.google.com/file/d/1SuyBMS3ZLYuZwgyGSpmNrag7ESjRUC52/view"


def _diffnet() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import diffnet

        return diffnet.build(info)

    info = NetworkInfo(
        "diffnet",
        DepthKind.SCALE_INVARIANT,
        "none stated (builds on Monodepth2: non-commercial)",
        _DIFFNET_PAGE,
        "DIFFNet (1024x320), self-supervised on videos from a car (KITTI)",
    )
    how = _drive(_DIFFNET_DRIVE, _DIFFNET_PAGE, "1024x320, unpack encoder.pth and depth.pth as diffnet_1024x320/")
    files = _parts("diffnet_1024x320", "diffnet/diffnet_1024x320", ("encoder", "depth"), _DIFFNET_PAGE, how=how)
    return NetworkEntry(info, 10_869_100, files, build)


# ------------------------------------------------------------------------------------------ all of them

_BUNDLED_SHA256 = "0dddd1d461f8f2b2e970a72e5aa338b38af038299e3ff87ad572c6870ed234d8"


def _bundled() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks.models import bundled

        return bundled.build(info)

    info = NetworkInfo(
        "bundled",
        DepthKind.SCALE_INVARIANT,
        "Apache-2.0",
        "examples/bundled.md of this repository",
        "comes with this project; trained on generated streets and rooms, never on a real picture",
    )
    file = WeightFile("bundled.safetensors", None, _BUNDLED_SHA256, info.source, shipped=True)
    return NetworkEntry(info, 1_861_361, (file,), build)


_ENTRIES = {
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


def _depth_anything(size: str, licence: str, parameters: int, domain: str = "") -> HubAlias:
    """Depth Anything V2 as published for transformers."""
    name = "-".join(filter(None, ("depth-anything-v2", size.lower(), domain.lower())))
    repository = f"depth-anything/Depth-Anything-V2-{f'Metric-{domain}-' if domain else ''}{size}-hf"
    places = {
        "Indoor": "metres, indoors to 20 m (Hypersim)",
        "Outdoor": "metres, on streets to 80 m (Virtual KITTI)",
    }
    info = NetworkInfo(
        name,
        DepthKind.METRIC if domain else DepthKind.AFFINE_DISPARITY,
        licence,
        f"https://huggingface.co/{repository}",
        f"Depth Anything V2 {size}: {places.get(domain, _ANYWHERE)}",
    )
    pinned = f"@{_SMALL_REVISION}" if name == "depth-anything-v2-small" else ""
    return HubAlias(info, parameters, f"hf:{repository}{pinned}")


_HUB_ALIASES = {
    shortcut.info.name: shortcut
    for domain in ("", "Indoor", "Outdoor")
    for shortcut in (
        _depth_anything("Small", _APACHE, 24_785_089, domain),
        _depth_anything("Base", _NON_COMMERCIAL, 97_470_785, domain),
        _depth_anything("Large", _NON_COMMERCIAL, 335_315_649, domain),
    )
}


def names() -> tuple[str, ...]:
    """Every name of ours that `load` takes."""
    return (*_ENTRIES, *_HUB_ALIASES)


def built_in() -> tuple[str, ...]:
    """Those of them whose architecture is this package's own."""
    return tuple(_ENTRIES)


def entry(name: str) -> NetworkEntry:
    """What is registered under `name`, of those that are `built_in`; `NetworkError` with the names that there are."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise NetworkError(
        f"no network is called {name!r}: {hint}There are: {', '.join(names())}; or hf:ORG/NAME for any depth model of "
        "the Hugging Face Hub, or a folder that holds one"
    )


def info(name: str) -> NetworkInfo:
    """Of one of `names()`. Raises `NetworkError`."""
    return _HUB_ALIASES[name].info if name in _HUB_ALIASES else entry(name).info


def describe_all(weights_dir: Path | None = None) -> tuple[NetworkSummary, ...]:
    """Every network with its size and whether its weights are here, for listings; those of the Hub come last."""
    return tuple(describe(name, weights_dir) for name in names())


def describe(name: str, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> NetworkSummary:
    """The same of one network that `load` takes.

    Of one that is not among `names()` the small files are read, from the Hub if it has to be, so that whatever makes it
    unusable is found before its weights are fetched. Raises `NetworkError` and `WeightsError`.
    """
    if shortcut := _HUB_ALIASES.get(name):
        here = model_files.is_cached(ModelId.parse(shortcut.model).location)
        return NetworkSummary(shortcut.info, shortcut.parameters, here, shortcut.model)
    if name not in _ENTRIES and is_model_id(name):
        from sfmttr.networks.huggingface import loader

        asked = ModelId.parse(name)
        info, parameters = loader.describe(asked, on_progress)
        return NetworkSummary(info, parameters, model_files.is_cached(asked.location), name)
    known = entry(name)
    return NetworkSummary(known.info, known.parameters, all(find(file, weights_dir) for file in known.files))


def build(name: str) -> DepthNetwork:
    """The architecture alone, of a network that is `built_in`, with random weights, in evaluation mode on the CPU."""
    known = entry(name)
    return known.build(known.info).eval()


def load(name: str, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> DepthNetwork:
    """The network with the authors' weights (found, else downloaded), in evaluation mode on the CPU.

    `name`: one of `names()`, or what `ModelId.parse` takes. Progress is reported as stage "weights", in bytes, while
    something is downloaded. Raises `NetworkError` and `WeightsError`.
    """
    if name in _HUB_ALIASES or (name not in _ENTRIES and is_model_id(name)):
        from sfmttr.networks.huggingface import loader

        shortcut = _HUB_ALIASES.get(name)
        if shortcut is None:
            return loader.load(ModelId.parse(name), on_progress)
        return loader.load(ModelId.parse(shortcut.model), on_progress, shortcut.info)
    known = entry(name)
    paths = [fetch(file, weights_dir, on_progress) for file in known.files]
    network = build(name)
    state = network.merge_checkpoints([read_weights(path) for path in paths])
    apply_state(network, state, " and ".join(path.name for path in paths))
    return network


# ------------------------------------------------------------------------------------ refined networks


def weights_metadata(network: DepthNetwork) -> dict[str, str]:
    """What goes into a file of `network`'s weights: its terms, and what `load_refined` builds it from."""
    told = {field.name: str(getattr(network.info, field.name)) for field in fields(NetworkInfo)}
    return {("network" if key == "name" else key): value for key, value in told.items()} | dict(network.build_config())


def refined_info(path: Path) -> NetworkInfo:
    """What a file of refined weights says of its network. Raises `WeightsError` when it says nothing."""
    told = read_safetensors_metadata(path)
    try:
        name, kind = told["network"], DepthKind(told["kind"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path.name} does not say which network its weights are of: run refine again") from error
    rest = (told.get(key, "") for key in ("licence", "source", "description", "copyright"))
    return NetworkInfo(name, kind, *rest)


def load_refined(path: str | Path) -> DepthNetwork:
    """A refined network, from what a run wrote; neither the authors' files nor a network connection are needed.

    Raises `NetworkError` and `WeightsError`.
    """
    path = Path(path)
    told, known = read_safetensors_metadata(path), refined_info(path)
    state = read_safetensors(path)
    if "hf" in told:
        from sfmttr.networks.huggingface import loader

        network: DepthNetwork = loader.rebuild(told["hf"], known)
    else:
        network = build(known.name)
    if {"shift", "floor"} <= state.keys():  # its disparity was aligned
        from sfmttr.networks import disparity_to_depth

        network = disparity_to_depth.empty_disparity_network(network)
    apply_state(network, state, path.name)
    return network.eval()
