"""Models of the Hub and of folders, against a server on this machine that stands in for the Hub."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sfmttr.errors import Cancelled, NetworkError, SfmttrError, WeightsError
from sfmttr.networks.huggingface import download
from sfmttr.networks.huggingface.model_card import ModelCard, read_card
from sfmttr.networks.huggingface.model_files import fetch_weights, is_cached
from sfmttr.networks.huggingface.model_id import ModelLocation
from sfmttr.types import Progress
from tests.support.hub_server import (
    CONFIG,
    PREPROCESSOR,
    SECRET,
    Faults,
    HubServer,
    hub_server,
    model_files,
    sharded_files,
    use_hub,
    weights,
)

NAME = "org/depth"
LOCATION = ModelLocation(NAME, None)
ALLOWED = {"config.json", "preprocessor_config.json", "README.md", "model.safetensors", "model.safetensors.index.json"}
FIRST_SHARD, SECOND_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def running() -> Iterator[HubServer]:
    with hub_server() as server:
        yield server


@pytest.fixture
def server(running: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The server with nothing on it, no fault, and an empty cache."""
    running.repositories.clear()
    running.requests.clear()
    running.faults = Faults()
    use_hub(running.url, str(tmp_path / "hub"), monkeypatch)
    monkeypatch.setattr(download, "RETRY_PAUSE_S", 0.0)
    return running


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the Hub's address."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def get(source: ModelLocation = LOCATION) -> tuple[Path, ...]:
    return fetch_weights(source, read_card(source).revision)


def blobs() -> dict[str, Path]:
    return {path.name: path for path in Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*")}


def open_files() -> set[Path]:
    """By this process, where the system tells."""
    found = set()
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(entry.readlink())
    return found


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# ------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("depth-anything/Depth-Anything-V2-Small-hf", None),
        ("o/n@main", "main"),
        ("o/n@v1.0", "v1.0"),
        ("o/n@refs/pr/3", "refs/pr/3"),
        ("o/n@" + "a" * 40, "a" * 40),
    ],
)
def test_names_on_the_hub(text: str, revision: str | None) -> None:
    source = ModelLocation.parse(text)
    assert source == ModelLocation(text.partition("@")[0], None, revision)
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "name", "a/b/c", "/", "org/", "/no/such/folder", "./missing", "~nobody-has-this-name/x", "org/na me",
        "../org", "org/..", "org/a..b", "org/a--b", "org/x.git", "org/name\n", "org/na\0me", "https://huggingface.co/o/n",
        "org\\name", "org/" + "n" * 200, "x" * 100_000, "org/näme",
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused_in_one_short_line(text: str) -> None:
    if text == "/":
        text = "/nowhere/"
    with pytest.raises(NetworkError, match="ORG/NAME") as caught:
        ModelLocation.parse(text)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "revision",
    ["", "..", "a/../b", "../../x", "a//b", "/a", "a/", "-x", ".x", "a/.x", "a b", "a\n", "a\0", "a\\b", "a.", "x.lock",
     "a?b", "a%2e", "ä", "r" * 300],
)  # fmt: skip
def test_revisions_that_are_none(revision: str) -> None:
    for make in (
        lambda: ModelLocation.parse(f"org/name@{revision}"),
        lambda: ModelLocation("org/name", None, revision),
    ):
        with pytest.raises(NetworkError, match="revision"):
            make()


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "org" / "name"
    inner.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ModelLocation.parse("org/name") == ModelLocation("org/name", None)
    for text in ("./org/name", str(inner), "~/org/name", "org/../org/name", "org/name/"):
        source = ModelLocation.parse(text)
        assert source.repository is None
        assert source.folder is not None
        assert source.folder.is_absolute()
        assert source.folder.samefile(inner)
    assert ModelLocation.parse("org") == ModelLocation(None, tmp_path / "org")
    (tmp_path / "file").touch()
    with pytest.raises(NetworkError):
        ModelLocation.parse("./file")


