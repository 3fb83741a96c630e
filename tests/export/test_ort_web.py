"""The browser's runtime: asked of the right registry, believed only when its hash is right, fetched once."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.kit import ort_web
from export.kit.ort_web import DEFAULT_REGISTRY, RuntimeBuild, RuntimeFile, WebRuntimeError


@dataclass
class Registry:
    """An npm registry with one package."""

    package: bytes = b""
    asked: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """A registry on this machine, whose package is the one that is pinned; and a cache of the test's own."""
    files = {f"file-{i}": bytes([i]) * 1000 for i in range(4)}
    pins = [RuntimeFile(name, len(content), ort_web.sha384(content)) for name, content in files.items()]
    result = Registry(tarball({f"package/dist/{name}": content for name, content in files.items()}))
    monkeypatch.setattr(ort_web, "FILES", tuple(pins))
    monkeypatch.setattr(ort_web, "BUILDS", {"wasm": RuntimeBuild(*pins[:2]), "webgpu": RuntimeBuild(*pins[2:])})
    digest = base64.b64encode(hashlib.sha512(result.package).digest()).decode()
    monkeypatch.setattr(ort_web, "TARBALL_SHA512", digest)
    monkeypatch.setenv("SFMTTR_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            result.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(result.package)))
            self.end_headers()
            self.wfile.write(result.package)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    result.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", result.address + "/")
    yield result
    server.shutdown()
    server.server_close()


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_fetched_once(registry: Registry) -> None:
    first = ort_web.read_files()
    assert first == {f"file-{i}": bytes([i]) * 1000 for i in range(4)}
    assert ort_web.read_files() == first
    assert registry.asked == ["/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"]


def test_another_package_is_refused_and_not_kept(registry: Registry, tmp_path: Path) -> None:
    registry.package = tarball({"package/dist/file-0": b"evil"})
    with pytest.raises(WebRuntimeError, match="not the published package"):
        ort_web.read_files()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_cache_is_fetched_anew(registry: Registry, tmp_path: Path) -> None:
    ort_web.read_files()
    (cached,) = (tmp_path / "cache" / "npm").iterdir()
    cached.write_bytes(cached.read_bytes()[:-1])
    assert len(ort_web.read_files()) == 4
    assert len(registry.asked) == 2


def test_a_file_that_is_not_as_pinned_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = (RuntimeFile("file-0", 1000, ort_web.sha384(b"something else")), *ort_web.FILES[1:])
    monkeypatch.setattr(ort_web, "FILES", pins)
    with pytest.raises(WebRuntimeError, match=r"file-0 .* is not what is pinned"):
        ort_web.read_files()


def test_unreachable_registry_is_named_without_its_password(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(WebRuntimeError, match=r"from http://127\.0\.0\.1:9/onnxruntime-web") as caught:
        ort_web.read_files()
    assert "secret" not in str(caught.value)
    assert "--bundle-runtime" in str(caught.value)


# ------------------------------------------------------------------------------------------ registry


def without_environment(patch: pytest.MonkeyPatch) -> None:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        patch.delenv(name, raising=False)


def test_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    without_environment(monkeypatch)
    monkeypatch.setenv("npm_config_registry", "https://npm.example.org/")
    assert ort_web.registry() == "https://npm.example.org"


def test_no_npm_means_the_public_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    without_environment(monkeypatch)
    monkeypatch.setattr(ort_web.shutil, "which", lambda _: None)
    assert ort_web.registry() == DEFAULT_REGISTRY


@pytest.mark.parametrize(
    ("said", "expected"),
    [("https://mirror.example.org/npm/\n", "https://mirror.example.org/npm"), ("undefined\n", DEFAULT_REGISTRY)],
)
def test_npm_is_asked(said: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_environment(monkeypatch)
    monkeypatch.setattr(ort_web.shutil, "which", lambda _: "/usr/bin/npm")
    answer = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr(ort_web.subprocess, "run", lambda *_, **__: answer)
    assert ort_web.registry() == expected


@pytest.mark.slow
def test_pins_are_the_published_files() -> None:
    try:
        files = ort_web.read_files()
    except WebRuntimeError as error:
        pytest.skip(f"no npm registry: {error}")
    assert {name: len(content) for name, content in files.items()} == {f.name: f.bytes for f in ort_web.FILES}
