"""The finished run: verdict and tabs, and the events that show one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..events import AT_ONCE, QUIET, Components, States, by_component, with_request
from ..handlers import Handlers
from . import download, inputs, try_it

RESULT_COMPONENTS = (
    *("results", "verdict", "force", "compare", "no_3d", "tabs", "points", "report", "downloads", "export_box"),
    *("make_kit", "export_live", "try_box", "try_missing", "try_words", "try_frame", "try_result", "kit_link", "live"),
)
"""Components that show a finished run."""

# Puts the link of the shown run into the address bar, so that a reload finds it again.
_UPDATE_ADDRESS = """() => setTimeout(() => {
  const run = document.querySelector('#verdict [data-run]')?.dataset.run;
  const url = new URL(window.location);
  if (run && !run.startsWith('example-')) url.searchParams.set('run', run); else url.searchParams.delete('run');
  window.history.replaceState(null, '', url);
  if (run) document.getElementById('results')?.scrollIntoView({behavior: 'smooth', block: 'start'});
}, 120)"""
# Waits for the viewers before the models are requested. gradio creates the content of a tab when the tab is first
# opened; a viewer that gets its model before that gets it twice, and the second time it drops the drawing code that it
# is still loading for the first one and never requests it again (seen in gradio 6.31): nothing is ever drawn.
_AWAIT_VIEWERS = """async key => {
  const waiting = () => ['model-before', 'model-after'].some(id => !document.getElementById(id));
  for (let tries = 0; waiting() && tries < 200; tries += 1) await new Promise(next => setTimeout(next, 50));
  await new Promise(next => requestAnimationFrame(() => setTimeout(next)));
  return key;
}"""


def build() -> Components:
    """Create the results, hidden until a run is finished."""
    c: Components = {}
    with gr.Column(visible=False, elem_id="results") as c["results"]:
        c["verdict"] = gr.HTML("", elem_id="verdict")
        c["force"] = gr.Button("Refine anyway", visible=False, elem_id="force")
        with gr.Tabs(elem_id="tabs") as c["tabs"]:
            with gr.Tab("Compare", id="compare"):
                c["compare"] = gr.HTML("", elem_id="compare")
            with gr.Tab("3D", id="3d") as c["tab_3d"]:
                _build_3d(c)
            with gr.Tab("Points", id="points"):
                c["points"] = gr.HTML("", elem_id="points")
            with gr.Tab("Report", id="report"):
                c["report"] = gr.HTML("", elem_id="report")
            with gr.Tab("Download", id="download"):
                download.build(c)
            with gr.Tab("Try it", id="try"):
                try_it.build(c)
    return c


def _build_3d(c: Components) -> None:
    c["no_3d"] = gr.HTML('<p class="empty">No 3D model: the clip was not refined.</p>', visible=False)
    gr.HTML('<p class="hint">Drag to rotate, scroll to zoom. Small pyramids mark the camera positions.</p>')
    with gr.Row():
        c["model_before"] = gr.Model3D(
            label="before, scaled to fit", interactive=False, height=440, elem_id="model-before"
        )
        c["model_after"] = gr.Model3D(label="after", interactive=False, height=440, elem_id="model-after")


def wire(blocks: gr.Blocks, handlers: Handlers, c: Components, states: States) -> None:
    """Connect everything that shows a finished run."""
    shown = [c[name] for name in RESULT_COMPONENTS]
    show = by_component(handlers.results.show, c)

    def show_after(event: Any) -> None:
        # An event of its own: the Model3D viewer stays blank as an output of a generator.
        shown_event = event.then(show, [states.key], shown, **AT_ONCE)
        shown_event.then(None, None, None, js=_UPDATE_ADDRESS, **AT_ONCE)

    _wire_runs(handlers, c, states, show_after)
    download.wire(handlers, c, states, [each for each in shown if each is not c["export_live"]])
    try_it.wire(handlers, c, states)
    show_after(blocks.load(handlers.results.open_link, None, [states.key, c["live"]], **AT_ONCE))
    # Only once the tab is open: the viewer draws nothing if it gets its model while hidden, and most visitors need not
    # load it.
    models = [c["model_before"], c["model_after"]]
    c["tab_3d"].select(handlers.results.show_3d, [states.key], models, js=_AWAIT_VIEWERS, **AT_ONCE)


def _wire_runs(handlers: Handlers, c: Components, states: States, show_after: Callable[[Any], None]) -> None:
    """Connect what starts a run or opens a finished one: examples, Refine, Refine anyway."""
    form = inputs.form_components(c)
    outputs = [states.selected, c["preview"], c["go"], c["upload"], states.key, c["live"]]
    for example, button in c["examples"]:
        show_after(button.click(inputs.example_handler(handlers, example), form, outputs, **AT_ONCE))
    run = with_request(handlers.run.start)
    run_inputs = [states.selected, *form]
    run_outputs = [c["live"], c["go"], c["stop"], states.job, states.key, c["results"]]
    show_after(c["go"].click(run, run_inputs, run_outputs, concurrency_limit=None, **QUIET))
    forced = c["force"].click(lambda: True, None, [c["force_box"]], **AT_ONCE)
    show_after(forced.then(run, run_inputs, run_outputs, concurrency_limit=None, **QUIET))
