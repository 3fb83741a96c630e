"""Routes of the page's own elements, in addition to Gradio's: pictures of frames, downloads, the kit's page.

Only a run's id opens it, and no path of a request ever reaches the disk.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

from sfmttr.errors import SfmttrError

from .service import Service
from .sessions import Session

STATIC = Path(__file__).with_name("static")
_PICTURES = frozenset(path.name for path in STATIC.glob("*.webp"))
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".wasm": "application/wasm",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".py": "text/plain; charset=utf-8",
}
# Without these headers the kit's page may not use several threads.
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_CACHED = {"Cache-Control": "private, max-age=3600"}


def make_router(service: Service) -> APIRouter:
    """Return the routes over one service."""
    router = APIRouter()

    def session_of(id: str) -> Session:
        session = service.find(id)
        if session is None or not session.finished:
            raise HTTPException(404, "This run was not found: results are deleted after a day.")
        return session

    @router.get("/page/{name}")
    def static(name: str) -> FileResponse:
        if name not in _PICTURES:
            raise HTTPException(404)
        return FileResponse(STATIC / name, headers=_CACHED)

    @router.get("/view/{id}/file/{name}")
    def file(id: str, name: str) -> FileResponse:
        from . import downloads

        try:
            path = downloads.download_path(session_of(id), name)
        except (KeyError, SfmttrError):
            raise HTTPException(404, "There is no such file of this run.") from None
        return FileResponse(path, filename=None if name.endswith((".mp4", ".png")) else name)

    @router.get("/view/{id}/kit/{path:path}")
    def kit(id: str, path: str) -> Response:
        kit = session_of(id).run / "kit.zip"
        try:
            with zipfile.ZipFile(kit) as archive:
                content = archive.read(path or "index.html")
        except (KeyError, OSError, zipfile.BadZipFile):
            raise HTTPException(404, "There is no such file in this kit.") from None
        kind = _TYPES.get(Path(path or "index.html").suffix, "application/octet-stream")
        return Response(content, media_type=kind, headers=_ISOLATED)

    @router.get("/view/{id}/{layer}/{frame}.webp")
    def picture(id: str, layer: str, frame: int) -> Response:
        from . import run_view

        try:
            content = run_view.webp(session_of(id), layer, frame, service.config.picture_width)
        except (KeyError, SfmttrError):
            raise HTTPException(404, "There is no such picture of this run.") from None
        return Response(content, media_type="image/webp", headers=_CACHED)

    return router
