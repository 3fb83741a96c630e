"""Registration of the page's own events with gradio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

# For the page's own events: the API has endpoints of its own.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# For events that take a moment, answered in the request itself. gradio sends the results of queued events over a stream
# that it closes when nothing is pending, and an event that arrives just then is never answered (seen in gradio 6.31).
AT_ONCE: dict[str, Any] = {**QUIET, "queue": False}

Components = dict[str, Any]
"""Components of the page by name."""


@dataclass(frozen=True)
class States:
    """Values that each visitor's page keeps."""

    selected: gr.State
    """`SelectedClip`, or None."""
    job: gr.State
    """Id of the run that goes on, or None."""
    export_job: gr.State
    """Id of the export that goes on, or None."""
    key: gr.State
    """Id of the finished run that is shown, or None."""

    @classmethod
    def create(cls) -> States:
        """Create them inside the `gr.Blocks` that is being built."""
        return cls(*(gr.State(None) for _ in range(4)))


def by_component(handler: Callable[[Any], dict[str, Any]], c: Components) -> Callable[[Any], dict[Any, Any]]:
    """Wrap a handler that returns updates by name so that it returns them by component."""

    def handle(key: Any) -> dict[Any, Any]:
        return {c[name]: update for name, update in handler(key).items()}

    return handle


def with_request(handler: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap `handler(first, *rest, request=...)` for gradio, which passes requests to positional parameters alone."""

    def handle(first: Any, request: gr.Request, *rest: Any) -> Iterator[Any]:
        yield from handler(first, *rest, request=request)

    return handle
