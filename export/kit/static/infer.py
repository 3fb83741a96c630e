"""Depth of pictures with the network in this folder. Needs three packages: pip install onnxruntime numpy pillow

    python infer.py photo.jpg                       # one picture
    python infer.py frames/ --out results           # a folder of pictures, or of a video's frames
    python infer.py clip.mp4                        # a video; it takes one more package: pip install opencv-python
    python infer.py --webcam 0 --show               # a camera; so does this
    python infer.py --check                         # compare with a stored result

For each picture it writes, into folders below --out:
    depth/NAME.png      16 bit; its text says scale and unit (depth = value / scale), 0 is no depth
    npz/NAME.npz        `depth` (H, W) float32, `kind`, `unit`, `name`
    coloured/NAME.png   near is warm, far is cold, in one range for all pictures

Exit codes: 0 done; 1 some pictures failed, or the self-check did; 2 user error, message on stderr in one line;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import secrets
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from runtime import ModelError, OnnxDepth

HERE = Path(__file__).resolve().parent
PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"))
VIDEOS = frozenset((".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"))
PNG_MAX = 65535
FORMATS = ("png", "npz", "colour")
DAMAGED = (
    *(UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, TypeError),
    *(KeyError, IndexError, EOFError, struct.error),
)
"""What Pillow raises over pictures that are none, or were cut."""
MOST_WAITING = 8
"""Results that may wait to be written, so that slow disks do not fill the memory."""


class InferError(Exception):
    """Something that the user can put right. The message says how."""


# ------------------------------------------------------------------------------------------- kit


@dataclass(frozen=True)
class Kit:
    """What this folder holds: kit.json."""

    folder: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Kit:
        try:
            content = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
            known = content["schema"] == 1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InferError(f"kit.json is missing or damaged ({error}); unzip the kit again") from error
        if not known:
            raise InferError("kit.json and infer.py are from different kits; unzip the kit again")
        return cls(folder, content)

    @property
    def variants(self) -> list[str]:
        return list(self.content["variants"])

    @property
    def colour_range(self) -> tuple[float, float]:
        return self.content["colour_range"]["near"], self.content["colour_range"]["far"]

    def load(self, variant: str, providers: Sequence[str], threads: int | None) -> OnnxDepth:
        return OnnxDepth(self.folder / self.content["variants"][variant]["model"]["file"], providers, threads=threads)


def self_check(kit: Kit, variant: str, network: OnnxDepth) -> bool:
    """Print how far depth of the stored frame is from what it should be; whether that is within the limit."""
    check = kit.content["check"]
    expected = np.load(kit.folder / check["expected"]["file"], allow_pickle=False)
    rows = slice(check["first"], None, check["step"])
    depth = network.predict(read_picture(kit.folder / check["frame"]["file"]))[rows, rows]
    largest = float(np.max(np.abs(depth - expected) / expected))
    limit = kit.content["variants"][variant]["largest_difference"]
    passed = largest <= limit
    verdict = "passed" if passed else "FAILED: do not rely on depth from this installation"
    print(f"self-check of {variant} on {network.provider}: {verdict}")
    print(f"largest relative difference {largest:.2e}, limit {limit:.2e}, at {depth.size} places of the stored frame")
    return passed


# ---------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Source:
    """A picture to be done."""

    name: str
    """Of its results, without suffix."""
    read: Callable[[], np.ndarray]
    """Gives (H, W, 3) uint8 RGB, or raises InferError."""
    follows: bool = False
    """The source before it is the frame before it."""


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF says."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise InferError(f"{path} holds {image.mode} values and no colours: is it a depth map?")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except DAMAGED as error:
        raise InferError(f"{path} cannot be read as a picture ({error})") from error


def by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def pictures_in(path: Path) -> list[Path]:
    """`path` itself, or the pictures in the folder `path` in the order of their numbers."""
    if not path.exists():
        raise InferError(f"there is no {path}")
    if path.is_file():
        return [path]
    found = sorted((each for each in path.iterdir() if each.suffix.lower() in PICTURES), key=by_number)
    if not found:
        raise InferError(f"{path} holds no pictures ({', '.join(sorted(PICTURES))})")
    return found


def sources_of(inputs: Sequence[Path], sequence: bool = False) -> Iterator[Source]:
    """Pictures of all `inputs`; the frames of videos are numbered. `sequence`: pictures follow each other, too."""
    paths = [picture for path in inputs for picture in pictures_in(path)]
    named: dict[str, Path] = {}
    for path in paths:
        name = path.stem.casefold()  # many file systems take a.png and A.png for one file
        if name in named:
            raise InferError(f"{named[name]} and {path} would both become {path.stem}.png: do one of them apart")
        named[name] = path
    for path in (path for path in paths if path.suffix.lower() in VIDEOS):
        frame = re.compile(rf"{re.escape(path.stem.casefold())}-\d{{6,}}")
        for name, other in named.items():
            if frame.fullmatch(name):
                raise InferError(f"a frame of {path} and {other} would both become {other.stem}.png: do one apart")
    for path in paths:
        if path.suffix.lower() in VIDEOS:
            yield from frames_of(str(path), f"{path.stem}-")
        else:
            yield Source(path.stem, partial(read_picture, path), sequence)


def import_opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise InferError(
            "videos and cameras need one more package: pip install opencv-python (or make pictures of a video's "
            "frames first: ffmpeg -i clip.mp4 frames/%06d.png)"
        ) from error
    return cv2


def frames_of(device: int | str, prefix: str) -> Iterator[Source]:
    """Frames of a camera or video, until it ends."""
    cv2 = import_opencv()
    capture = cv2.VideoCapture(device)
    try:
        if not capture.isOpened():
            what = f"camera {device}" if isinstance(device, int) else str(device)
            raise InferError(f"{what} cannot be opened")
        number = 0
        while True:
            there, bgr = capture.read()
            if not there:
                break
            rgb = np.ascontiguousarray(bgr[:, :, ::-1])
            yield Source(f"{prefix}{number:06d}", partial(np.asarray, rgb), number > 0)
            number += 1
        if not number:
            raise InferError(f"{device} gave no frame")
    finally:
        capture.release()


# ------------------------------------------------------------------------------------------ colour

SPECTRAL = np.array(
    (
        *((158, 1, 66), (213, 62, 79), (244, 109, 67), (253, 174, 97), (254, 224, 139), (255, 255, 191)),
        *((230, 245, 152), (171, 221, 164), (102, 194, 165), (50, 136, 189), (94, 79, 162)),
    )
)
"""ColorBrewer's, near first."""
NO_DEPTH = (38, 40, 46)


