"""The page's endpoints, through `gradio_client` and a real server, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from demo.service import Service
from sfmttr.networks.base import state_dict_cpu
from tests.support.bad_uploads import BadUpload, bad_uploads
from tests.support.fakes import TINY, FakeSfm, TinyNetwork, fit, register_tiny
from tests.support.page import cpu_service, running
from tools.synthetic import RenderedClip, write_video

NAMES = (
    *("text named mp4", "empty file", "one frame", "static", "three hours", "8K frames", "corrupt zip", "zip bomb"),
    *("path traversal", "wrong intrinsics"),
)


class Server:
    """A running page whose reconstructions are read off the truth."""

    def __init__(self, service: Service, url: str, clip: Path) -> None:
        self.service, self.clip = service, clip
        self.client = Client(url, verbose=False)

    def submit(self, clip: Path | None = None, **more: Any) -> Any:
        form = {"network": TINY, "preset": "fast", "max_frames": 12, "seed": 0, "intrinsics": "", "force": False}
        files = [handle_file(str(clip or self.clip))]
        return self.client.submit(files=files, **{**form, **more}, api_name="/refine")

    def refine(self, clip: Path | None = None, **more: Any) -> dict[str, Any]:
        result = self.submit(clip, **more).result()
        assert isinstance(result, dict)
        return result

    def left_over(self) -> list[Path]:
        """Folders of visitors that hold no finished run."""
        folders = (self.service.config.folder / "visitors").glob("*")
        return [folder for folder in folders if not (folder / "run" / "report.json").is_file()]


@pytest.fixture(scope="module")
def server(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        register_tiny(patch, folder / "weights", state_dict_cpu(fit(TinyNetwork(), room, steps=15)))
        FakeSfm(room).install(patch)
        service = cpu_service(folder / "page")
        clip = write_video(room, folder / "room.mp4", fps=4.0)
        with running(service, patch) as url:
            yield Server(service, url, clip)


@pytest.fixture(scope="module")
def uploads(room: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BadUpload]:
    made = bad_uploads(room, tmp_path_factory.mktemp("bad"))
    assert tuple(made) == NAMES
    return made


def test_a_clip_becomes_a_run(server: Server) -> None:
    job = server.submit()
    seen = list(job)
    stages = [status["stage"] for status in seen]
    assert stages[-1] == "done"
    assert "refine" in stages
    last = seen[-1]
    assert last["refined"] is True
    held_out = last["report"]["comparison"]["held_out"]
    assert held_out["after"]["abs_rel"] < held_out["before"]["abs_rel"]
    assert server.service.finished(last["run"]).finished
    assert server.left_over() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_upload_ends_with_a_sentence_and_the_next_one_works(
    server: Server, uploads: dict[str, BadUpload], name: str
) -> None:
    upload = uploads[name]
    with pytest.raises(AppError) as caught:
        server.refine(upload.file, intrinsics=upload.intrinsics)
    sentence = str(caught.value)
    assert re.search(upload.sentence, sentence)
    for word in ("Traceback", "Error(", "/tmp", ".py", "--", "\n"):
        assert word not in sentence
    assert server.left_over() == []
    if name in (NAMES[0], NAMES[-1]):
        assert server.refine()["refined"] is True


def test_cancelling_ends_the_run(server: Server) -> None:
    job = server.submit()
    next(iter(job))
    job.cancel()
    for _ in range(100):
        if server.service.jobs.running == 0:
            break
        __import__("time").sleep(0.1)
    assert server.service.jobs.running == 0
    assert server.left_over() == []


@pytest.mark.parametrize("run", ["", "x" * 22, "../../etc", "example-street"])
def test_runs_that_there_are_not(server: Server, run: str) -> None:
    for call in (
        lambda: server.client.predict(run=run, api_name="/export"),
        lambda: server.client.predict(run=run, picture=None, variant="fp32", api_name="/predict"),
    ):
        with pytest.raises(AppError, match="not found"):
            call()


def test_only_the_three_endpoints_are_public(server: Server) -> None:
    endpoints = server.client.view_api(return_format="dict")
    assert isinstance(endpoints, dict)
    assert set(endpoints["named_endpoints"]) == {"/refine", "/export", "/predict"}


def test_files_of_the_server_cannot_be_read(server: Server) -> None:
    with pytest.raises((AppError, ValueError)):
        server.client.predict(
            files=[{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
            network=TINY,
            preset="fast",
            max_frames=12,
            seed=0,
            intrinsics="",
            force=False,
            api_name="/refine",
        )
