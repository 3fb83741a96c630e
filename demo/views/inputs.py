"""The form: description of a network, preview of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfmttr.types import DepthKind

from ..eta import format_duration
from .common import notice, picture_uri

if TYPE_CHECKING:
    from sfmttr.networks import NetworkSummary
    from sfmttr.networks.info import NetworkInfo

    from ..clip_preview import ClipPreview

_KINDS = {
    DepthKind.METRIC: "depth in meters",
    DepthKind.SCALE_INVARIANT: "depth up to scale",
    DepthKind.AFFINE_DISPARITY: "relative depth; your clip gives it its scale",
}


def about(network: NetworkSummary) -> str:
    """Return description, kind of depth, size and license of a network."""
    info = network.info
    facts = [info.description, _KINDS[info.kind], f"{network.parameters / 1e6:.1f} M parameters"]
    facts += [] if network.weights_available else ["weights will be downloaded first"]
    text = "; ".join(escape(each) for each in facts)
    terms = f"License: <b>{escape(info.licence)}</b>{_model_page(info)}"
    return f'<p class="caption about" role="status"><b>{escape(info.name)}</b>: {text}. {terms}</p>'


def _model_page(info: NetworkInfo) -> str:
    if not info.source.startswith("https://"):
        return "."
    return f' (<a href="{escape(info.source)}" target="_blank" rel="noopener">model page</a>).'


def looking_up(name: str) -> str:
    """Return what is shown while a model's small files are read."""
    return (
        f'<p class="caption about" role="status">Looking up {escape(name)}: its license will be shown here and in the '
        "report. You need not wait.</p>"
    )


def preview(clip: ClipPreview, seconds: float | None, ahead: int, warnings: Sequence[str]) -> str:
    """Return pictures, facts and warnings of a clip; `seconds`: of a run, if known; `ahead`: runs in the queue."""
    info = clip.info
    facts = [("Frames used", f"{clip.frames}" + (f" of {info.frames}" if info.frames else ""))]
    if clip.used_s is not None:
        facts.insert(0, ("Length", f"{clip.used_s:.1f} s"))
    facts.append(("Size", f"{info.hw[1]} × {info.hw[0]}"))
    facts.append(("Estimated time", "depends on the network" if seconds is None else format_duration(seconds)))
    if ahead:
        facts.append(("Queue", f"{ahead} ahead of you"))
    pictures = "".join(f'<img alt="" src="{picture_uri(each, 320)}">' for each in clip.pictures)
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    boxes = "".join(notice(each, "warning") for each in warnings)
    return f'<div class="preview"><div class="strip">{pictures}</div><dl class="facts">{cells}</dl>{boxes}</div>'
