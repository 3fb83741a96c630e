"""The layout of the page, and which callback answers which event. No work is done here."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from sfmttr.config import Preset

from . import api, environment, theme
from .config import Example, PageConfig
from .examples import prepare_in_background
from .handlers import Handlers
from .network_choices import NetworkChoices
from .routes import make_router
from .service import Service
from .sessions import sweep_forever
from .uploads import ACCEPTED
from .views import inputs

STATIC = Path(__file__).with_name("static")
PRESETS = (
    ("Fast", str(Preset.FAST)),
    ("More accurate", str(Preset.DEFAULT)),
    ("As published", str(Preset.PAPER)),
)
SHOWN = (
    *("results", "verdict", "force", "compare", "no_3d", "tabs", "points", "report", "downloads", "export_box"),
    *("make_kit", "export_live", "try_box", "try_missing", "try_words", "try_frame", "try_result", "kit_link", "live"),
)
"""Components that show a finished run."""
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For the page's own events: the API has endpoints of its own."""
_AT_ONCE: dict[str, Any] = {**_QUIET, "queue": False}
"""For those that take a moment, answered in the request itself. gradio brings what is queued over a stream that it
closes when nothing is pending, and an event that comes just then is never answered (seen with gradio 6.31)."""


@dataclass(frozen=True)
class Page:
    """A page that can be launched."""

    blocks: gr.Blocks
    service: Service


def build_page(config: PageConfig | None = None, service: Service | None = None) -> Page:
    """The page, not yet launched."""
    service = service or Service(config or PageConfig())
    config, calls = service.config, Handlers(service)
    with gr.Blocks(
        title="SfM-TTR: a depth network of your own place", delete_cache=(3600, int(config.keep_s))
    ) as blocks:
        gr.HTML((STATIC / "intro.html").read_text(encoding="utf-8"), elem_id="intro")
        form = _form(config, service.choices)
        c = {**form, **_progress(), **_results()}
        states = {name: gr.State(None) for name in ("chosen", "job", "kit_job", "key")}
        _wire(blocks, calls, c, **states)
        api.add(calls, c)
        gr.HTML((STATIC / "footer.html").read_text(encoding="utf-8"), elem_id="footer")
    blocks.queue(max_size=64, default_concurrency_limit=8)
    return Page(blocks, service)


# ----------------------------------------------------------------------------------------- layout


def _form(config: PageConfig, choices: NetworkChoices) -> dict[str, Any]:
    c: dict[str, Any] = {}
    with gr.Row(elem_id="form", equal_height=False):
        with gr.Column(scale=6, min_width=320):
            gr.HTML('<p class="field">Your clip<span>a video, several photos, or a zip of them</span></p>')
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
                c["examples"] = [
                    (
                        each,
                        gr.Button(
                            f"{each.title}", elem_id=f"example-{each.name}", elem_classes="example", min_width=120
                        ),
                    )
                    for each in config.examples
                ]
            c["preview"] = gr.HTML("", elem_id="preview")
        with gr.Column(scale=6, min_width=320):
            c["network"] = gr.Dropdown(
                choices.options(), value=config.network, label="Network", elem_id="network", filterable=False
            )
            c["other"] = gr.Textbox(
                "",
                label="Any depth model of the Hugging Face Hub" + (", or a folder" if config.folders else ""),
                placeholder="ORG/NAME",
                info="Its id as its page on huggingface.co has it"
                + (", or the path of a folder on this machine that holds one." if config.folders else "."),
                max_lines=1,
                visible=False,
                elem_id="other",
            )
            c["about"] = gr.HTML(inputs.about(choices.describe(config.network)), elem_id="about")
            c["preset"] = gr.Radio(list(PRESETS), value=str(config.preset), label="Preset", elem_id="preset")
            with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                c["max_frames"] = gr.Slider(
                    config.least_frames,
                    config.most_frames,
                    value=config.max_frames,
                    step=1,
                    label="Frames used, at most",
                    elem_id="max-frames",
                )
                with gr.Row():
                    c["start"] = gr.Number(0, label="Start, s", minimum=0, min_width=100, elem_id="start")
                    c["end"] = gr.Number(0, label="End, s (0: all)", minimum=0, min_width=100, elem_id="end")
                    c["seed"] = gr.Number(config.seed, label="Seed", precision=0, min_width=100, elem_id="seed")
                c["intrinsics"] = gr.Textbox(
                    "",
                    label="Intrinsics, if you know them",
                    placeholder="fx, fy, cx, cy in pixels of the clip",
                    elem_id="intrinsics",
                )
                c["force_box"] = gr.Checkbox(False, label="Refine even when the reconstruction is not trusted")
            c["go"] = gr.Button("Refine", variant="primary", size="lg", interactive=False, elem_id="go")
            c["stop"] = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
    return c


