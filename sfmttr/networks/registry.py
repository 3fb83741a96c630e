"""The networks there are, by name. Listing them imports neither torch nor any adapter."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfmttr.errors import NetworkError
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.weights import WeightFile, apply_state, fetch, find, read_safetensors, read_weights
from sfmttr.types import DepthKind, OnProgress, ignore_progress

if TYPE_CHECKING:
    from sfmttr.networks.base import DepthNetwork


@dataclass(frozen=True)
class NetworkEntry:
    """All that is known about a network before its adapter is imported."""

    info: NetworkInfo
    parameters: int
    files: tuple[WeightFile, ...]
    """In the order in which the adapter's `state_from_files` wants them."""
    build: Callable[[NetworkInfo], DepthNetwork]
    """Imports the adapter and constructs the network, randomly initialised."""


@dataclass(frozen=True)
class NetworkSummary:
    """One line of the `networks` command."""

    info: NetworkInfo
    parameters: int
    weights_here: bool
    """Every file was found without a download; it was not opened."""


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
_METER_TRAINED = {"kitti": "outdoors from a car (KITTI)", "nyu": "indoors (NYU Depth v2)"}


def _meter(size: str, domain: str) -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks import meter

        return meter.build(info, size, domain)

    file_name = f"build_model_best_{domain}_{size}"
    url = f"https://raw.githubusercontent.com/lorenzopapa5/METER/{_METER_COMMIT}/models/{file_name}"
    info = NetworkInfo(
        f"meter-{size}-{domain}",
        DepthKind.METRIC,
        "MIT",
        _METER_PAGE,
        f"METER-{size.upper()}, supervised with measured depth {_METER_TRAINED[domain]}",
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
        from sfmttr.networks import rt_monodepth

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


_BUNDLED_SHA256 = "0dddd1d461f8f2b2e970a72e5aa338b38af038299e3ff87ad572c6870ed234d8"


def _bundled() -> NetworkEntry:
    def build(info: NetworkInfo) -> DepthNetwork:
        from sfmttr.networks import bundled

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
        *(_meter(size, domain) for size in _METER_SIZES for domain in _METER_TRAINED),
        _rt_monodepth_s(),
    )
}


def names() -> tuple[str, ...]:
    """Every name that `load` takes."""
    return tuple(_ENTRIES)


def entry(name: str) -> NetworkEntry:
    """What is registered under `name`; `NetworkError` with the names that there are."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), _ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise NetworkError(f"no network is called {name!r}: {hint}There are: {', '.join(_ENTRIES)}")


def info(name: str) -> NetworkInfo:
    return entry(name).info


def describe_all(weights_dir: Path | None = None) -> tuple[NetworkSummary, ...]:
    """Every network with its size and whether its weights are here, for listings."""
    return tuple(
        NetworkSummary(known.info, known.parameters, all(find(file, weights_dir) for file in known.files))
        for known in _ENTRIES.values()
    )


def build(name: str) -> DepthNetwork:
    """The architecture alone, with random weights, in evaluation mode on the CPU."""
    known = entry(name)
    return known.build(known.info).eval()


def load(name: str, weights_dir: Path | None = None, on_progress: OnProgress = ignore_progress) -> DepthNetwork:
    """The network with the authors' weights (found, else downloaded), in evaluation mode on the CPU.

    Progress is reported as stage "weights", in bytes, while something is downloaded.
    """
    known = entry(name)
    paths = [fetch(file, weights_dir, on_progress) for file in known.files]
    network = build(name)
    state = network.state_from_files([read_weights(path) for path in paths])
    apply_state(network, state, " and ".join(path.name for path in paths))
    return network


def load_refined(name: str, path: Path) -> DepthNetwork:
    """The network with weights saved from its `state_dict()` as safetensors; the authors' files are not needed."""
    network = build(name)
    apply_state(network, read_safetensors(path), path.name)
    return network
