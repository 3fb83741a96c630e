"""The Try it tab: the exported network on another photo."""

from __future__ import annotations

import gradio as gr

from ..events import Components, States
from ..handlers import Handlers


def build(c: Components) -> None:
    """Add the components of the tab to `c`."""
    with gr.Column(visible=True) as c["try_missing"]:
        gr.HTML('<p class="empty">Export the network first (Download tab), then try it here.</p>')
    with gr.Column(visible=False, elem_id="try-box") as c["try_box"]:
        c["try_words"] = gr.HTML("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=280):
                c["try_picture"] = gr.Image(
                    label="Another photo of the place",
                    show_label=False,
                    type="filepath",
                    sources=["upload", "webcam", "clipboard"],
                    height=240,
                    elem_id="try-picture",
                )
                c["try_frame"] = gr.Slider(0, 1, value=0, step=1, label="… or a frame of the clip", elem_id="try-frame")
                c["try_variant"] = gr.Radio(
                    ["fp32", "fp16", "int8"], value="fp32", label="Precision", elem_id="try-variant"
                )
                c["try_go"] = gr.Button("Predict depth", variant="primary", elem_id="try-go")
            with gr.Column(scale=7, min_width=320):
                c["try_result"] = gr.HTML("", elem_id="try-result")
        c["kit_link"] = gr.HTML("", elem_id="kit-link")


def wire(handlers: Handlers, c: Components, states: States) -> None:
    """Connect the button."""
    c["try_go"].click(
        handlers.try_it.show_depth,
        [states.key, c["try_picture"], c["try_frame"], c["try_variant"]],
        [c["try_result"]],
        concurrency_limit=2,
        concurrency_id="predict",
        api_visibility="private",
    )