def _progress() -> dict[str, Any]:
    return {"live": gr.HTML("", elem_id="live")}


def _results() -> dict[str, Any]:
    c: dict[str, Any] = {}
    with gr.Column(visible=False, elem_id="results") as c["results"]:
        c["verdict"] = gr.HTML("", elem_id="verdict")
        c["force"] = gr.Button("Refine all the same", visible=False, elem_id="force")
        with gr.Tabs(elem_id="tabs") as c["tabs"]:
            with gr.Tab("Compare", id="compare"):
                c["compare"] = gr.HTML("", elem_id="compare")
            with gr.Tab("3D", id="3d") as c["tab_3d"]:
                c["no_3d"] = gr.HTML(
                    '<p class="empty">There is nothing in 3D: the clip was not refined.</p>', visible=False
                )
                gr.HTML(
                    '<p class="hint">Drag to turn, scroll to come closer. Small pyramids are the camera’s places.</p>'
                )
                with gr.Row():
                    c["model_before"] = gr.Model3D(
                        label="before, scaled to fit", interactive=False, height=440, elem_id="model-before"
                    )
                    c["model_after"] = gr.Model3D(label="after", interactive=False, height=440, elem_id="model-after")
            with gr.Tab("Points", id="points"):
                c["points"] = gr.HTML("", elem_id="points")
            with gr.Tab("Report", id="report"):
                c["report"] = gr.HTML("", elem_id="report")
            with gr.Tab("Download", id="download"):
                _download(c)
            with gr.Tab("Try it", id="try"):
                _try(c)
    return c


def _download(c: dict[str, Any]) -> None:
    with gr.Column(elem_id="export-box") as c["export_box"]:
        gr.HTML(
            "<p>The network becomes ONNX files that run alone, on a robot, a phone or in a browser. Each is compared "
            "with the original before you get it.</p>"
        )
        with gr.Accordion("In metres, or for offline use", open=False):
            gr.HTML(
                "<p>Do you know how far away something is? Mark it in Compare, and say how many metres it is from the "
                "camera, straight ahead. Or say how high above the ground the camera was. The exported network then "
                "gives metres.</p>"
            )
            with gr.Row():
                c["place"] = gr.Textbox(
                    "", label="Place", placeholder="frame, row, column", elem_id="known-place", min_width=160
                )
                c["metres"] = gr.Number(0, label="Its distance, m", minimum=0, elem_id="known-metres", min_width=120)
                c["height"] = gr.Number(0, label="Or: camera height, m", minimum=0, elem_id="height", min_width=120)
            c["bundle"] = gr.Checkbox(
                False, label="Put the browser’s runtime into the kit (10 MB more; its page then needs no other server)"
            )
        c["make_kit"] = gr.Button("Freeze the network and make its kit", variant="primary", elem_id="make-kit")
        c["stop_kit"] = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-kit")
        c["export_live"] = gr.HTML("", elem_id="export-live")
    c["downloads"] = gr.HTML("", elem_id="downloads")


