"""The Download tab: files of the run, and the export."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..events import AT_ONCE, QUIET, Components, States, by_component
from ..handlers import Handlers


def build(c: Components) -> None:
    """Add the components of the tab to `c`."""
    with gr.Column(elem_id="export-box") as c["export_box"]:
        gr.HTML(
            "<p>Export the fine-tuned network as stand-alone ONNX files for a robot, a phone or a browser. Each file "
            "is verified against the original.</p>"
        )
        with gr.Accordion("Options: depth in meters, offline kit", open=False):
            gr.HTML(
                "<p>Do you know how far away something is? Mark it under Compare and enter its distance from the "
                "camera, straight ahead. Or enter the height of the camera above the ground. The exported network then "
                "gives depth in meters.</p>"
            )
            with gr.Row():
                c["place"] = gr.Textbox(
                    "", label="Point", placeholder="frame, row, column", elem_id="known-place", min_width=160
                )
                c["metres"] = gr.Number(0, label="Its distance (m)", minimum=0, elem_id="known-metres", min_width=120)
                c["height"] = gr.Number(0, label="Or: camera height (m)", minimum=0, elem_id="height", min_width=120)
            c["bundle"] = gr.Checkbox(False, label="Include the browser runtime (+10 MB, works offline)")
        c["make_kit"] = gr.Button("Export the network", variant="primary", elem_id="make-kit")
        c["stop_kit"] = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-kit")
        c["export_live"] = gr.HTML("", elem_id="export-live")
    c["downloads"] = gr.HTML("", elem_id="downloads")


def wire(handlers: Handlers, c: Components, states: States, shown: list[Any]) -> None:
    """Connect the export; `shown`: the components that are updated once it ended."""
    started = c["make_kit"].click(
        handlers.export.start,
        [states.key, c["place"], c["metres"], c["height"], c["bundle"]],
        [c["export_live"], c["make_kit"], c["stop_kit"], states.export_job],
        concurrency_limit=None,
        **QUIET,
    )
    started.then(by_component(handlers.export.finished, c), [states.key], shown, **AT_ONCE)
    c["stop_kit"].click(handlers.run.stop, [states.export_job], [c["stop_kit"]], **AT_ONCE)
