"""Networks on the page: what can be chosen and typed, what is refused and how, and what is shown of their results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import yaml

from demo import environment
from demo.api import Endpoints
from demo.config import PageConfig
from demo.eta import CostModel, TimingHistory, total_s
from demo.handlers import Handlers
from demo.jobs import INTERNAL_ERROR
from demo.network_choices import OTHER, NetworkChoices
from demo.run_view import view_of
from sfmttr import networks
from sfmttr.config import RECIPES, Preset
from sfmttr.errors import NetworkError, WeightsError
from sfmttr.networks import catalog
from sfmttr.networks.huggingface import download, model_files
from sfmttr.networks.huggingface.errors import HubUnreachableError
from tests.support.documents import ROOT
from tests.support.fakes import FakeSfm
from tests.support.folder_models import write_model, write_other_model
from tests.support.page import cpu_service, running
from tools.synthetic import RenderedClip, write_video

HUB_MODEL = "Intel/dpt-large"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The Hub does not answer, and the cache is empty; gives what it was asked for."""
    asked: list[str] = []

    def look_up(repository: str, *rest: object) -> download.Snapshot:
        asked.append(repository)
        raise HubUnreachableError(f"the Hub could not be reached and the cache does not hold {repository}: connect")

    monkeypatch.setattr(download, "look_up", look_up)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return asked


@pytest.fixture
def choices() -> NetworkChoices:
    return NetworkChoices(most_parameters=1_500_000_000)


# ------------------------------------------------------------------------------------------- names