def _try(c: dict[str, Any]) -> None:
    with gr.Column(visible=True) as c["try_missing"]:
        gr.HTML('<p class="empty">The network is tried as it is exported: make the kit first, under Download.</p>')
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
                c["try_variant"] = gr.Radio(["fp32", "fp16", "int8"], value="fp32", label="File", elem_id="try-variant")
                c["try_go"] = gr.Button("Give me its depth", variant="primary", elem_id="try-go")
            with gr.Column(scale=7, min_width=320):
                c["try_result"] = gr.HTML("", elem_id="try-result")
        c["kit_link"] = gr.HTML("", elem_id="kit-link")


# ----------------------------------------------------------------------------------------- events

_ADDRESS = """() => setTimeout(() => {
  const run = document.querySelector('#verdict [data-run]')?.dataset.run;
  const url = new URL(window.location);
  if (run && !run.startsWith('example-')) url.searchParams.set('run', run); else url.searchParams.delete('run');
  window.history.replaceState(null, '', url);
  if (run) document.getElementById('results')?.scrollIntoView({behavior: 'smooth', block: 'start'});
}, 120)"""
"""Once results are there, their link stands in the address bar: a reload finds them again."""
_VIEWERS_THERE = """async key => {
  const waiting = () => ['model-before', 'model-after'].some(id => !document.getElementById(id));
  for (let tries = 0; waiting() && tries < 200; tries += 1) await new Promise(next => setTimeout(next, 50));
  await new Promise(next => requestAnimationFrame(() => setTimeout(next)));
  return key;
}"""
"""Before the models are asked for. gradio makes what is in a tab when the tab is first opened; a viewer that gets its
model before that gets it twice, and the second time it drops the drawing code that it is still loading for the first
one and never asks for it again (seen with gradio 6.31): nothing is drawn, ever."""


def _wire(
    blocks: gr.Blocks,
    calls: Handlers,
    c: dict[str, Any],
    chosen: gr.State,
    job: gr.State,
    kit_job: gr.State,
    key: gr.State,
) -> None:
    wishes = [*api.form_components(c), c["other"]]
    preview = [chosen, c["preview"], c["go"]]
    shown = [c[name] for name in SHOWN]
    show = functools.partial(_named, calls.show, c)

    def show_after(event: Any) -> Any:
        """The Model3D viewer stays blank as output of a generator: what shows results is an event of its own."""
        shown_event = event.then(show, [key], shown, **_AT_ONCE)
        return shown_event.then(None, None, None, js=_ADDRESS, **_AT_ONCE)

    c["upload"].upload(calls.upload, [c["upload"], *wishes], preview, **_AT_ONCE)
    c["upload"].clear(lambda: (None, "", gr.Button(interactive=False)), None, preview, **_AT_ONCE)
    gr.on(
        [c["network"].input, c["other"].submit, c["other"].blur],
        calls.about,
        [c["network"], c["other"]],
        [c["other"], c["about"]],
        trigger_mode="always_last",
        concurrency_limit=4,
        **_QUIET,
    )
    # One event for all that shows in the preview, also for itself, which comes to rest when it says what it said: so
    # what is there in the end is of the clip that is chosen and of the last change, whatever was answered last.
    gr.on(
        [
            c["preview"].change,
            c["about"].change,
            c["preset"].change,
            c["max_frames"].release,
            *(c[name].blur for name in ("start", "end", "intrinsics")),
        ],
        calls.settings,
        [chosen, *wishes],
        [c["preview"], c["go"]],
        trigger_mode="always_last",
        **_AT_ONCE,
    )
    for example, button in c["examples"]:
        pressed_outputs = [*preview, c["upload"], key, c["live"]]
        pressed = button.click(_example_call(calls, example), wishes, pressed_outputs, **_AT_ONCE)
        show_after(pressed)

    run_outputs = [c["live"], c["go"], c["stop"], job, key, c["results"]]
    run = _with_request(calls.run)
    show_after(c["go"].click(run, [chosen, *wishes], run_outputs, concurrency_limit=None, **_QUIET))
    c["stop"].click(calls.stop, [job], [c["stop"]], **_AT_ONCE)
    forced = c["force"].click(lambda: True, None, [c["force_box"]], **_AT_ONCE)
    show_after(forced.then(run, [chosen, *wishes], run_outputs, concurrency_limit=None, **_QUIET))

    exports = [c["export_live"], c["make_kit"], c["stop_kit"], kit_job]
    made = c["make_kit"].click(
        calls.make_kit,
        [key, c["place"], c["metres"], c["height"], c["bundle"]],
        exports,
        concurrency_limit=None,
        **_QUIET,
    )
    made.then(
        functools.partial(_named, calls.kit_made, c),
        [key],
        [each for each in shown if each is not c["export_live"]],
        **_AT_ONCE,
    )
    c["stop_kit"].click(calls.stop, [kit_job], [c["stop_kit"]], **_AT_ONCE)
    c["try_go"].click(
        calls.try_picture,
        [key, c["try_picture"], c["try_frame"], c["try_variant"]],
        [c["try_result"]],
        concurrency_limit=2,
        concurrency_id="predict",
        api_visibility="private",
    )
    show_after(blocks.load(calls.opened, None, [key, c["live"]], **_AT_ONCE))
    # The viewer draws nothing when it gets its model while it is hidden; and most visitors need not load it.
    c["tab_3d"].select(calls.show_3d, [key], [c["model_before"], c["model_after"]], js=_VIEWERS_THERE, **_AT_ONCE)
    blocks.unload(calls.leave)


