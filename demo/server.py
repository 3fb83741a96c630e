"""Serving the page: launch, background threads, and `main` of `python app.py` and `sfmttr page`."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable

from . import environment, theme
from .examples import compute_in_background
from .layout import STATIC, Page, build_page
from .routes import make_router
from .sessions import sweep_forever


def launch(page: Page, *, port: int | None = None, block: bool = True, quiet: bool = False) -> str:
    """Serve the page until it is interrupted, or in the background with `block=False`; return its address."""
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
        # A file in this folder can be fetched only by those who know the id in its path.
        allowed_paths=[str(config.folder)],
        max_file_size=config.max_upload_bytes,
        footer_links=["api"],
        run_history=False,
        theme=theme.make(),
        css=(STATIC / "page.css").read_text(encoding="utf-8"),
        head=theme.head((STATIC / "page.js").read_text(encoding="utf-8"), config.examples),
        favicon_path=STATIC / "favicon.svg",
    )
    app.include_router(make_router(page.service))
    _start_threads(page)
    if block:
        page.blocks.block_thread()
    return str(url)


def _start_threads(page: Page) -> None:
    config = page.service.config
    sweeps: list[Callable[[], object]] = [page.service.store.sweep]
    # The cache of reconstructions is kept on one's own machine; where there are visitors, nothing of theirs stays.
    if not environment.is_private():
        sweeps.append(functools.partial(_sweep_reconstructions, config.keep_s))
    sweep_forever(sweeps, config.sweep_every_s)
    if config.prepare_examples:
        compute_in_background(page.service.examples, page.service.queue, page.service.runner)
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()


def _sweep_reconstructions(keep_s: float) -> None:
    from sfmttr.run.sfm_stage import reconstruction_cache_folder
    from sfmttr.sfm.reconstruction import sweep_cache

    sweep_cache(reconstruction_cache_folder(), keep_s)


def _warm_up() -> None:
    """Import what the first run needs while the visitor still looks around."""
    try:
        import sfmttr.run.pipeline  # noqa: F401
    except ImportError:
        logging.getLogger(__name__).exception("the pipeline cannot be imported")


def main() -> None:
    """Serve the page with its default settings until it is interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    launch(build_page())
