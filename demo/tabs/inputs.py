"""The form: clip, examples, network, settings, and the buttons Refine and Stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from sfmttr.config import Preset

from .. import api
from ..config import Example, PageConfig
from ..events import AT_ONCE, QUIET, Components, States
from ..handlers import Handlers
from ..network_choices import NetworkChoices
from ..uploads import ACCEPTED
from ..views import inputs

PRESETS = (
    ("Fast", str(Preset.FAST)),
    ("Accurate", str(Preset.DEFAULT)),
    ("As in the paper", str(Preset.PAPER)),
)


def build(config: PageConfig, choices: NetworkChoices) -> Components:
    """Create the form."""
    c: Components = {}
    with gr.Row(elem_id="form", equal_height=False):
        with gr.Column(scale=6, min_width=320):
            _build_clip(c, config)
        with gr.Column(scale=6, min_width=320):
            _build_network(c, config, choices)
            c["preset"] = gr.Radio(list(PRESETS), value=str(config.preset), label="Speed", elem_id="preset")
            _build_advanced(c, config)
            c["go"] = gr.Button("Refine", variant="primary", size="lg", interactive=False, elem_id="go")
            c["stop"] = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
    return c


def _build_clip(c: Components, config: PageConfig) -> None:
    gr.HTML('<p class="field">Your clip<span>a video, several photos, or a zip of photos</span></p>')
    c["upload"] = gr.File(
        label="Your clip",
        show_label=False,
        file_count="multiple",
        file_types=list(ACCEPTED),
        height=190,
        elem_id="upload",
    )
    gr.HTML('<p class="or">or an example</p>')
    with gr.Row(elem_id="examples"):
        c["examples"] = [(each, _example_button(each)) for each in config.examples]
    c["preview"] = gr.HTML("", elem_id="preview")


def _example_button(example: Example) -> gr.Button:
    return gr.Button(example.title, elem_id=f"example-{example.name}", elem_classes="example", min_width=120)


def _build_network(c: Components, config: PageConfig, choices: NetworkChoices) -> None:
    c["network"] = gr.Dropdown(
        choices.options(), value=config.network, label="Network", elem_id="network", filterable=False
    )
    folder = ", or the path of a folder on this machine that holds a model" if config.folders else ""
    c["other"] = gr.Textbox(
        "",
        label="Hugging Face model id" + (" or folder" if config.folders else ""),
        placeholder="ORG/NAME",
        info=f"Any depth model: its id as shown on its page on huggingface.co{folder}.",
        max_lines=1,
        visible=False,
        elem_id="other",
    )
    c["about"] = gr.HTML(inputs.about(choices.describe(config.network)), elem_id="about")


def _build_advanced(c: Components, config: PageConfig) -> None:
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        c["max_frames"] = gr.Slider(
            config.least_frames,
            config.most_frames,
            value=config.max_frames,
            step=1,
            label="Maximum frames",
            elem_id="max-frames",
        )
        with gr.Row():
            c["start"] = gr.Number(0, label="Start (s)", minimum=0, min_width=100, elem_id="start")
            c["end"] = gr.Number(0, label="End (s, 0 = to the end)", minimum=0, min_width=100, elem_id="end")
            c["seed"] = gr.Number(config.seed, label="Seed", precision=0, min_width=100, elem_id="seed")
        c["intrinsics"] = gr.Textbox(
            "",
            label="Camera intrinsics (optional)",
            placeholder="fx, fy, cx, cy in pixels of the clip",
            elem_id="intrinsics",
        )
        c["force_box"] = gr.Checkbox(False, label="Refine even if the reconstruction looks unreliable")


def form_components(c: Components) -> list[Any]:
    """Return the components whose values `RunRequest.parse` takes."""
    return [*api.form_components(c), c["other"]]


def wire(handlers: Handlers, c: Components, states: States) -> None:
    """Connect the form; the examples are wired with the results that they open."""
    form = form_components(c)
    preview = [states.selected, c["preview"], c["go"]]
    c["upload"].upload(handlers.inputs.upload, [c["upload"], *form], preview, **AT_ONCE)
    c["upload"].clear(lambda: (None, "", gr.Button(interactive=False)), None, preview, **AT_ONCE)
    gr.on(
        [c["network"].input, c["other"].submit, c["other"].blur],
        handlers.inputs.about,
        [c["network"], c["other"]],
        [c["other"], c["about"]],
        trigger_mode="always_last",
        concurrency_limit=4,
        **QUIET,
    )
    # One event for everything that the preview depends on, also on itself, which comes to rest when the answer does not
    # change: so the last preview is of the selected clip and the last settings, whichever answer arrived last.
    gr.on(
        [
            c["preview"].change,
            c["about"].change,
            c["preset"].change,
            c["max_frames"].release,
            *(c[name].blur for name in ("start", "end", "intrinsics")),
        ],
        handlers.inputs.settings,
        [states.selected, *form],
        [c["preview"], c["go"]],
        trigger_mode="always_last",
        **AT_ONCE,
    )
    c["stop"].click(handlers.run.stop, [states.job], [c["stop"]], **AT_ONCE)


def example_handler(handlers: Handlers, example: Example) -> Callable[..., Any]:
    """Return the handler of one example's button."""

    def select(*form: Any) -> Any:
        return handlers.inputs.example(example.name, *form)

    return select
