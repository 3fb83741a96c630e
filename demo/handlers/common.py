"""Helpers for the handlers of several tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from ..jobs import Job
    from ..service import Service


def visitor_of(request: gr.Request | None) -> str:
    """Return the id of the visitor that a job belongs to."""
    return str(getattr(request, "session_hash", None) or "")


def release(service: Service, job: Job[Any]) -> None:
    """End a job whose generator ends, by itself or because its visitor left."""
    job.stop()
    job.join(service.config.stop_within_s)
    service.jobs.forget(job.id)


def idle_buttons() -> tuple[Any, Any]:
    """Return updates of (start, stop) while nothing runs."""
    return gr.Button(visible=True), gr.Button(visible=False)


def busy_buttons() -> tuple[Any, Any]:
    """Return updates of (start, stop) while a job runs."""
    return gr.Button(visible=False), gr.Button(value="Stop", visible=True, interactive=True)
