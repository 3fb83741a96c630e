"""Finding, fetching and reading weights, against a server on this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from sfmttr.errors import Cancelled, WeightsError
from sfmttr.networks import weights
from sfmttr.networks.weights import (
    WeightFile,
    apply_state,
    fetch,
    find,
    read_checkpoint,
    read_safetensors,
    weights_folder,
)
from sfmttr.types import Progress

CONTENT = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".pth", content)
        archive.writestr("../outside.txt", b"not wanted")
    return stream.getvalue()


ANSWERS = {
    "/good": CONTENT,
    "/short": CONTENT[:100_000],
    "/parts.zip": zipped(HR__encoder=b"encoder", HR__depth=b"depth", **{"..__..__outside": b"escaped"}),
    "/other.zip": zipped(HR__pose=b"pose"),
    "/damaged.zip": zipped(HR__encoder=b"encoder")[:60],
}


class Handler(BaseHTTPRequestHandler):
    """Gives `ANSWERS`; /short ends early, anything else is not there."""

    def do_GET(self) -> None:
        if self.path not in ANSWERS:
            self.send_error(404)
            return
        content = ANSWERS[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT if self.path == "/short" else content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFMTTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SFMTTR_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def file_at(url: str | None, sha256: str | None = SHA256) -> WeightFile:
    return WeightFile("net.pth", url, sha256, "https://example.org/net")


def put(folder: Path, name: str = "net.pth", content: bytes = CONTENT) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ------------------------------------------------------------------------------------------- find


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_at(None)
    assert find(file) is None
    cached = put(weights_folder())
    assert weights_folder() == tmp_path / "cache" / "weights"
    assert find(file) == cached
    monkeypatch.setenv("SFMTTR_WEIGHTS", str(tmp_path / "environment"))
    assert find(file) == cached
    from_environment = put(tmp_path / "environment")
    assert find(file) == from_environment
    given = put(tmp_path / "given")
    assert find(file, tmp_path / "given") == given


def test_file_is_found_as_the_archive_unpacks(tmp_path: Path) -> None:
    path = put(tmp_path, "unpacked/s/encoder.pth")
    assert find(WeightFile("net.pth", None, None, "", ("unpacked/s/encoder.pth",)), tmp_path) == path


def test_missing_without_address_says_what_from_where_into_which_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"net\.pth.*https://example\.org/net.*given"):
        fetch(file_at(None), tmp_path / "given")


def test_changed_file_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    path = put(weights_folder(), content=b"my own")
    with caplog.at_level(logging.WARNING):
        assert fetch(file_at(None)) == path
    assert "not the published file" in caplog.text


# --------------------------------------------------------------------------------------- download


def test_download_arrives_and_is_not_repeated(server: str) -> None:
    reports: list[Progress] = []
    path = fetch(file_at(f"{server}/good"), on_progress=reports.append)
    assert path == weights_folder() / "net.pth"
    assert path.read_bytes() == CONTENT
    assert reports[-1] == Progress("weights", len(CONTENT), len(CONTENT), "net.pth")
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert fetch(file_at(f"{server}/gone")) == path


@pytest.mark.parametrize(
    ("page", "sha256", "reason"),
    [
        ("/short", SHA256, "ended after 100000 of"),
        ("/short", None, "ended after 100000 of"),
        ("/gone", SHA256, "404"),
        ("/good", "0" * 64, "sha256"),
    ],
)
def test_failed_download_leaves_nothing(server: str, page: str, sha256: str | None, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        fetch(file_at(server + page, sha256))
    for part in ("net.pth", server + page, "https://example.org/net", str(weights_folder())):
        assert part in str(caught.value)
    assert list(weights_folder().iterdir()) == []


@pytest.mark.parametrize("path", ["good", "parts.zip"])
def test_a_full_disk_is_said_and_leaves_nothing(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = file_at(f"{server}/{path}") if path == "good" else part_of(f"{server}/{path}")
    with pytest.raises(WeightsError, match="is full; free some space"):
        fetch(file)
    assert not [left for left in weights_folder().rglob("*") if left.is_file()]


def test_unreachable_server() -> None:
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch(file_at("http://127.0.0.1:9/nobody"))


def test_interrupted_download_leaves_nothing_and_starts_again(server: str) -> None:
    def cancel(progress: Progress) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fetch(file_at(f"{server}/good"), on_progress=cancel)
    assert list(weights_folder().iterdir()) == []
    assert fetch(file_at(f"{server}/good")).read_bytes() == CONTENT


def test_unverified_download_is_said(server: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fetch(file_at(f"{server}/good", None))
    assert "unverified" in caplog.text


# ---------------------------------------------------------------------------------------- archives


def part_of(url: str, part: str = "encoder") -> WeightFile:
    return WeightFile(f"net_HR/{part}.pth", None, None, "https://example.org/net", archive=url)


def test_archive_is_fetched_once_for_all_its_parts(server: str, tmp_path: Path) -> None:
    encoder = fetch(part_of(f"{server}/parts.zip"))
    assert encoder == weights_folder() / "net_HR" / "encoder.pth"
    assert encoder.read_bytes() == b"encoder"
    depth = fetch(part_of("http://127.0.0.1:1/nowhere.zip", "depth"))
    assert depth.read_bytes() == b"depth"
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    folder = "cache/weights/net_HR"
    assert kept == [f"{folder}/depth.pth", f"{folder}/encoder.pth", f"{folder}/outside.pth"]


@pytest.mark.parametrize("name", ["other.zip", "damaged.zip", "good", "nowhere.zip"])
def test_archive_without_the_file_leaves_no_half_of_it(server: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"net_HR/encoder\.pth could not be downloaded.*https://example\.org/net"):
        fetch(part_of(f"{server}/{name}"))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"pose.pth", "outside.pth"}


def test_archive_that_would_fill_the_disk_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_MOST_UNPACKED_BYTES", 5)
    with pytest.raises(WeightsError, match="more than networks have"):
        fetch(part_of(f"{server}/parts.zip"))


def test_what_a_person_has_to_do_is_said(tmp_path: Path) -> None:
    file = WeightFile("net.pth", None, None, "https://example.org", how="open https://drive.example.org, download net")
    with pytest.raises(WeightsError, match=r"open https://drive\.example\.org, download net and put it into .*given"):
        fetch(file, tmp_path / "given")


# ------------------------------------------------------------------------------------------- read


class Malicious:
    def __reduce__(self) -> tuple:
        return print, ("code ran",)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"weight": Malicious()}, tmp_path / "net.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious()))
    for name in ("net.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="more than weights"):
            read_checkpoint(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_damaged_files(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    for content in (b"", b"\x80", CONTENT, whole[:500], whole[: len(whole) // 2], whole[:-1]):
        path = put(tmp_path, "damaged.pth", content)
        with pytest.raises(WeightsError, match=r"damaged\.pth"):
            read_checkpoint(path)
        with pytest.raises(WeightsError, match=r"damaged\.pth"):
            read_safetensors(path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pth")


def test_state_must_fit_exactly() -> None:
    network = nn.Linear(3, 2)
    right = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    apply_state(network, right, "net.pth")
    assert torch.equal(network.weight, right["weight"])
    wrong = [
        ({"weight": right["weight"]}, "bias missing"),
        (right | {"height": 192}, "height unexpected"),
        (right | {"bias": torch.ones(5)}, "bias of another shape"),
        (right | {"bias": 1}, "bias of another shape"),
        ({f"k{i}": right["bias"] for i in range(9)}, r"k0, k1, k2, k3 and 5 more unexpected"),
    ]
    for state, reason in wrong:
        with pytest.raises(WeightsError, match=reason):
            apply_state(network, state, "net.pth")