def colour_table() -> np.ndarray:
    """(255, 3) uint8, as many as a run's own pictures have beside the one for no depth."""
    places = np.linspace(0, 1, len(SPECTRAL))
    return np.stack([np.interp(np.linspace(0, 1, 255), places, channel) for channel in SPECTRAL.T], 1).astype(np.uint8)


def colourise(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Depth (H, W) as (H, W, 3) uint8, evenly in log depth."""
    known = np.isfinite(depth) & (depth > 0)
    safe = np.clip(np.where(known, depth, near), near, far)
    index = np.rint(np.log(safe / near) / math.log(far / near) * 254).astype(np.uint8)
    coloured = colour_table()[index]
    coloured[~known] = NO_DEPTH
    return coloured


# ------------------------------------------------------------------------------------------- write


@dataclass(frozen=True)
class Writer:
    """Writes results below `out`; each file is there in full or not at all."""

    out: Path
    formats: tuple[str, ...]
    kind: str
    unit: str
    steps: float
    """Of the 16-bit PNG, a unit."""
    range: tuple[float, float]
    software: str

    def write(self, name: str, depth: np.ndarray) -> None:
        """Depth (H, W) of one picture. Raises InferError when it does not fit a 16-bit PNG, or cannot be written."""
        try:
            if "png" in self.formats:
                # First, because it is the one that may refuse.
                image = Image.fromarray(self._steps(depth))
                self._save(Path("depth", f"{name}.png"), lambda part: self._save_png(part, image))
            if "npz" in self.formats:
                self._save(Path("npz", f"{name}.npz"), lambda part: self._save_npz(part, depth, name))
            if "colour" in self.formats:
                coloured = Image.fromarray(colourise(depth, *self.range))
                self._save(Path("coloured", f"{name}.png"), lambda part: coloured.save(part, "PNG", compress_level=1))
        except OSError as error:
            raise InferError(f"results cannot be written to {self.out} ({error.strerror or error})") from error

    def _steps(self, depth: np.ndarray) -> np.ndarray:
        """(H, W) uint16; what is nearer than half a step is still depth, and 0 means none."""
        known = np.isfinite(depth) & (depth > 0)
        steps = np.rint(np.where(known, depth, 0).astype(np.float64) * self.steps)
        if steps.size and steps.max() > PNG_MAX:
            farthest, most = float(depth[known].max()), PNG_MAX / self.steps
            raise InferError(
                f"depth of {farthest:.6g} {self.unit} is beyond the {most:.6g} that its PNG can hold: "
                f"give --scale {float(f'{PNG_MAX / (2 * farthest):.1g}'):.10g}, or leave png out of --formats"
            )
        steps[known & (steps == 0)] = 1
        return steps.astype(np.uint16)

    def _save_png(self, part: Path, image: Image.Image) -> None:
        info = PngInfo()
        info.add_text("Description", f"depth = value / {self.steps:.10g} {self.unit}; 0 = no depth; camera z")
        info.add_text("Software", self.software)
        info.add_text("sfmttr:depth_scale", f"{self.steps:.17g}")
        info.add_text("sfmttr:depth_unit", self.unit)
        info.add_text("sfmttr:depth_kind", self.kind)
        image.save(part, "PNG", pnginfo=info, compress_level=1)

    def _save_npz(self, part: Path, depth: np.ndarray, name: str) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, depth=depth, kind=self.kind, unit=self.unit, name=name)

    def _save(self, name: Path, save: Callable[[Path], None]) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
        try:
            save(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------- run


@dataclass
class Tally:
    """Counts of the pictures so far."""

    done: int = 0
    failed: int = 0
    network_s: float = 0.0
    started_s: float = field(default_factory=time.perf_counter)

    def fail(self, error: InferError) -> None:
        self.failed += 1
        print(f"\rinfer: {error}", file=sys.stderr)

    def say(self) -> None:
        if sys.stderr.isatty():
            rate = self.done / (time.perf_counter() - self.started_s)
            print(f"\r{self.done} done, {rate:.1f} a second", end="", file=sys.stderr)


def with_previous(network: OnnxDepth, rgb: np.ndarray, before: np.ndarray | None) -> list[np.ndarray]:
    """The neighbours of a picture that the network sees: the frame before it where there is one, else itself."""
    there = before is not None and before.shape == rgb.shape
    return [before if offset < 0 and there else rgb for offset in network.source_offsets]  # type: ignore[misc]


def run(network: OnnxDepth, sources: Iterator[Source], writer: Writer, show: Callable[[np.ndarray], bool]) -> Tally:
    """Depth of every source. `show` gets each depth in colours and says whether to go on."""
    tally = Tally()
    before: np.ndarray | None = None
    waiting: deque[Future[None]] = deque()

    def finish(most: int) -> None:
        while len(waiting) > most:
            try:
                waiting.popleft().result()
                tally.done += 1
            except InferError as error:
                tally.fail(error)
        tally.say()

    with ThreadPoolExecutor(max_workers=2) as pool:  # compressing files takes longer than the network does
        for source in sources:
            try:
                rgb = source.read()
            except InferError as error:
                tally.fail(error)
                before = None
                continue
            start = time.perf_counter()
            depth = network.predict(rgb, *with_previous(network, rgb, before if source.follows else None))
            before = rgb
            tally.network_s += time.perf_counter() - start
            waiting.append(pool.submit(writer.write, source.name, depth))
            finish(MOST_WAITING)
            if not show(depth):
                break
        finish(0)
    return tally


def window(range_: tuple[float, float]) -> Callable[[np.ndarray], bool]:
    """Shows depth in a window until Q or Escape is pressed in it."""
    cv2 = import_opencv()

    def show(depth: np.ndarray) -> bool:
        try:
            cv2.imshow("depth (Q ends)", colourise(depth, *range_)[:, :, ::-1])
            return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
        except cv2.error as error:
            raise InferError("this OpenCV cannot open windows (headless?): leave --show out") from error

    return show


class Parser(argparse.ArgumentParser):
    """Parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"infer: {message} (--help says more)\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="infer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="picture, folder of pictures, or video")
    parser.add_argument("--sequence", action="store_true", help="pictures are frames of one video, in their order")
    parser.add_argument("--webcam", type=int, nargs="?", const=0, metavar="N", help="frames of camera N (default: 0)")
    parser.add_argument(
        "--check", action="store_true", help="only compare depth of the stored frame with the expected one"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--variant", help="fp32, fp16 or int8, if the kit holds it (default: fp32)")
    parser.add_argument("--formats", default=",".join(FORMATS), help="what to write (default: %(default)s)")
    parser.add_argument("--scale", type=float, help="steps per unit of the 16-bit PNGs (default: the kit's)")
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("NEAR", "FAR"),
        help="depths at the ends of the color map (default: the clip's)",
    )
    parser.add_argument("--show", action="store_true", help="show depth in a window (with OpenCV)")
    parser.add_argument("--threads", type=int, help="CPU threads of the network (default: all cores)")
    parser.add_argument(
        "--providers",
        default="CPUExecutionProvider",
        metavar="NAME,NAME",
        help="execution providers of onnxruntime, best first, e.g. CUDAExecutionProvider,CPUExecutionProvider "
        "(default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    options.formats = tuple(filter(None, options.formats.split(",")))
    if unknown := set(options.formats) - set(FORMATS):
        parser.error(f"unknown format {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}")
    if options.scale is not None and not 0 < options.scale < math.inf:
        parser.error(f"argument --scale: {options.scale} is not a positive number")
    if options.range is not None and not 0 < options.range[0] < options.range[1] < math.inf:
        parser.error("argument --range: expected 0 < NEAR < FAR")
    if options.threads is not None and options.threads < 1:
        parser.error(f"argument --threads: {options.threads} is less than 1")
    if bool(options.inputs) + (options.webcam is not None) + options.check != 1:
        parser.error("give either pictures, folders and videos, or --webcam, or --check")
    return options


def counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def infer(options: argparse.Namespace) -> int:
    kit = Kit.read(HERE)
    variant = options.variant or kit.content["default_variant"]
    if variant not in kit.variants:
        raise InferError(f"this kit holds no variant {variant!r}; it holds {', '.join(kit.variants)}")
    network = kit.load(variant, options.providers.split(","), options.threads)
    if options.check:
        return 0 if self_check(kit, variant, network) else 1
    range_ = tuple(options.range) if options.range else kit.colour_range
    steps = options.scale or kit.content["png_steps_per_unit"]
    software = f"sfmttr {kit.content['sfmttr']}"
    writer = Writer(options.out, options.formats, network.kind, network.unit, steps, range_, software)
    show = window(range_) if options.show else lambda depth: True
    sources = (
        frames_of(options.webcam, "camera-")
        if options.webcam is not None
        else sources_of(options.inputs, options.sequence)
    )
    tally = run(network, sources, writer, show)
    each = 1000 * tally.network_s / max(tally.done + tally.failed, 1)
    what = f"{counted(tally.done)}, depth in {network.unit}, {each:.0f} ms each on {network.provider}"
    print(f"\r{what}, in {options.out}")
    if tally.failed:
        print(f"infer: {counted(tally.failed)} could not be done", file=sys.stderr)
    return 1 if tally.failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    try:
        return infer(parse(arguments))
    except (InferError, ModelError) as error:
        print(f"infer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninfer: stopped; what was written is whole", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
