"""The page's words and tables: values in, HTML out. Everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfmttr.types import DepthKind

from ..eta import format_duration

if TYPE_CHECKING:
    from sfmttr.networks import NetworkSummary
    from sfmttr.networks.info import NetworkInfo

    from ..clip_preview import ClipPreview
from .common import notice, picture_uri

_KINDS = {
    DepthKind.METRIC: "gives metres",
    DepthKind.SCALE_INVARIANT: "gives depth up to scale",
    DepthKind.AFFINE_DISPARITY: "gives inverse depth, which your clip turns into depth",
}


def about(network: NetworkSummary) -> str:
    """What a network is, what it gives, its size, and its terms."""
    info = network.info
    facts = [info.description, _KINDS[info.kind], f"{network.parameters / 1e6:.1f} M parameters"]
    facts += [] if network.weights_available else ["its weights are fetched first"]
    words = "; ".join(escape(each) for each in facts)
    terms = f"Licence: <b>{escape(info.licence)}</b>{_page(info)}"
    return f'<p class="caption about" role="status"><b>{escape(info.name)}</b>: {words}. {terms}</p>'


def _page(info: NetworkInfo) -> str:
    if not info.source.startswith("https://"):
        return "."
    return f' (<a href="{escape(info.source)}" target="_blank" rel="noopener">its page</a>).'


def looking_up(name: str) -> str:
    """While a model's small files are read."""
    return (
        f'<p class="caption about" role="status">Looking up {escape(name)}: its licence will stand here, and in the '
        "report. You need not wait.</p>"
    )


def preview(look: ClipPreview, seconds: float | None, waiting: int, warnings: Sequence[str]) -> str:
    """What is known of a clip before anything is done with it."""
    info = look.info
    facts = [("Frames used", f"{look.frames}" + (f" of {info.frames}" if info.frames else ""))]
    if look.used_s is not None:
        facts.insert(0, ("Length", f"{look.used_s:.1f} s"))
    facts.append(("Size", f"{info.hw[1]} × {info.hw[0]}"))
    facts.append(("Time here", "depends on the network" if seconds is None else format_duration(seconds)))
    if waiting:
        facts.append(("In line", f"{waiting} before you"))
    pictures = "".join(f'<img alt="" src="{picture_uri(each, 320)}">' for each in look.pictures)
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    boxes = "".join(notice(each, "warning") for each in warnings)
    return f'<div class="preview"><div class="strip">{pictures}</div><dl class="facts">{cells}</dl>{boxes}</div>'
