"""Model card of a kit (README.md), and the terms of its parts (LICENSES/)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfmttr.evaluation.comparison import Column
from sfmttr.evaluation.metrics import DepthMetrics
from sfmttr.networks.info import NetworkInfo
from sfmttr.run.finished import FinishedRun
from sfmttr.types import DepthKind

from .. import spec
from ..latency import Latency
from ..report import ExportReport

_TEXTS = Path(__file__).with_name("static") / "LICENSES"
_ONNXRUNTIME_COPYRIGHT = "Copyright (c) Microsoft Corporation"


def documents(finished: FinishedRun, report: ExportReport, kit: Mapping[str, Any]) -> dict[str, bytes]:
    """README.md and LICENSES/ of a kit, from the export's report and the content of kit.json."""
    texts = {
        "README.md": _card(finished, report, kit),
        "LICENSES/README.md": _terms(finished.info, kit),
        "LICENSES/Apache-2.0.txt": (_TEXTS / "Apache-2.0.txt").read_text(encoding="utf-8"),
        "LICENSES/network.txt": _network_terms(finished.info),
        "LICENSES/onnxruntime-web.txt": _mit(_ONNXRUNTIME_COPYRIGHT),
    }
    return {name: text.encode() for name, text in texts.items()}


# ------------------------------------------------------------------------------------- model card


def _card(finished: FinishedRun, report: ExportReport, kit: Mapping[str, Any]) -> str:
    parts = (_what(finished, report, kit), _errors(finished, report, kit), _USE, _limits(finished, kit), _made(report))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _what(finished: FinishedRun, report: ExportReport, kit: Mapping[str, Any]) -> str:
    model = report.model
    tuned = (
        "fine-tuned on one clip of it, with structure-from-motion as the teacher (SfM-TTR)"
        if kit["refined"]
        else "with its authors' weights: fine-tuning on the clip found nothing better"
    )
    unit = (
        "metres"
        if kit["kind"] == "metric"
        else "network units: right up to one factor, the same for every picture of the place"
    )
    facts = (
        ("Network", f"{kit['network']}: {finished.info.description}"),
        ("Depth", f"camera z, not ray length, in {unit}"),
        ("Clip", f"{kit['clip_frames']} frames of {_hw(kit['frame_hw'])} (sha256 {model.clip_sha256[:12]}…)"),
        ("Works at", f"{_hw(kit['working_hw'])}; pictures of any size go in, depth of the same size comes out"),
        *_sees(model),
        ("Recipe", f"preset `{model.preset}`, sfmttr {report.sfmttr}"),
        ("Licence", f"{kit['network_licence']} ({kit['network_source']}); see [LICENSES](LICENSES/README.md)"),
    )
    title, sentence = f"# Depth of {kit['place']}", f"A small depth network for one place, {tuned}."
    caution = [f"**{kit['caution']}**"] if kit["caution"] else []
    return "\n\n".join((title, sentence, *caution, _table(("", ""), facts)))


def _sees(model: spec.NetworkDescription) -> Iterator[tuple[str, str]]:
    """Return a sentence on further inputs of the network, if any."""
    names = spec.input_names(model.neighbours)[1:]
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        yield "Also sees", f"{listed}: frames beside the picture, of its size; where there are none, the picture again"


def _errors(finished: FinishedRun, report: ExportReport, kit: Mapping[str, Any]) -> str:
    return f"""
## Accuracy

{_before_and_after(finished)}

{_table(("variant", "file", "size", "AbsRel", "RMSE", "d1", "farthest from torch", "ms"), _variant_rows(report, kit))}

Each file was run beside the torch network that it was made from, at sizes that it was not made with: "farthest from
torch" is the largest relative difference at any pixel. AbsRel, RMSE and d1 (share of points within 25 %) are at the
held-out points of the first table. {_latency(report)} fp32 is the network itself; int8 is the smallest.
"""


_COLUMNS = (Column.BEFORE, Column.ALIGNED, Column.AFTER)


def _before_and_after(finished: FinishedRun) -> str:
    """Mean relative error of the network, as the run found it."""
    comparison = finished.report.comparison
    references = (
        comparison.held_out,
        comparison.held_out_frames,
        comparison.ground_truth,
        comparison.ground_truth_held_out_frames,
    )
    found = [(each.protocol, each.columns) for each in references if each is not None]
    rows = [
        (protocol, *(f"{errors[column].abs_rel:.4f}" if column in errors else "-" for column in _COLUMNS))
        for protocol, errors in found
    ]
    if not rows:
        return "The clip left no points to measure its error with, and there was no true depth."
    table = _table(("mean relative error (AbsRel)", "before", "before, scaled best", "after tuning"), rows)
    return f"{table}\n\nSfM points come from the clip's own reconstruction, so its errors are in these figures too."


