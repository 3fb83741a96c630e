"""The page: its form, progress and results, each laid out and wired in its module of `tabs`. No work is done here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from . import api
from .config import PageConfig
from .events import States
from .handlers import Handlers
from .service import Service
from .tabs import inputs, results

STATIC = Path(__file__).with_name("static")
TITLE = "SfM-TTR: teach a depth network your place"
_GRADIO_SWEEP_S = 3600


@dataclass(frozen=True)
class Page:
    """A page that can be launched."""

    blocks: gr.Blocks
    service: Service


def build_page(config: PageConfig | None = None, service: Service | None = None) -> Page:
    """Build the page without launching it."""
    service = service or Service(config or PageConfig())
    handlers = Handlers(service)
    with gr.Blocks(title=TITLE, delete_cache=(_GRADIO_SWEEP_S, int(service.config.keep_s))) as blocks:
        gr.HTML((STATIC / "intro.html").read_text(encoding="utf-8"), elem_id="intro")
        c = inputs.build(service.config, service.choices)
        c["live"] = gr.HTML("", elem_id="live")
        c |= results.build()
        states = States.create()
        inputs.wire(handlers, c, states)
        results.wire(blocks, handlers, c, states)
        blocks.unload(handlers.run.leave)
        api.add_endpoints(handlers, c)
        gr.HTML((STATIC / "footer.html").read_text(encoding="utf-8"), elem_id="footer")
    blocks.queue(max_size=64, default_concurrency_limit=8)
    return Page(blocks, service)
