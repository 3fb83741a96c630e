"""An HTTP server on this machine that stands in for the Hub, and the files of a small model for it.

It answers what the library and `sfmttr.networks.huggingface.download` ask: what a model holds at a revision, and its
files. Like the Hub it redirects large files (those of LFS: here every `.safetensors` and `.bin`) to another host, by an
address that carries a secret. It records every request, and faults can be set.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors.numpy

SECRET = "signature-that-nobody-may-see"
CHUNK_BYTES = 1 << 14
README = b"---\nlicense: apache-2.0\ntags:\n- depth-estimation\n---\n# A model\n"
CONFIG = {"model_type": "depth_anything", "depth_estimation_type": "relative"}
PREPROCESSOR = {"do_normalize": True}


def weights(seed: int = 0, names: tuple[str, ...] = ("a", "b"), size: int = 30_000) -> bytes:
    """A good safetensors file: `size` float32 a name."""
    rng = np.random.default_rng(seed)
    return safetensors.numpy.save({name: rng.random(size, dtype=np.float32) for name in names})


def model_files(**changes: bytes | None) -> dict[str, bytes]:
    """Files of a good model in one piece; `changes` by name with `__` for `.`, None leaves one out."""
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "preprocessor_config.json": json.dumps(PREPROCESSOR).encode(),
        "README.md": README,
        "model.safetensors": weights(),
        "pytorch_model.bin": b"\x80\x04never fetched",
        "modeling_depth.py": b"raise SystemExit('remote code ran')",
        ".gitattributes": b"*.safetensors filter=lfs\n",
    }
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    return {name: content for name, content in files.items() if content is not None}


def sharded_files(shards: Mapping[str, bytes] | None = None, weight_map: object = None) -> dict[str, bytes]:
    """Files of a model in shards, each holding one tensor."""
    if shards is None:
        shards = {f"model-0000{i}-of-00002.safetensors": weights(i, (name,)) for i, name in ((1, "a"), (2, "b"))}
    if weight_map is None:
        weight_map = dict(zip("ab", shards, strict=True))
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return model_files(model__safetensors=None) | {"model.safetensors.index.json": index} | dict(shards)


@dataclass
class Repository:
    """One model: its commits, and which of them each branch and tag is."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def push(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Add a commit and let `ref` be it; returns its hash."""
        content = f"{len(self.commits)} {sorted(files)}".encode()
        commit = hashlib.sha1(content).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        return commit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Without the query."""
    range: str | None
    authorized: bool
    encoding: str | None


@dataclass
class Faults:
    """Faults of the server."""

    cut: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By name of a file: after how many bytes the next answers break off."""
    status: dict[str, int] = field(default_factory=dict)
    """By a part of the path: answered with this status."""
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """By name of a file: the size that is listed for it."""
    no_ranges: bool = False
    """Always send whole files."""
    corrupt: set[str] = field(default_factory=set)
    """Names of files whose last byte arrives changed."""
    stall: str | None = None
    """Part of the path whose requests are not answered until `release` is set, for half a minute at most."""
    release: threading.Event = field(default_factory=threading.Event)
    html: bool = False
    """Answer everything with a login page."""


class HubServer:
    """The server; `url` is its `HF_ENDPOINT`."""

    def __init__(self, httpd: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{httpd.server_port}"
        self.other_url = f"http://localhost:{httpd.server_port}"
        """Where large files lie: another host by name."""
        self.repositories: dict[str, Repository] = defaultdict(Repository)
        self.faults = Faults()
        self.requests: list[Request] = []

    def push(self, name: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        return self.repositories[name].push(files, ref)

    def asked_for(self) -> list[str]:
        """Names of the files that were asked for, in order; redirections count once."""
        return [request.path.rpartition("/")[2] for request in self.requests if "/resolve/" in request.path]

    def ranges(self) -> list[str | None]:
        """Requests for the contents of large files."""
        return [request.range for request in self.requests if request.path.startswith("/large/")]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run it in a thread."""
    httpd = _QuietServer(("127.0.0.1", 0), _Handler)
    httpd.hub = HubServer(httpd)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield httpd.hub
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def use_hub(url: str, cache: str, patch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, which reads its environment once, ask `url` and use `cache`, with no token and no proxy."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        patch.delenv(name, raising=False)
        patch.delenv(name.upper(), raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}.no-token")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    close_session()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    server: _QuietServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.server.hub
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.requests.append(
            Request(
                self.command,
                path,
                self.headers.get("Range"),
                self.headers.get("Authorization") is not None,
                self.headers.get("Accept-Encoding"),
            )
        )
        if hub.faults.stall is not None and hub.faults.stall in path:
            hub.faults.release.wait(30)
        for part, status in hub.faults.status.items():
            if part in path:
                self.answer(status, b"trouble at " + self.path.encode())
                return
        if hub.faults.html:
            self.answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})
        elif path.startswith("/api/models/"):
            self.info(path)
        elif path.startswith("/large/"):
            self.content(*path.removeprefix("/large/").rsplit("/", 2))
        elif "/resolve/" in path:
            repository, _, rest = path[1:].partition("/resolve/")
            self.file(repository, *rest.split("/", 1))
        else:
            self.answer(404)

    def info(self, path: str) -> None:
        hub = self.server.hub
        name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if name not in hub.repositories:
            self.answer(401, headers={"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        repository = hub.repositories[name]
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for file, content in repository.commits[commit].items():
            size = hub.faults.listed_sizes.get(file, len(content))
            entry: dict[str, object] = {"rfilename": file, "size": size, "blobId": _git_sha1(content)}
            if _is_large(file):
                entry["lfs"] = {"size": size, "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
            siblings.append(entry)
        answer = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "gated": repository.gated}
        self.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def file(self, name: str, revision: str, file: str) -> None:
        repository = self.server.hub.repositories[name]
        commit = repository.refs.get(revision, revision)
        if repository.gated:
            self.answer(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif file not in repository.commits.get(commit, {}):
            self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
        elif _is_large(file):
            place = f"{self.server.hub.other_url}/large/{name}/{commit}/{file}?signature={SECRET}"
            checksum = hashlib.sha256(repository.commits[commit][file]).hexdigest()
            linked = {"X-Linked-Etag": f'"{checksum}"', "X-Linked-Size": str(len(repository.commits[commit][file]))}
            self.answer(302, headers={"Location": place, "X-Repo-Commit": commit} | linked)
        else:
            self.content(name, commit, file)

    def content(self, name: str, commit: str, file: str) -> None:
        hub = self.server.hub
        content = hub.repositories[name].commits[commit][file]
        etag = hashlib.sha256(content).hexdigest() if _is_large(file) else _git_sha1(content)
        if file in hub.faults.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        status, headers = 200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        asked = self.headers.get("Range")
        if asked is not None and not hub.faults.no_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.answer(416)
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        cuts = hub.faults.cut[file]
        self.answer(status, content, headers, sent=cuts.pop(0) if cuts else None)

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, sent: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[:sent]
        for start in range(0, len(body), CHUNK_BYTES):
            self.wfile.write(body[start : start + CHUNK_BYTES])

    def log_message(self, format: str, *args: object) -> None:
        pass


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