def test_source_is_one_of_both(tmp_path: Path) -> None:
    for both in ((None, None), ("org/name", tmp_path)):
        with pytest.raises(ValueError, match="either"):
            ModelLocation(*both)
    with pytest.raises(NetworkError):
        ModelLocation(None, tmp_path, "main")
    with pytest.raises(NetworkError):
        ModelLocation("../up", None)


# ----------------------------------------------------------------------------------------- a model


def test_model_in_one_file(server: HubServer) -> None:
    commit = server.push(NAME, model_files())
    card = read_card(LOCATION)
    assert card == ModelCard(CONFIG, PREPROCESSOR, "apache-2.0", commit)
    assert server.asked_for() == ["config.json", "preprocessor_config.json", "README.md"]
    assert not is_cached(LOCATION)
    reports: list[Progress] = []
    (path,) = fetch_weights(LOCATION, card.revision, reports.append)
    assert path.read_bytes() == weights()
    assert path.name == "model.safetensors"
    assert is_cached(LOCATION)
    assert {(report.stage, report.total, report.note) for report in reports} == {
        ("weights", len(weights()), "model.safetensors")
    }
    sizes = [report.done for report in reports]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] == len(weights())
    assert len(set(sizes)) > 3
    assert set(server.asked_for()) <= ALLOWED
    files = [request for request in server.requests if not request.path.startswith("/api/")]
    assert {request.encoding for request in files} == {"identity"}


def test_model_in_shards(server: HubServer) -> None:
    files = sharded_files()
    server.push(NAME, files)
    reports: list[Progress] = []
    paths = fetch_weights(LOCATION, read_card(LOCATION).revision, reports.append)
    assert [path.name for path in paths] == [FIRST_SHARD, SECOND_SHARD]
    assert [path.read_bytes() for path in paths] == [files[FIRST_SHARD], files[SECOND_SHARD]]
    total = len(files[FIRST_SHARD]) + len(files[SECOND_SHARD])
    assert {report.total for report in reports} == {total}
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1].done == total
    assert {report.note for report in reports} == {FIRST_SHARD, SECOND_SHARD}
    assert set(server.asked_for()) <= ALLOWED | {FIRST_SHARD, SECOND_SHARD}


def test_second_time_nothing_is_fetched(server: HubServer) -> None:
    server.push(NAME, sharded_files())
    first = get()
    server.requests.clear()
    assert get() == first
    assert [request.path for request in server.requests] == [f"/api/models/{NAME}/revision/main"]