def _variant_rows(report: ExportReport, kit: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    frame = _frame_latency(report)
    times = {} if frame is None else frame.median_ms
    for name, entry in report.variants.items():
        errors = entry.held_out
        kept = len(entry.float_layers)
        yield (
            str(name) + (f" ({kept} {'layer' if kept == 1 else 'layers'} in float)" if kept else ""),
            f"`models/{entry.file}`",
            f"{entry.bytes / 1e6:.2f} MB",
            *(("-",) * 3 if errors is None else _measures(errors, kit["unit"])),
            f"{entry.max_relative:.1e}",
            f"{times[name]:.0f}" if name in times else "-",
        )


def _measures(errors: DepthMetrics, unit: str) -> tuple[str, str, str]:
    return f"{errors.abs_rel:.4f}", f"{errors.rmse:.3f} {unit}", f"{errors.a1:.3f}"


def _frame_latency(report: ExportReport) -> Latency | None:
    """Milliseconds for pictures of the clip's size."""
    return report.latency.get("frame")


def _latency(report: ExportReport) -> str:
    latency = _frame_latency(report)
    if latency is None:
        return ""
    torch = latency.median_ms.get("torch")
    comparison = f"; torch takes {torch:.0f} ms there" if torch else ""
    thread = "one thread" if latency.threads == 1 else f"{latency.threads} threads"
    return f"Times are medians for {_hw(latency.hw)} on {thread} of {latency.processor}{comparison}."


_USE = """
## Use it

In a terminal, with Python 3.11 or later:

```bash
pip install onnxruntime numpy pillow
python infer.py photo.jpg --out results         # or a folder of pictures
python infer.py --check                         # compare with a stored result
```

`python infer.py --help` lists more: videos, cameras, GPUs, formats. The 16-bit PNGs state their scale and unit in their
text (depth = value / scale, 0 is no depth).

In your own code, `runtime.py` is all you need beside the model:

```python
from runtime import OnnxDepth

network = OnnxDepth("models/depth-fp32.onnx")
depth = network.predict(rgb)  # (H, W, 3) uint8 RGB in, (H, W) float32 out, in network.unit
```

In a browser: `python serve.py`, or any other static file server, then open `index.html` there: pictures, clips and the
live camera. Nothing is uploaded. Cameras need https or localhost; several threads need the two headers that `serve.py`
sends. The page first compares its result for a stored frame with the expected depth.

`check/frame.png` is a frame of your clip; remove it before publishing if it is private.
"""


def _limits(finished: FinishedRun, kit: Mapping[str, Any]) -> str:
    if kit["kind"] != "metric":
        unit = "Its unit is the network's own. One known distance gives the factor to metres (`--known-depth`)."
    elif finished.kind is DepthKind.METRIC:
        unit = "Its metres are the network's own: the clip says nothing about absolute size."
    else:
        unit = "Its metres come from one distance that was given, and are as right as that."
    return f"""
## Limitations

- It was tuned to one place. Elsewhere it may be worse than the original network.
- Where the clip had no 3D points (sky, bare walls, thin structures), depth was neither trained nor measured.
- A camera with another lens than the clip's sees other sizes, and so other depths; pictures of another shape are
  squeezed into the one that the network works at.
- {unit}
"""


def _made(report: ExportReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    rows = [(name, f"`{entry.sha256}`") for name, entry in report.variants.items()]
    weights = report.model.weights_sha256
    return (
        f"## Versions and hashes\n\nsfmttr {report.sfmttr}, {versions}, ONNX opset {report.opset}. "
        f"Weights: sha256 `{weights}`.\n\n{_table(('variant', 'sha256 of the file'), rows)}"
    )


def _hw(hw: Sequence[int]) -> str:
    return f"{hw[1]} x {hw[0]}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# ------------------------------------------------------------------------------------------ terms


def _terms(info: NetworkInfo, kit: Mapping[str, Any]) -> str:
    runtime = kit["web_runtime"]
    rows = (
        ("models/", f"{info.licence}, as the weights that they were made from ({info.source})", "network.txt"),
        ("infer.py, runtime.py, serve.py, index.html, js/, style.css", "Apache-2.0 (sfmttr)", "Apache-2.0.txt"),
        (f"{runtime['package']} {runtime['version']} ({runtime['base']})", "MIT", "onnxruntime-web.txt"),
        ("colour map Spectral, by Cynthia Brewer (colorbrewer2.org)", "Apache-2.0", "Apache-2.0.txt"),
        ("check/frame.png, check/expected.npy", "yours: they come from your clip", ""),
    )
    return f"# Terms\n\nEach part keeps its own.\n\n{_table(('part', 'terms', 'text'), rows)}\n"


def _network_terms(info: NetworkInfo) -> str:
    if info.licence == "MIT" and info.copyright:
        return _mit(info.copyright)
    text = "Its full text is in Apache-2.0.txt.\n" if info.licence == "Apache-2.0" else ""
    return (
        f"{info.name}: {info.licence}\n{info.copyright}\nSource: {info.source}\n\n"
        f"Models made from these weights are under the same terms. {text}"
    )


def _mit(copyright_line: str) -> str:
    return (_TEXTS / "MIT.txt").read_text(encoding="utf-8").replace("{copyright}", copyright_line)