def _named(call: Callable[[Any], dict[str, Any]], c: dict[str, Any], key: Any) -> dict[Any, Any]:
    """What a callback gives by name, by component."""
    return {c[name]: value for name, value in call(key).items()}


def _with_request(call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """`call(first, *rest, request=...)` as gradio can call it: it gives requests to positional parameters alone."""

    def called(first: Any, request: gr.Request, *rest: Any) -> Iterator[Any]:
        yield from call(first, *rest, request=request)

    return called


def _example_call(calls: Handlers, example: Example) -> Callable[..., Any]:
    def pressed(*wishes: Any) -> Any:
        return calls.example(example.name, *wishes)

    return pressed


# ----------------------------------------------------------------------------------------- launch


def launch(page: Page, *, port: int | None = None, block: bool = True, quiet: bool = False) -> str:
    """Serve the page; give its address. Runs until it is interrupted, or with `block=False` in the background."""
    config = page.service.config
    if not environment.is_private():
        environment.disable_hub_token()
    app, url, _ = page.blocks.launch(
        server_port=port or config.port,
        prevent_thread_lock=True,
        ssr_mode=False,
        share=False,
        quiet=quiet,
        show_error=False,
        allowed_paths=[str(config.folder)],  # whoever asks for one of its files has to know the id in its path
        max_file_size=config.max_upload_bytes,
        footer_links=["api"],
        run_history=False,
        theme=theme.make(),
        css=(STATIC / "page.css").read_text(encoding="utf-8"),
        head=theme.head((STATIC / "page.js").read_text(encoding="utf-8"), config.examples),
        favicon_path=STATIC / "favicon.svg",
    )
    app.include_router(make_router(page.service))
    sweeps: list[Callable[[], object]] = [page.service.store.sweep]
    if not environment.is_private():  # one's own machine may keep what was computed; of visitors nothing stays
        sweeps.append(functools.partial(_sweep_reconstructions, config.keep_s))
    sweep_forever(sweeps, config.sweep_every_s)
    if config.prepare_examples:
        prepare_in_background(page.service)
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
    if block:
        page.blocks.block_thread()
    return str(url)


def _sweep_reconstructions(keep_s: float) -> None:
    from sfmttr.run.pipeline import reconstructions
    from sfmttr.sfm.reconstruction import sweep_cache

    sweep_cache(reconstructions(), keep_s)


def _warm_up() -> None:
    """Import what the first run needs, while the visitor still looks around."""
    try:
        import sfmttr.run.pipeline  # noqa: F401
    except ImportError:
        logging.getLogger(__name__).exception("a run's parts cannot be imported")


def main() -> None:
    """What `python app.py` does."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    launch(build_page())
