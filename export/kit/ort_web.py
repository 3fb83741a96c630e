"""onnxruntime-web, which runs the kit's page: four files of one npm package at one version.

A kit either brings them along (fetched from the npm registry once, then kept in the cache) or tells the page to fetch
them from a public CDN that serves the same package. Either way their hashes are fixed here, and checked before use.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfmttr.io.atomic import atomic_file
from sfmttr.networks.weights import cache_folder

from ..errors import ExportError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
TARBALL_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""As the registry lists it, in base64."""
CDN = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"
"""Serves the files of npm packages unchanged, with the headers that isolated pages need."""
DEFAULT_REGISTRY = "https://registry.npmjs.org"
_TIMEOUT_S = 60.0


class WebRuntimeError(ExportError):
    """The page's runtime cannot be had, or is not what it should be."""


@dataclass(frozen=True)
class RuntimeFile:
    """One file of the package's `dist/`."""

    name: str
    bytes: int
    sha384: str
    """In base64, as subresource integrity has it."""


@dataclass(frozen=True)
class RuntimeBuild:
    """Files of onnxruntime-web for one provider: a script bundle and its WebAssembly."""

    script: RuntimeFile
    binary: RuntimeFile


BUILDS: Mapping[str, RuntimeBuild] = {
    "wasm": RuntimeBuild(
        RuntimeFile(
            "ort.wasm.bundle.min.mjs", 73_054, "PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"
        ),
        RuntimeFile(
            "ort-wasm-simd-threaded.wasm",
            14_239_897,
            "vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        ),
    ),
    "webgpu": RuntimeBuild(
        RuntimeFile(
            "ort.webgpu.bundle.min.mjs", 117_732, "1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"
        ),
        RuntimeFile(
            "ort-wasm-simd-threaded.asyncify.wasm",
            26_781_914,
            "EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        ),
    ),
}
FILES = tuple(file for build in BUILDS.values() for file in (build.script, build.binary))


def read_files() -> dict[str, bytes]:
    """Content of every file of `FILES` by name, from the cache, else from the registry.

    Raises `WebRuntimeError` when the package cannot be fetched, or is not the one that is pinned.
    """
    tarball = cache_folder() / "npm" / f"{PACKAGE}-{VERSION}.tgz"
    if not (tarball.is_file() and _sha512(tarball) == TARBALL_SHA512):
        _download(tarball)
    return _unpack(tarball)


def registry() -> str:
    """Address of the npm registry: the environment's, else what npm is set up with, else the public one."""
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if address := os.environ.get(name, "").strip():
            return address.rstrip("/")
    npm = shutil.which("npm")
    if npm is None:
        return DEFAULT_REGISTRY
    try:
        asked = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return DEFAULT_REGISTRY
    address = asked.stdout.strip().rstrip("/")
    return address if urllib.parse.urlsplit(address).scheme in ("http", "https") else DEFAULT_REGISTRY


def _sha512(path: Path) -> str:
    with path.open("rb") as stream:
        return base64.b64encode(hashlib.file_digest(stream, "sha512").digest()).decode()


def _download(tarball: Path) -> None:
    url = f"{registry()}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    try:
        with atomic_file(tarball) as part:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, part.open("wb") as target:
                shutil.copyfileobj(response, target)
            found = _sha512(part)
            if found != TARBALL_SHA512:
                raise WebRuntimeError(
                    f"{PACKAGE} {VERSION} from {_without_secrets(url)} is not the published package (sha512 {found}): "
                    "use another registry, or leave --bundle-runtime out"
                )
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        raise WebRuntimeError(
            f"{PACKAGE} {VERSION} could not be fetched from {_without_secrets(url)} ({error}): connect to the network, "
            "set NPM_CONFIG_REGISTRY, or leave --bundle-runtime out (the page then fetches it itself)"
        ) from error


def _without_secrets(url: str) -> str:
    """`url` without the user and password that an address may hold."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _unpack(tarball: Path) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for file in FILES:
            member = archive.extractfile(f"package/dist/{file.name}")
            content = b"" if member is None else member.read()
            if sha384(content) != file.sha384 or len(content) != file.bytes:
                raise WebRuntimeError(f"{file.name} of {PACKAGE} {VERSION} is not what is pinned for it in {__name__}")
            contents[file.name] = content
    return contents


def sha384(content: bytes) -> str:
    """In base64, as subresource integrity has it."""
    return base64.b64encode(hashlib.sha384(content).digest()).decode()