def test_commit_is_kept_though_main_moves(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    moved = server.push(NAME, model_files(model__safetensors=weights(7)))
    (path,) = fetch_weights(LOCATION, card.revision)
    assert path.read_bytes() == weights()
    assert read_card(LOCATION).revision == moved
    assert not is_cached(LOCATION)
    (path,) = get()
    assert path.read_bytes() == weights(7)


def test_tags_and_commits(server: HubServer) -> None:
    old = server.push(NAME, model_files(), ref="v1")
    new = server.push(NAME, model_files(model__safetensors=weights(7)))
    assert read_card(ModelLocation(NAME, None, "v1")).revision == old
    assert read_card(ModelLocation(NAME, None, old)).revision == old
    assert read_card(LOCATION).revision == new
    (path,) = get(ModelLocation(NAME, None, "v1"))
    assert path.read_bytes() == weights()
    assert is_cached(ModelLocation(NAME, None, "v1"))
    assert is_cached(ModelLocation(NAME, None, old))
    assert not is_cached(LOCATION)


def test_cache_is_the_librarys_own(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files fetched by one are found by the other."""
    from huggingface_hub import hf_hub_download, scan_cache_dir

    server.push(NAME, sharded_files())
    paths = get()
    server.requests.clear()
    assert hf_hub_download(NAME, FIRST_SHARD) == str(paths[0])
    assert all(request.method == "HEAD" for request in server.requests)
    (cached,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert cached.repo_id == NAME
    assert "main" in cached.refs
    other = "org/other"
    server.push(other, model_files())
    for name in ("config.json", "preprocessor_config.json", "README.md", "model.safetensors"):
        hf_hub_download(other, name)
    server.requests.clear()
    offline(monkeypatch)
    source = ModelLocation(other, None)
    assert is_cached(source)
    (path,) = get(source)
    assert path.read_bytes() == weights()
    assert server.requests == []


def test_token_goes_to_the_hub_alone(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    server.push(NAME, model_files())
    get()
    assert {request.path.startswith("/large/"): request.authorized for request in server.requests} == {
        False: True,
        True: False,
    }


def test_model_without_preprocessor_and_readme(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files(preprocessor_config__json=None, README__md=None))
    card = read_card(LOCATION)
    assert card.preprocessor is None
    assert card.licence == "not stated"
    offline(monkeypatch)
    assert read_card(LOCATION) == card


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("\ufeff---\r\nlicense: mit\r\n---\r\ntext", "mit"),
        ("---\nlicense: [mit, 'cc-by-nc-4.0']\n---\n", "mit, cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: LICENSE\n---\n", "apple-amlr (LICENSE)"),
        ("---\nlicense: other\nlicense_link: https://example.org\n---\n", "https://example.org"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: \"a\\e[31m\\n b\"\n---\n", "a[31m b"),
        ("---\nlicense: {a: b}\n---\n", "not stated"),
        ("---\nlicense:\n---\n", "not stated"),
        ("---\n- list\n---\n", "not stated"),
        ("# no front matter\nlicense: mit\n", "not stated"),
        ("", "not stated"),
        ("---\nlicense: mit\n", "unknown (README.md cannot be read)"),
        ("---\nlicense: [\n---\n", "unknown (README.md cannot be read)"),
        ("---\na: " + "[" * 10_000 + "\n---\n", "unknown (README.md cannot be read)"),
        ("---\nlicense: !!python/object/apply:os.system ['exit']\n---\n", "exit"),
        ("---\n" + "\n" * 900_000, "unknown (README.md cannot be read)"),
    ],
)  # fmt: skip
def test_licence(readme: str, licence: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files(README__md=readme.encode()))
    assert read_card(ModelLocation(None, folder)).licence == licence


def test_licence_is_a_short_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files(README__md=b"---\nlicense: " + b"x" * 9999 + b"\n---\n"))
    assert read_card(ModelLocation(None, folder)).licence == "x" * 200


def test_huge_readme_is_left_alone(server: HubServer) -> None:
    server.push(NAME, model_files(README__md=b"x" * 1_000_001))
    assert read_card(LOCATION).licence.startswith("unknown")
    assert "README.md" not in server.asked_for()


# ---------------------------------------------------------------------------------------- refusals


def test_pickles_are_refused_and_not_fetched(server: HubServer) -> None:
    server.push(NAME, model_files(model__safetensors=None))
    with pytest.raises(WeightsError, match=r"pickles \('pytorch_model\.bin'\), which can run code.*safetensors"):
        get()
    assert set(server.asked_for()) == {"config.json", "preprocessor_config.json", "README.md"}


def test_no_weights_at_all(server: HubServer) -> None:
    server.push(NAME, model_files(model__safetensors=None, pytorch_model__bin=None))
    with pytest.raises(WeightsError, match=r"holds neither model\.safetensors nor"):
        get()


def test_missing_repository(server: HubServer) -> None:
    with pytest.raises(NetworkError, match=r"the Hub has no model org/depth: check the spelling"):
        read_card(LOCATION)


def test_missing_revision(server: HubServer) -> None:
    server.push(NAME, model_files())
    with pytest.raises(NetworkError, match=r"org/depth has no revision 'v9': choose"):
        read_card(ModelLocation(NAME, None, "v9"))


def test_gated(server: HubServer) -> None:
    server.push(NAME, model_files())
    server.repositories[NAME].gated = True
    with pytest.raises(
        WeightsError, match=r"gated: accept its terms on https://huggingface\.co/org/depth, then log in"
    ):
        read_card(LOCATION)


@pytest.mark.parametrize("status", [401, 403])
def test_access_denied(server: HubServer, status: int) -> None:
    server.push(NAME, model_files())
    server.faults.status["/api/"] = status
    with pytest.raises(WeightsError, match="denies access to org/depth") as caught:
        read_card(LOCATION)
    assert server.url not in "".join(traceback.format_exception(caught.value))  # it may carry a password


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_in_trouble(server: HubServer, status: int) -> None:
    server.push(NAME, model_files())
    server.faults.status["/api/"] = status
    with pytest.raises(WeightsError, match=rf"answered {status} for org/depth.*try again later"):
        read_card(LOCATION)
    assert len(server.requests) == 1


def test_server_in_trouble_but_all_is_cached(server: HubServer) -> None:
    server.push(NAME, model_files())
    first = get()
    server.faults.status["/"] = 500
    assert get() == first


@pytest.mark.parametrize(("part", "status"), [("model.safetensors", 500), ("/large/", 503), ("/large/", 403)])
def test_server_in_trouble_while_downloading(server: HubServer, part: str, status: int) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    server.requests.clear()
    server.faults.status[part] = status
    with pytest.raises(WeightsError) as caught:
        fetch_weights(LOCATION, card.revision)
    assert str(caught.value).count("\n") == 0
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert server.asked_for() == ["model.safetensors"] * (1 if status == 403 else download.MAX_ATTEMPTS)


def test_server_that_does_not_answer(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.1)
    try:
        server.faults.stall = "/large/"
        with pytest.raises(WeightsError, match=r"the connection broke \(ReadTimeout\): try again later"):
            fetch_weights(LOCATION, card.revision)
        server.faults.stall = "/api/"
        with pytest.raises(WeightsError, match=r"could not be reached \(ReadTimeout\)"):
            fetch_weights(LOCATION, card.revision)
        assert read_card(LOCATION) == card  # of the cache
    finally:
        server.faults.release.set()


def test_login_page_in_place_of_the_hub(server: HubServer) -> None:
    server.push(NAME, model_files())
    server.faults.html = True
    with pytest.raises(WeightsError, match="is not the Hub"):
        read_card(LOCATION)
    server.faults.html = False
    first = get()
    server.faults.html = True
    assert get() == first


def test_login_that_cannot_be_read(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(WeightsError, match="login for the Hub cannot be read"):
        read_card(LOCATION)


def test_endpoint_that_is_no_address(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("nonsense", "http://[", "http://127.0.0.1:99999"):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(WeightsError, match="org/depth"):
            read_card(LOCATION)


# ------------------------------------------------------------------------------- without connection


@pytest.mark.parametrize("lost", [offline, disconnected])
def test_cache_serves_without_connection(
    server: HubServer, lost: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.push(NAME, sharded_files())
    card = read_card(LOCATION)
    paths = fetch_weights(LOCATION, card.revision)
    server.requests.clear()
    lost(monkeypatch)  # type: ignore[operator]
    with caplog.at_level(logging.INFO, logger="sfmttr"):
        assert read_card(LOCATION) == card
    assert card.revision in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert fetch_weights(LOCATION, card.revision) == paths
    assert is_cached(LOCATION)
    assert server.requests == []


@pytest.mark.parametrize(
    ("lost", "advice"), [(offline, "HF_HUB_OFFLINE is set"), (disconnected, "could not be reached.*connect")]
)
def test_nothing_cached_and_no_connection(
    server: HubServer, lost: object, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.push(NAME, model_files())
    with monkeypatch.context() as patch:
        lost(patch)  # type: ignore[operator]
        assert not is_cached(LOCATION)
        with pytest.raises(WeightsError, match=advice):
            read_card(LOCATION)
    card = read_card(LOCATION)  # the small files are there now, the weights are not
    lost(monkeypatch)  # type: ignore[operator]
    assert read_card(LOCATION) == card
    with pytest.raises(WeightsError, match=advice):
        fetch_weights(LOCATION, card.revision)
    with pytest.raises(WeightsError, match=advice):
        read_card(ModelLocation(NAME, None, "v2"))


def test_preprocessor_that_may_exist_is_not_taken_for_missing(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    server.push(NAME, model_files())
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(NAME, name)
    offline(monkeypatch)
    with pytest.raises(WeightsError, match=r"does not hold preprocessor_config\.json"):
        read_card(LOCATION)


# ---------------------------------------------------------------------------------------- downloads


def test_broken_download_goes_on_by_itself(server: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    server.push(NAME, model_files())
    server.faults.cut["model.safetensors"] = [100_000, 50_000]
    with caplog.at_level(logging.WARNING, logger="sfmttr"):
        (path,) = get()
    assert path.read_bytes() == weights()
    assert server.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert caplog.text.count("the download is resumed") == 2
    assert SECRET not in caplog.text


def test_broken_download_goes_on_next_time(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    server.faults.cut["model.safetensors"] = [100_000] + [0] * (download.MAX_ATTEMPTS - 1)
    with pytest.raises(WeightsError, match=r"model\.safetensors of org/depth could not be downloaded.*is resumed"):
        fetch_weights(LOCATION, card.revision)
    assert not is_cached(LOCATION)
    server.requests.clear()
    reports: list[Progress] = []
    (path,) = fetch_weights(LOCATION, card.revision, reports.append)
    assert path.read_bytes() == weights()
    assert server.ranges() == ["bytes=100000-"]
    assert reports[0].done == 100_000
    assert not any(name.endswith(".incomplete") for name in blobs())


def test_server_that_always_sends_all(server: HubServer) -> None:
    server.push(NAME, model_files())
    server.faults.no_ranges = True
    server.faults.cut["model.safetensors"] = [100_000]
    (path,) = get()
    assert path.read_bytes() == weights()
    assert len(server.ranges()) == 2


@pytest.mark.parametrize("rubbish", [b"x" * 100_000, b"x" * 1_000_000])
def test_rubbish_in_the_partial_file(server: HubServer, rubbish: bytes) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    checksum = hashlib.sha256(weights()).hexdigest()
    folder = next(iter(blobs().values())).parent
    (folder / f"{checksum}.incomplete").write_bytes(rubbish)
    if len(rubbish) < len(weights()):
        with pytest.raises(WeightsError, match=r"checksum is wrong.*try again"):
            fetch_weights(LOCATION, card.revision)
    server.requests.clear()
    (path,) = fetch_weights(LOCATION, card.revision)
    assert path.read_bytes() == weights()
    assert server.ranges() == [None]


def test_changed_on_the_way(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    server.faults.corrupt = {"model.safetensors"}
    with pytest.raises(WeightsError, match="arrived damaged"):
        fetch_weights(LOCATION, card.revision)
    assert not any("incomplete" in name for name in blobs())
    server.faults.corrupt = set()
    (path,) = fetch_weights(LOCATION, card.revision)
    assert path.read_bytes() == weights()


def test_more_is_sent_than_was_listed(server: HubServer) -> None:
    server.push(NAME, model_files())
    server.faults.listed_sizes["config.json"] = 10
    with pytest.raises(WeightsError, match="more was sent than the Hub lists"):
        read_card(LOCATION)
    assert all(path.stat().st_size <= 10 for path in blobs().values())


def test_cancel(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    enough = 60_000

    def cancel(progress: Progress) -> None:
        if progress.done >= enough:
            raise stop

    for stop in (Cancelled("stopped"), OSError(errno.ENOSPC, "the caller's own")):
        with pytest.raises(type(stop)) as caught:
            fetch_weights(LOCATION, card.revision, cancel)
        assert caught.value is stop
        (partial,) = [path for name, path in blobs().items() if name.endswith(".incomplete")]
        assert enough <= partial.stat().st_size < len(weights())
        assert partial not in open_files()
        enough += 60_000
    server.requests.clear()
    (path,) = fetch_weights(LOCATION, card.revision)
    assert path.read_bytes() == weights()
    (asked,) = server.ranges()
    assert asked is not None
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 120_000


def test_cancel_while_another_fetches_the_same(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    monkeypatch.setattr(download, "LOCK_POLL_S", 0.02)
    started, go_on = threading.Event(), threading.Event()
    paths: list[tuple[Path, ...]] = []

    def slow(progress: Progress) -> None:
        started.set()
        assert go_on.wait(30)

    def cancel(progress: Progress) -> None:
        raise Cancelled("stopped")

    first = threading.Thread(target=lambda: paths.append(fetch_weights(LOCATION, card.revision, slow)))
    first.start()
    assert started.wait(30)
    try:
        with pytest.raises(Cancelled):
            fetch_weights(LOCATION, card.revision, cancel)
    finally:
        go_on.set()
        first.join()
    assert paths[0][0].read_bytes() == weights()
    assert server.ranges() == [None]


def test_both_wait_for_one_download(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    monkeypatch.setattr(download, "LOCK_POLL_S", 0.02)
    paths: list[tuple[Path, ...]] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch_weights(LOCATION, card.revision))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert len(set(paths)) == 1
    assert server.ranges() == [None]


def test_disk_too_small(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    server.requests.clear()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match="make room, or set HF_HOME"):
        fetch_weights(LOCATION, card.revision)
    assert server.asked_for() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_fills_up(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    folder = next(iter(blobs().values())).parent
    (folder / f"{hashlib.sha256(weights()).hexdigest()}.incomplete").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"the disk is full.*HF_HOME"):
        fetch_weights(LOCATION, card.revision)


def test_cache_that_cannot_be_written(server: HubServer, tmp_path: Path) -> None:
    server.push(NAME, model_files())
    (tmp_path / "hub").write_text("a file where the cache should be")
    with pytest.raises(WeightsError, match=r"cannot be stored in .*HF_HOME"):
        read_card(LOCATION)


def test_too_large_is_known_before(server: HubServer) -> None:
    server.push(NAME, sharded_files())
    server.faults.listed_sizes |= {FIRST_SHARD: 7_000_000_000, SECOND_SHARD: 7_000_000_000}
    with pytest.raises(WeightsError, match=r"are 14\.0 GB, more than the 8 GB"):
        get()
    assert not {FIRST_SHARD, SECOND_SHARD} & set(server.asked_for())


# ------------------------------------------------------------------------------------ damaged files


@pytest.mark.parametrize("damage", [lambda whole: whole[:-100], lambda whole: b"\xff" * len(whole), lambda whole: b""])
def test_damaged_in_the_cache(server: HubServer, damage: object) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    (path,) = fetch_weights(LOCATION, card.revision)
    path.resolve().write_bytes(damage(weights()))  # type: ignore[operator]
    with pytest.raises(WeightsError, match=r"damaged in the cache.*deleted there: download it again"):
        fetch_weights(LOCATION, card.revision)
    assert not path.is_symlink()
    assert not is_cached(LOCATION)
    (path,) = fetch_weights(LOCATION, card.revision)
    assert path.read_bytes() == weights()


def test_damaged_in_a_store_that_the_cache_links_to(server: HubServer, tmp_path: Path) -> None:
    """Newer versions of the library keep one copy for several repositories; what lies outside is not touched."""
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    inside, outside = tmp_path / "hub" / "blobs" / "one", tmp_path / "outside"
    for target in (inside, outside):
        (path,) = fetch_weights(LOCATION, card.revision)
        blob = path.resolve()
        blob.unlink()
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"damaged")
        blob.symlink_to(target)
        with pytest.raises(WeightsError, match="damaged"):
            fetch_weights(LOCATION, card.revision)
        assert not path.is_symlink()
        assert not blob.is_symlink()
    assert not inside.exists()
    assert outside.exists()


def test_damaged_shard_and_index_in_the_cache(server: HubServer) -> None:
    files = sharded_files()
    server.push(NAME, files)
    card = read_card(LOCATION)
    paths = fetch_weights(LOCATION, card.revision)
    paths[1].resolve().write_bytes(b"x")
    (paths[0].parent / "model.safetensors.index.json").write_bytes(b"{")
    assert not is_cached(LOCATION)
    again = fetch_weights(LOCATION, card.revision)  # the index is not whole, so all is compared with the Hub's
    assert [path.read_bytes() for path in again] == [files[FIRST_SHARD], files[SECOND_SHARD]]


def test_damaged_config_in_the_cache_is_fetched_again(server: HubServer) -> None:
    server.push(NAME, model_files())
    card = read_card(LOCATION)
    (path,) = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/config.json")
    path.write_bytes(b"{}")  # what the link leads to
    assert read_card(LOCATION) == card
    path.unlink()
    path.write_bytes(b"{}")  # a copy, as in caches without links
    assert read_card(LOCATION) == card


def test_config_missing_in_the_cache(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.push(NAME, model_files())
    get()
    assert is_cached(LOCATION)
    (path,) = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/config.json")
    path.unlink()
    assert not is_cached(LOCATION)
    offline(monkeypatch)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        read_card(LOCATION)


def test_published_damaged(server: HubServer) -> None:
    server.push(NAME, model_files(model__safetensors=weights()[:-10]))
    with pytest.raises(WeightsError, match=r"damaged.*ask its authors"):
        get()


# ------------------------------------------------------------------------------------ hostile files


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.safetensors", "no plain name"),
        ("a/b.safetensors", "no plain name"),
        ("a\\b.safetensors", "no plain name"),
        ("/etc/x.safetensors", "no plain name"),
        (".x.safetensors", "no plain name"),
        ("x.safetensors\n", "no plain name"),
        ("pytorch_model.bin", "no plain name"),
        ("modeling_depth.py", "no plain name"),
        ("other.safetensors", "lacks other.safetensors"),
        (7, "names no files"),
        (["x.safetensors"], "names no files"),
    ],
)
def test_hostile_shard_names(server: HubServer, tmp_path: Path, name: object, reason: str) -> None:
    files = sharded_files(weight_map={"a": FIRST_SHARD, "b": name})
    server.push(NAME, files | {"a/b.safetensors": weights(), "../x.safetensors": weights()})
    with pytest.raises(WeightsError, match=reason):
        get()
    assert set(server.asked_for()) <= ALLOWED
    with pytest.raises(WeightsError, match=reason):
        get(ModelLocation(None, write(tmp_path / "model", files)))


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {}}', b"[" * 100_000])
def test_index_that_is_none(server: HubServer, index: bytes) -> None:
    server.push(NAME, sharded_files() | {"model.safetensors.index.json": index})
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        get()


def test_huge_index(server: HubServer) -> None:
    server.push(NAME, sharded_files() | {"model.safetensors.index.json": b" " * 1_000_001})
    with pytest.raises(WeightsError, match="larger than 1 MB"):
        get()
    assert "model.safetensors.index.json" not in server.asked_for()


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        (None, NetworkError, r"it holds no config\.json"),
        (b"", WeightsError, "is no JSON"),
        (b"not json", WeightsError, "is no JSON"),
        (b"\xff\xfe\x00", WeightsError, "is no JSON"),
        (b"[" * 100_000, WeightsError, "is no JSON"),
        (b"9" * 10_000, WeightsError, "is no JSON"),
        (b"[1]", WeightsError, "holds no JSON object"),
        (b"null", WeightsError, "holds no JSON object"),
        (b"{}" + b" " * 1_000_000, WeightsError, "larger than 1 MB"),
    ],
)
def test_config_that_is_none(
    server: HubServer, tmp_path: Path, config: bytes | None, error: type[SfmttrError], reason: str
) -> None:
    files = model_files(config__json=config)
    server.push(NAME, files)
    with pytest.raises(error, match=reason):
        read_card(LOCATION)
    if config is not None and len(config) > 1_000_000:
        assert server.asked_for() == []
    with pytest.raises(error, match=reason):
        read_card(ModelLocation(None, write(tmp_path / "model", files)))


def test_preprocessor_that_is_none(server: HubServer) -> None:
    server.push(NAME, model_files(preprocessor_config__json=b"[]"))
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json of org/depth holds no JSON object"):
        read_card(LOCATION)


# ----------------------------------------------------------------------------------------- folders


def test_folder(tmp_path: Path) -> None:
    whole, sharded = write(tmp_path / "whole", model_files()), write(tmp_path / "sharded", sharded_files())
    source = ModelLocation(None, whole)
    card = read_card(source)
    assert card == ModelCard(CONFIG, PREPROCESSOR, "apache-2.0", None)
    assert fetch_weights(source, card.revision) == (whole / "model.safetensors",)
    assert is_cached(source)
    source = ModelLocation(None, sharded)
    assert fetch_weights(source, read_card(source).revision) == (sharded / FIRST_SHARD, sharded / SECOND_SHARD)
    assert is_cached(source)


def test_folder_of_links(tmp_path: Path) -> None:
    store, folder = write(tmp_path / "store", model_files()), tmp_path / "model"
    folder.mkdir()
    for path in store.iterdir():
        (folder / path.name).symlink_to(path)
    assert get(ModelLocation(None, folder)) == (folder / "model.safetensors",)


def test_bad_folders(tmp_path: Path) -> None:
    source = ModelLocation(None, write(tmp_path / "pickled", model_files(model__safetensors=None)))
    with pytest.raises(WeightsError, match="pickles"):
        get(source)
    assert not is_cached(source)
    files = sharded_files()
    del files[SECOND_SHARD]
    source = ModelLocation(None, write(tmp_path / "shard missing", files))
    with pytest.raises(WeightsError, match=f"lacks {SECOND_SHARD}"):
        get(source)
    assert not is_cached(source)
    source = ModelLocation(None, tmp_path / "gone")
    with pytest.raises(NetworkError, match=r"holds no config\.json"):
        read_card(source)
    assert not is_cached(source)
    source = ModelLocation(None, write(tmp_path / "damaged", model_files(model__safetensors=weights()[:-1])))
    with pytest.raises(WeightsError, match=r"is damaged.*get it again"):
        get(source)
    assert (tmp_path / "damaged" / "model.safetensors").is_file()  # it is the user's


# -------------------------------------------------------------------------------------- environment


def test_library_settings_come_from_the_environment(server: HubServer, tmp_path: Path) -> None:
    """As a user sets them, in a process of its own."""
    commit = server.push(NAME, model_files())
    code = (
        "import sys; from sfmttr.networks.huggingface import model_card, model_files, model_id; "
        "heavy = {'huggingface_hub', 'torch', 'safetensors', 'yaml'} & set(sys.modules); assert not heavy, heavy; "
        f"location = model_id.ModelLocation.parse('{NAME}'); card = model_card.read_card(location); "
        "print(card.revision, *model_files.fetch_weights(location, card.revision))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    for extra in ({}, {"HF_HUB_OFFLINE": "1"}):
        server.requests.clear()
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment | extra, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        revision, path = run.stdout.split()
        assert revision == commit
        assert Path(path).read_bytes() == weights()
        assert Path(path).is_relative_to(tmp_path / "home" / "hub")
        assert bool(server.requests) != bool(extra)
