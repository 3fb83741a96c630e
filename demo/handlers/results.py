"""The tabs of a finished run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import gradio as gr

from sfmttr.errors import SfmttrError

from ..eta import format_duration
from ..jobs import INTERNAL_ERROR
from ..views import common, compare, downloads, points, report, try_it, verdict

if TYPE_CHECKING:
    from ..run_view import RunView
    from ..service import Service
    from ..sessions import Session

_log = logging.getLogger(__name__)
_GLB = {"before": "cloud_before.glb", "after": "cloud_after.glb"}


class ResultHandlers:
    """Events that show a finished run."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def open_link(self, request: gr.Request) -> tuple[str | None, str]:
        """Open the run that the page's address names, if any: (key, live)."""
        key = request.query_params.get("run") if request else None
        if not key:
            return None, ""
        try:
            return self._service.finished(key).id, ""
        except SfmttrError as error:
            return None, common.notice(str(error), "note")

    def show(self, key: str | None) -> dict[str, Any]:
        """Return updates of all components that show a finished run, by their names."""
        if not key:
            return {"results": gr.Column(visible=False)}
        try:
            return self._shown(self._service.finished(key))
        except SfmttrError as error:
            return {"results": gr.Column(visible=False), "live": common.notice(str(error))}
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a run could not be shown")
            return {"results": gr.Column(visible=False), "live": common.notice(INTERNAL_ERROR)}

    def _shown(self, session: Session) -> dict[str, Any]:
        from ..run_view import view_of

        view = view_of(session)
        example = self._service.examples.owns(session)
        has_3d = (view.folder / _GLB["after"]).is_file()
        return {
            "results": gr.Column(visible=True),
            "verdict": verdict.verdict(view, "" if example else f"?run={session.id}"),
            "force": gr.Button(visible=view.gate_closed),
            "compare": compare.compare(view, session.id),
            "no_3d": gr.HTML(visible=not has_3d),
            "tabs": gr.Tabs(selected="compare"),
            "points": points.points(view),
            "report": report.report(view),
            **self.export_dependent(session, view),
        }

    def show_3d(self, key: str | None) -> tuple[Any, Any]:
        """Load the models when the 3D tab is opened: (before, after)."""
        from ..run_view import view_of

        session = self._service.find(key)
        paths = [session.run / name for name in _GLB.values()] if session else []
        if session is None or not all(path.is_file() for path in paths):
            return gr.Model3D(value=None, visible=False), gr.Model3D(value=None, visible=False)
        titles = view_of(session).titles
        labels = (titles["aligned"], titles["after"])
        before, after = (
            gr.Model3D(value=str(path), label=label, visible=True) for path, label in zip(paths, labels, strict=True)
        )
        return before, after

    def export_dependent(self, session: Session, view: RunView) -> dict[str, Any]:
        """Return updates of the tabs Download and Try it, which depend on whether the run was exported."""
        from ..downloads import available_downloads

        has_kit = view.has_kit()
        export_s = format_duration(self._service.timings.export_s(view.report.network))
        last = len(view.frames) - 1
        return {
            "downloads": downloads.downloads(session.id, available_downloads(session)),
            "export_box": gr.Column(visible=view.refined and not self._service.examples.owns(session)),
            "make_kit": gr.Button(
                value=f"Export again ({export_s})" if has_kit else f"Export the network ({export_s})",
                variant="secondary" if has_kit else "primary",
                visible=True,
            ),
            "export_live": "",
            "try_box": gr.Column(visible=has_kit),
            "try_missing": gr.Column(visible=not has_kit),
            "try_words": try_it.instructions(len(view.frames)),
            "try_frame": gr.Slider(minimum=0, maximum=max(last, 1), value=last, step=1),
            "try_result": "",
            "kit_link": try_it.kit_link(session.id) if has_kit else "",
        }
