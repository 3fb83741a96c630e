"""The exported network on a photo, or on a frame of the clip."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sfmttr.errors import SfmttrError

from ..jobs import INTERNAL_ERROR
from ..views import common, try_it

if TYPE_CHECKING:
    import numpy as np

    from ..run_view import RunView
    from ..service import Service
    from ..sessions import Session

_log = logging.getLogger(__name__)


class TryItHandlers:
    """Events of the Try it tab."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def show_depth(self, key: str | None, picture: str | None, frame: float, variant: str) -> str:
        """Return the depth of a photo, or else of a frame of the clip, as HTML."""
        try:
            session = self._service.finished(key)
            rgb, depth, facts, view = self.predict(session, picture, int(frame), variant)
        except SfmttrError as error:
            return common.notice(str(error))
        except Exception:  # noqa: BLE001 - a visitor gets a sentence, the log the rest
            _log.exception("a photo could not be predicted")
            return common.notice(INTERNAL_ERROR)
        return try_it.prediction(rgb, depth, view, facts)

    def predict(
        self, session: Session, picture: str | None, frame: int, variant: str
    ) -> tuple[np.ndarray, np.ndarray, list[str], RunView]:
        """Return (photo, depth, facts about the prediction, run). Raises `SfmttrError`."""
        from .. import onnx_inference
        from ..run_view import view_of

        view = view_of(session)
        rgb = (
            onnx_inference.read_photo(Path(picture), self._service.config.video)
            if picture
            else onnx_inference.read_frame(view, frame)
        )
        depth, facts = onnx_inference.depth_of(session, rgb, variant)
        return rgb, depth, facts, view
