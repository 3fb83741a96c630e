"""Serve this folder to a browser on this machine: python serve.py [PORT]

Any static file server will do. This one also sends the two headers that let a page use several threads, and the types
that browsers ask of scripts, which some systems have wrong.
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".md": "text/plain; charset=utf-8",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about requests."""


def make_server(port: int) -> ThreadingHTTPServer:
    """For this machine alone; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(Path(__file__).resolve().parent)))


def main() -> int:
    try:
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
        server = make_server(port)
    except (ValueError, OverflowError, OSError) as error:
        print(f"serve: cannot serve there ({error}); give another port: python serve.py 8001", file=sys.stderr)
        return 2
    print(f"http://localhost:{server.server_port}/   (Ctrl-C ends)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