def test_ours_are_listed_first_then_the_hubs_then_any_other(choices: NetworkChoices) -> None:
    listed = choices.options()
    assert [name for _, name in listed] == [*networks.names(), OTHER]
    labels = {name: label for label, name in listed}
    assert labels["bundled"] == "bundled · 1.9 M parameters · Apache-2.0 · ready to use"
    assert labels["depth-anything-v2-small"] == (
        "Hugging Face: depth-anything-v2-small · 24.8 M parameters · Apache-2.0 · downloaded first"
    )
    assert "non-commercial" in labels["depth-anything-v2-large"]
    assert "not on this machine" in labels["adabins"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hf:Intel/dpt-large", "hf:Intel/dpt-large"),
        ("  Intel/dpt-large ", "hf:Intel/dpt-large"),
        ("Intel/dpt-large@v1.0", "hf:Intel/dpt-large@v1.0"),
        ("Intel/dpt-large, kind=metric,size=392", "hf:Intel/dpt-large, kind=metric,size=392"),
        ("https://huggingface.co/Intel/dpt-large", "hf:Intel/dpt-large"),
        ("huggingface.co/Intel/dpt-large/", "hf:Intel/dpt-large"),
        ("https://huggingface.co/Intel/dpt-large/tree/main", "hf:Intel/dpt-large@main"),
        ("https://hf.co/Intel/dpt-large?library=transformers", "hf:Intel/dpt-large"),
        ("bundled", "bundled"),
    ],
)
def test_a_model_may_be_named_as_people_name_it(choices: NetworkChoices, typed: str, name: str) -> None:
    assert choices.resolve(OTHER, typed, folders=False) == name
    assert choices.resolve(typed, "", folders=False) == name  # by a program


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "Enter a model id"),
        ("no-such-network", "no network is called"),
        ("x" * 400, "not a valid model id"),
        ("a\0b/c", "not a valid model id"),
        ("Intel/dpt-large,colour=red", "option 'colour'"),
        ("Intel/dpt-large,size=huge", "a number of pixels"),
        ("Intel/dpt-large,kind=round", "kind has to be one of"),
        ("too/many/parts", "not a model of the Hugging Face Hub"),
        ("hf:", "not a model of the Hugging Face Hub"),
    ],
)
def test_what_cannot_be_a_name_is_said(choices: NetworkChoices, typed: str, sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        choices.resolve(OTHER, typed, folders=False)


def test_where_others_can_open_the_page_nobody_learns_what_lies_on_its_disk(
    choices: NetworkChoices, room_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*_: object, **__: object) -> bool:
        raise AssertionError("the disk was looked at")

    for name in ("is_dir", "is_file", "exists", "stat", "iterdir", "expanduser"):
        monkeypatch.setattr(Path, name, looked)
    refusals = set()
    for typed in (
        str(room_model),
        "/etc",
        "/no/such/folder",
        "..",
        "~root",
        "./examples",
        f"hf:{room_model}",
        "/etc,size=9",
    ):
        with pytest.raises(NetworkError) as refused:
            choices.resolve(OTHER, typed, folders=False)
        refusals.add(str(refused.value))
    assert len(refusals) == 1
    assert "only on your own machine" in refusals.pop()
    with pytest.raises(NetworkError, match="no network is called 'examples'"):
        choices.resolve(OTHER, "examples", folders=False)


def test_on_ones_own_machine_a_folder_is_taken(choices: NetworkChoices, room_model: Path) -> None:
    assert choices.resolve(OTHER, str(room_model), folders=True) == str(room_model)
    with pytest.raises(NetworkError, match="neither a model on the Hub nor a folder"):
        choices.resolve(OTHER, str(room_model / "no"), folders=True)


# ------------------------------------------------------------------------------------------- where


@pytest.mark.parametrize(
    ("settings", "private"),
    [
        ({}, True),
        ({"GRADIO_SERVER_NAME": "127.0.0.1"}, True),
        ({"GRADIO_SHARE": "False"}, True),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        ({"GRADIO_SHARE": "True"}, False),
        ({"GRADIO_ROOT_PATH": "/depth"}, False),
        ({"SPACE_ID": "someone/depth"}, False),
        ({"SPACES_ZERO_GPU": "true"}, False),
        ({"SFMTTR_PUBLIC": "1"}, False),
    ],
)
def test_who_can_open_the_page(settings: dict[str, str], private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch, **settings)
    assert environment.is_private() is private


def clean(patch: pytest.MonkeyPatch, **settings: str) -> None:
    for name in (
        "SPACE_ID",
        "SPACES_ZERO_GPU",
        "SFMTTR_PUBLIC",
        "GRADIO_SERVER_NAME",
        "GRADIO_SHARE",
        "GRADIO_ROOT_PATH",
    ):
        patch.delenv(name, raising=False)
    for name, value in settings.items():
        patch.setenv(name, value)


def request_from(host: str = "127.0.0.1", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(client=SimpleNamespace(host=host), headers=named, session_hash="me")


def test_visitors_do_not_get_what_the_owner_s_token_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    clean(monkeypatch, HF_TOKEN="hf_of_the_owner")
    assert "hf_of_the_owner" in str(build_hf_headers())
    with running(cpu_service(tmp_path / "mine"), monkeypatch):
        assert "hf_of_the_owner" in str(build_hf_headers())
    monkeypatch.setenv("SFMTTR_PUBLIC", "1")
    with running(cpu_service(tmp_path / "public"), monkeypatch):
        assert "hf_of_the_owner" not in str(build_hf_headers())


def test_a_request_that_was_passed_on_is_not_local() -> None:
    assert environment.is_local(None)
    assert environment.is_local(request_from())
    assert not environment.is_local(request_from("10.0.0.7"))
    assert not environment.is_local(request_from(x_forwarded_for="203.0.113.9"))


def test_the_default_network_is_the_small_one_wherever_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(environment, "has_gpu", lambda: True)
    assert environment.default_network() == "bundled"  # no Space
    clean(monkeypatch, SPACE_ID="someone/depth")
    monkeypatch.setattr(environment, "has_gpu", lambda: False)
    assert environment.default_network() == "bundled"


def test_on_a_space_with_a_gpu_it_is_the_hubs_unless_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, no_hub: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clean(monkeypatch, SPACES_ZERO_GPU="true", SPACE_ID="someone/depth")
    assert environment.default_network() == "bundled"
    assert "cannot be had" in caplog.text
    assert no_hub == ["depth-anything/Depth-Anything-V2-Small-hf"]
    monkeypatch.setattr(model_files, "is_cached", lambda source: True)
    config = PageConfig()
    assert config.network == "depth-anything-v2-small"
    assert config.example_network == "bundled"  # made on a CPU even there
    assert not config.folders


def test_a_space_fetches_its_default_network_when_it_is_built() -> None:
    front = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    (preloaded,) = front["preload_from_hub"]
    repository, files, revision = preloaded.split()
    model = networks.describe(environment.GPU_DEFAULT).model
    assert model == f"hf:{repository}@{revision}"
    assert set(files.split(",")) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert front["models"] == [repository]


def test_whose_run_it_is_reaches_the_callback() -> None:
    from gradio.helpers import special_args

    from demo.events import with_request

    seen: list[Any] = []

    def call(*values: Any, request: Any) -> Any:
        seen.extend((values, request))
        yield "done"

    wrapped, who = with_request(call), request_from()
    values, *_ = special_args(wrapped, ["clip", "network", "fast"], who)
    assert list(wrapped(*values)) == ["done"]
    assert seen == [("clip", "network", "fast"), who]


# ------------------------------------------------------------------------------------- what it is


def calls_of(folder: Path, **config: Any) -> Handlers:
    return Handlers(cpu_service(folder / "page", **{"folders": True, "least_frames": 3, **config}))


def said(calls: Handlers, network: str, typed: str = "", request: Any = None) -> list[str]:
    return [re.sub(r"<[^>]+>", "", words) for _, words in calls.inputs.about(network, typed, request)]


def test_licence_and_size_stand_beside_a_network_before_the_run(tmp_path: Path, room_model: Path) -> None:
    calls = calls_of(tmp_path)
    (words,) = said(calls, "depth-anything-v2-base")
    assert "97.5 M parameters" in words
    assert "License: CC-BY-NC-4.0: non-commercial use only" in words
    assert "weights will be downloaded first" in words
    looking, found = said(calls, OTHER, str(room_model))
    assert "Looking up" in looking
    assert "in the report" in looking
    assert "License: cc0-1.0" in found
    assert said(calls, OTHER, "  ") == [""]
    fields = [field.visible for field, _ in calls.inputs.about(OTHER, "", None)]
    assert fields == [True]
    assert [field.visible for field, _ in calls.inputs.about("bundled", "", None)] == [False]


def test_what_a_stranger_wrote_is_escaped(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: <script>alert(1)</script>\n---\n")
    *_, (_, words) = calls_of(tmp_path).inputs.about(OTHER, str(folder), None)
    assert "<script>" not in words
    assert "&lt;script&gt;" in words


# --------------------------------------------------------------------------------------- refusals


@pytest.fixture
def clip(room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    FakeSfm(room).install(monkeypatch)
    return write_video(room, tmp_path / "room.mp4", fps=4.0)


def form(typed: str, preset: str = "fast") -> tuple[Any, ...]:
    return (OTHER, preset, 12, None, None, "", 0, False, typed)


def ended(calls: Handlers, clip: Path, typed: str, request: Any = None) -> tuple[Any, ...]:
    chosen, _, button = calls.inputs.upload([str(clip)], *form(typed))
    assert chosen is not None
    assert button.interactive
    return list(calls.run.start(chosen, *form(typed), request=request))[-1]


def refusals(folder: Path) -> dict[str, str]:
    """Typed names, by the error sentence."""
    pickled = write_model(folder / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    silent = write_model(folder / "silent")
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(
        json.dumps({**config, "model_type": "dpt", "backbone_config": {"model_type": "dinov2"}})
    )
    return {
        "^<[^>]+>The folder bert is a bert model, not a depth network": str(write_other_model(folder / "bert")),
        "holds no config.json": str(touched(folder / "empty")),
        "published|pickles": str(pickled),
        "does not state what its output is": str(silent),
        "could not be reached": HUB_MODEL,
        "Enter a model id": "",
        "neither a model on the Hub nor a folder": str(folder / "missing"),
    }


def touched(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_is_no_depth_network_is_one_sentence_and_the_next_run_works(
    clip: Path, tmp_path: Path, room_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(tmp_path)
    for sentence, typed in refusals(tmp_path).items():
        last = ended(calls, clip, typed)
        assert re.search(sentence, last[0], re.IGNORECASE), last[0]
        assert 'role="alert"' in last[0]
        assert INTERNAL_ERROR not in last[0]
        assert last[4] is None
        assert calls.service.queue.idle
        assert calls.service.jobs.running == 0
    quick(monkeypatch)
    assert isinstance(ended(calls, clip, str(room_model))[4], str)


def test_it_is_refused_before_anybody_waits_for_it(clip: Path, tmp_path: Path) -> None:
    calls = calls_of(tmp_path)
    with calls.service.queue.acquire(lambda place: None):  # somebody is at work
        assert "not a depth network" in ended(calls, clip, str(write_other_model(tmp_path / "bert")))[0]


@pytest.mark.parametrize(("allowed", "request_"), [(False, None), (True, request_from(x_forwarded_for="203.0.113.9"))])
def test_a_folder_is_refused_where_others_can_open_the_page(
    clip: Path, tmp_path: Path, room_model: Path, allowed: bool, request_: Any
) -> None:
    calls = calls_of(tmp_path, folders=allowed)
    assert "only on your own machine" in ended(calls, clip, str(room_model), request_)[0]
    assert "only on your own machine" in said(calls, OTHER, str(room_model), request_)[-1]
    program = Endpoints(calls).refine(
        [str(clip)], str(room_model), "fast", 12, 0, 0, "", 0, False, request=request_ or request_from()
    )
    if not allowed or request_:
        with pytest.raises(gr.Error, match="only on your own machine"):
            next(program)


def test_a_gated_or_missing_model_is_the_hubs_word(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_of(tmp_path)
    for error in (
        WeightsError(f"{HUB_MODEL} is gated: accept its terms"),
        NetworkError(f"the Hub has no model {HUB_MODEL}"),
    ):

        def refuse(*_: object, error: Exception = error) -> download.Snapshot:
            raise error

        monkeypatch.setattr(download, "look_up", refuse)
        assert str(error)[1:] in ended(calls, clip, HUB_MODEL)[0]
        assert str(error)[1:] in said(calls, OTHER, HUB_MODEL)[-1]


def test_a_run_can_be_stopped_while_the_hub_takes_its_time(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def look_up(*_: object) -> download.Snapshot:
        asked.set()
        assert answer.wait(60)
        raise HubUnreachableError("too late")

    monkeypatch.setattr(download, "look_up", look_up)
    calls = calls_of(tmp_path)
    chosen, *_ = calls.inputs.upload([str(clip)], *form(HUB_MODEL))
    updates = calls.run.start(chosen, *form(HUB_MODEL))
    job = next(updates)[3]
    assert asked.wait(60)
    assert any("looking up the network" in str(next(updates)[0]) for _ in range(50))
    calls.run.stop(job)
    last = list(updates)[-1]
    assert not answer.is_set()  # it did not wait for that
    assert "Stopped" in last[0]
    answer.set()


def test_a_model_that_is_too_large_for_the_page_is_refused(tmp_path: Path, clip: Path, room_model: Path) -> None:
    last = ended(calls_of(tmp_path, most_parameters=100_000), clip, str(room_model))
    assert "choose a smaller model" in last[0]


# ---------------------------------------------------------------------------------------- results


def quick(patch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[Preset.FAST]
    patch.setitem(
        RECIPES,
        Preset.FAST,
        recipe.__class__(
            **{
                **vars(recipe),
                "refine": recipe.refine.__class__(**{**vars(recipe.refine), "steps": 24, "learning_rate": 1e-3}),
            }
        ),
    )


def test_before_is_what_alignment_alone_makes_of_disparity(
    clip: Path, tmp_path: Path, room_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    calls = calls_of(tmp_path)
    key = ended(calls, clip, str(room_model))[4]
    shown = calls.results.show(key)
    view = view_of(calls.service.finished(key))
    aligned, after, unshifted = (view.held_out(column) for column in ("aligned", "after", "before"))
    assert view.before == "aligned"
    assert None not in (aligned, after, unshifted)
    assert f"{aligned / after:.1f} times more accurate" in shown["verdict"]  # type: ignore[operator]
    assert f">{100 * aligned:.1f} %<" in shown["verdict"]  # type: ignore[operator]
    words = "the original network with the best scale and shift"
    assert f"is {words}" in shown["verdict"]
    assert "Rescaling the original depth alone" not in shown["verdict"]
    assert words in shown["compare"]
    assert view.before_description == words
    element = json.loads(re.search(r"data-config='([^']+)'", shown["compare"])[1].replace("&quot;", '"'))  # type: ignore[index]
    assert (element["left"], element["right"]) == ("aligned", "after")
    titles = {layer["key"]: layer["title"] for layer in element["layers"]}
    assert titles["aligned"] == "before, best scale and shift"
    assert titles["before"] == "before, without its shift"
    assert "scale and shift of the clip" in shown["points"]
    assert '<th scope="row">before, best scale and shift</th>' in shown["report"]
    assert "hf:tiny-depth" in shown["report"]
    assert "license: cc0-1.0" in shown["report"]
    before_3d, after_3d = calls.results.show_3d(key)
    assert (before_3d.label, after_3d.label) == ("before, best scale and shift", "after")
    assert str(room_model.parent) not in "".join(str(each) for each in shown.values())
    errors = view.points.error_before[~(view.points.error_before != view.points.error_before)]  # type: ignore[union-attr]
    assert errors.mean() == pytest.approx(aligned, rel=0.02)


def test_unrefined_disparity_is_shown_for_what_it_is(
    clip: Path, tmp_path: Path, room_model: Path, room: RenderedClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSfm(room, settings={"score": 0.2, "outliers": 0.5, "noise": 0.5}).install(monkeypatch)
    calls = calls_of(tmp_path)
    key = ended(calls, clip, str(room_model))[4]
    view, shown = view_of(calls.service.finished(key)), calls.results.show(key)
    assert view.gate_closed
    assert (view.before, view.before_description) == ("before", "")
    assert "leaves the shift out" in shown["compare"]
    assert "looks unreliable" in shown["verdict"]


# --------------------------------------------------------------------------------------- estimates


def test_nobody_is_promised_two_minutes_where_it_takes_twenty(tmp_path: Path) -> None:
    rates = TimingHistory(tmp_path / "rates.json")

    def minutes(name: str, preset: str, *, on_gpu: bool = False) -> float:
        known = networks.describe(name)
        effort = CostModel.from_size(known.parameters, of_hub=known.model is not None, on_gpu=on_gpu)
        return total_s(rates.stages_s(60, name, preset, effort)) / 60

    assert minutes("bundled", "fast") < 2
    assert 8 < minutes("depth-anything-v2-small", "fast") < 25
    assert 20 < minutes("depth-anything-v2-small", "default") < 60
    assert minutes("depth-anything-v2-large", "default") > 3 * minutes("depth-anything-v2-small", "default")
    assert minutes("depth-anything-v2-small", "fast", on_gpu=True) < 3
    assert minutes("adabins", "default") > 5 * minutes("bundled", "default")
    rates.record_run({"disparity": 120.0, "before": 3.0, "refine": 90.0}, 60, "depth-anything-v2-small", "fast")
    stages = rates.stages_s(60, "depth-anything-v2-small", "fast")
    assert (stages["before"], stages["refine"]) == (pytest.approx(123.0), pytest.approx(90.0))


def test_time_is_told_once_the_network_is_known(clip: Path, tmp_path: Path, room_model: Path) -> None:
    calls = calls_of(tmp_path)
    chosen, words, button = calls.inputs.upload([str(clip)], *form(str(room_model)))
    assert button.interactive
    assert "depends on the network" in words
    said(calls, OTHER, str(room_model))
    words, _ = calls.inputs.settings(chosen, *form(str(room_model)))
    assert re.search(r"about \d+ (s|min)", words)


# ----------------------------------------------------------------------------------------- listing


def test_the_listing_has_the_hub_in_a_group_of_its_own_and_needs_no_torch() -> None:
    code = (
        "import sys; from sfmttr.cli.main import main; main(['networks']);"
        "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    ours, hubs = listed.split("Models of the Hugging Face Hub")
    assert all(name in ours for name in networks.built_in())
    assert "depth-anything" not in ours
    assert all(name in hubs for name in catalog.HUB_ALIASES)
    assert "hf:ORG/NAME" in hubs
    assert "FOLDER" in hubs
