"""The form: clip, network, settings and preview."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from sfmttr.errors import SfmttrError

from ..clip_preview import ClipPreview, preview_clip, warnings
from ..environment import is_local
from ..eta import total_s
from ..form import RunRequest, SelectedClip, check_intrinsics
from ..jobs import INTERNAL_ERROR
from ..network_choices import OTHER
from ..uploads import keep_upload
from ..views import common, inputs

if TYPE_CHECKING:
    from sfmttr.config import RunConfig

    from ..service import Service

_log = logging.getLogger(__name__)
# For all visitors together: each preview decodes a part of the clip.
_PREVIEWS_AT_ONCE = 8
# Each holds a few small frames.
_PREVIEWS_KEPT = 32


class InputHandlers:
    """Events of the form."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._previewing = threading.BoundedSemaphore(_PREVIEWS_AT_ONCE)
        self._cached_preview = lru_cache(maxsize=_PREVIEWS_KEPT)(preview_clip)

    def resolve(self, values: Sequence[Any], request: gr.Request | None) -> RunConfig:
        """Return the configuration of the run that the form describes.

        Raises `SfmttrError` for values that make no sense or that this visitor may not use.
        """
        parsed = RunRequest.parse(values)
        return parsed.run_config(self._service.config, self._network(parsed.network, parsed.other, request))

    def _network(self, network: str, other: str, request: gr.Request | None) -> str:
        """Return the name of the chosen network. Raises `NetworkError`."""
        folders = self._service.config.folders and is_local(request)
        return self._service.choices.resolve(network, other, folders=folders)

    def about(self, network: str, other: str, request: gr.Request | None = None) -> Iterator[tuple[Any, str]]:
        """Describe a network that was chosen or typed: (field for a model id, description with its license)."""
        field = gr.Textbox(visible=network == OTHER)
        if network == OTHER and not (other or "").strip():
            yield field, ""
            return
        try:
            name = self._network(network or "", other or "", request)
            if network == OTHER:
                yield field, inputs.looking_up(name)
            yield field, inputs.about(self._service.choices.describe(name))
        except SfmttrError as error:
            yield field, common.notice(str(error))
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a network could not be looked up")
            yield field, common.notice(INTERNAL_ERROR)

    def upload(self, files: list[str] | None, *form: Any) -> tuple[Any, ...]:
        """Keep and preview an uploaded clip: (selected clip, preview, run button)."""
        if not files:
            return None, "", gr.Button(interactive=False)
        config = self._service.config
        session = self._service.store.new()
        try:
            clip = keep_upload(files, session.folder, config.max_upload_bytes, config.max_files)
            preview = self._preview(clip, RunRequest.parse(form))
        except SfmttrError as error:
            self._service.store.delete(session)
            return None, common.notice(str(error)), gr.Button(interactive=False)
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("an upload could not be previewed")
            self._service.store.delete(session)
            return None, common.notice(INTERNAL_ERROR), gr.Button(interactive=False)
        return SelectedClip(clip), preview, gr.Button(interactive=True)

    def settings(self, selected: SelectedClip | None, *form: Any) -> tuple[Any, ...]:
        """Preview again after a change of form or clip: (preview, run button)."""
        if selected is None:
            return gr.skip(), gr.Button(interactive=False)
        try:
            parsed = RunRequest.parse(form)
            check_intrinsics(parsed.intrinsics)
            return self._preview(selected.clip, parsed), gr.Button(interactive=True)
        except SfmttrError as error:
            return common.notice(str(error)), gr.Button(interactive=False)

    def example(self, name: str, *form: Any) -> tuple[Any, ...]:
        """Select an example: (selected clip, preview, run button, cleared upload, key of its result, live)."""
        examples = self._service.examples
        example = examples.by_name(name)
        preview = self._preview(example.clip, RunRequest.parse(form))
        ready = examples.ready(example)
        key = examples.session(example).id if ready else None
        text = "The result of this example is still being computed; press Refine to run it live."
        live = "" if ready else common.notice(text, "note")
        return SelectedClip(example.clip, name), preview, gr.Button(interactive=True), None, key, live

    def clip_preview(self, clip: Path, parsed: RunRequest) -> ClipPreview:
        """Return a preview of the clip, cached for equal settings. Raises `SfmttrError`."""
        with self._previewing:
            return self._cached_preview(clip, parsed.video(self._service.config))

    def _preview(self, clip: Path, parsed: RunRequest) -> str:
        """Return the preview as HTML. Raises `SfmttrError`."""
        preview = self.clip_preview(clip, parsed)
        stages = self._stages_s(preview, parsed)
        seconds = None if stages is None else total_s(stages)
        queue = self._service.queue
        ahead = queue.waiting + (0 if queue.idle else 1)
        return inputs.preview(preview, seconds, ahead, list(warnings(preview, self._service.config)))

    def _stages_s(self, preview: ClipPreview, parsed: RunRequest) -> dict[str, float] | None:
        try:
            name = self._service.choices.resolve(parsed.network, parsed.other, folders=False)
        except SfmttrError:  # perhaps a folder: its timings are found by its name alone
            name = (parsed.other if parsed.network == OTHER else parsed.network).strip()
        return self._service.stages_s(preview.frames, name, parsed.preset)
