"""Models of the Hugging Face Hub as depth networks: what their files say, loading, refusing, whole runs, exports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from export.exporter import ExportConfig, export_run
from export.spec import Variant
from sfmttr import networks
from sfmttr.config import GroundTruthConfig, OutputConfig, RunConfig, TrainableScope, VideoConfig
from sfmttr.errors import NetworkError, SfmttrError, WeightsError
from sfmttr.evaluation.comparison import Column
from sfmttr.networks import catalog, lookup
from sfmttr.networks.base import state_dict_cpu
from sfmttr.networks.huggingface import adapter, loader
from sfmttr.networks.huggingface.model_config import library_config, output_kind
from sfmttr.networks.huggingface.model_id import ModelId, is_model_id
from sfmttr.networks.huggingface.preprocess import PreprocessSpec, preprocess_spec
from sfmttr.refinement.trainable import trainable_parameters
from sfmttr.run import pipeline
from sfmttr.run.finished import FinishedRun
from sfmttr.types import DepthKind
from tests.support import hf_models
from tests.support.fakes import FakeSfm
from tests.support.hf_models import MODELS
from tests.support.hub_server import hub_server, use_hub
from tools.synthetic import RenderedClip, write_frames, write_ground_truth

every_model = pytest.mark.parametrize("name", MODELS)
HW = (96, 128)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the name to load a tiny model by; each is saved once."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, str] = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = hf_models.save(MODELS[name], root / name)
        return made[name]

    return folder


@pytest.fixture
def load(folder_of: Callable[[str], str]) -> Callable[[str], adapter.HubNetwork]:
    return lambda name: loader.load(ModelId.parse(folder_of(name)))


# ------------------------------------------------------------------------------------------ contract


@every_model
def test_what_it_gives(name: str, load: Callable[[str], adapter.HubNetwork], room: RenderedClip) -> None:
    network = load(name)
    assert network.info.kind is MODELS[name].kind
    assert network.info.licence == "cc0-1.0"
    assert network.info.source == "a folder of the user's"
    assert not network.training
    image = torch.cat([network.prepare(rgb) for rgb in room.rgb[:2]])
    with torch.no_grad():
        output = network(image)
        one = network(image[1:])
    assert output.shape[:2] == (2, 1)
    assert bool(output.isfinite().all())
    assert bool((output > 0).all()) or network.info.kind is DepthKind.AFFINE_DISPARITY
    torch.testing.assert_close(output[1:], one, rtol=1e-4, atol=1e-5)


@every_model
def test_gradients_reach_the_encoder_and_nothing_else_is_of_it(
    name: str, load: Callable[[str], adapter.HubNetwork], room: RenderedClip
) -> None:
    network = load(name)
    network(network.prepare(room.rgb[0])).sum().backward()
    encoder = dict(network.encoder_parameters())
    unmoved = {key for key, value in encoder.items() if value.grad is None}
    assert unmoved <= {"model.dpt.layernorm.weight", "model.dpt.layernorm.bias"}  # the library's, used by others
    rest = {key.split(".")[1] for key, _ in network.named_parameters() if key not in encoder}
    assert rest <= {"neck", "head", "decoder", "fusion_stage", "relative_head", "metric_head", "fov_model"} | {
        "backbone",  # its mask token
        "depth_pro",  # its neck
    }
    assert len(trainable_parameters(network, TrainableScope.DECODER)) + len(encoder) == len(
        list(network.named_parameters())
    )


@every_model
def test_it_can_be_built_again_from_what_its_weights_say(
    name: str, load: Callable[[str], adapter.HubNetwork], room: RenderedClip, tmp_path: Path
) -> None:
    network = load(name)
    told = lookup.weights_metadata(network)
    save_file(dict(state_dict_cpu(network)), tmp_path / "refined.safetensors", told)
    again = networks.load_refined(tmp_path / "refined.safetensors")
    assert again.info == network.info
    assert not any(str(tmp_path.parent) in value or "models" in value for value in told.values())
    image = network.prepare(room.rgb[0])
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


@pytest.mark.parametrize("name", ["depth-anything", "dpt"])
def test_pictures_go_in_as_by_the_library_s_own_preprocessor(name: str, folder_of: Callable[[str], str]) -> None:
    from transformers import DPTImageProcessorPil

    network = loader.load(ModelId.parse(folder_of(name)))
    hw = network.input_hw(HW)
    rgb = np.random.default_rng(0).integers(0, 256, (*hw, 3), np.uint8)  # nothing to resize
    processor = DPTImageProcessorPil.from_pretrained(folder_of(name))
    theirs = processor(rgb, return_tensors="pt", do_resize=False)["pixel_values"]
    ours = (network.prepare(rgb) - network.mean) / network.std
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["depth-anything", "dpt"])
def test_depth_is_that_of_the_library(name: str, folder_of: Callable[[str], str], room: RenderedClip) -> None:
    from transformers import AutoModelForDepthEstimation

    network = loader.load(ModelId.parse(folder_of(name)))
    theirs = AutoModelForDepthEstimation.from_pretrained(folder_of(name)).eval()
    image = network.prepare(room.rgb[0])
    with torch.no_grad():
        expected = theirs(pixel_values=(image - network.mean) / network.std).predicted_depth[:, None]
        torch.testing.assert_close(network(image), expected)


# ------------------------------------------------------------------------------------- what files say


def reading(name: str, preprocessor: dict[str, Any] | None, size: int | None = None) -> PreprocessSpec:
    tiny = MODELS[name]
    return preprocess_spec(library_config(tiny.config, name), preprocessor, size, name)


def test_pixels_as_published_in_0_to_255() -> None:
    found = reading("dpt-dinov2", MODELS["dpt-dinov2"].preprocessor)
    np.testing.assert_allclose(found.mean, (0.485, 0.456, 0.406), atol=1e-6)
    np.testing.assert_allclose(found.std, (0.229, 0.224, 0.225), atol=1e-6)
    assert found.multiple == 14


def test_without_a_preprocessor_the_architecture_s_own() -> None:
    assert reading("depth-anything", None) == PreprocessSpec(
        518, 14, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert reading("glpn", None).mean == (0.0,) * 3
    assert reading("dpt", None) == PreprocessSpec(384, 32, True, (0.5,) * 3, (0.5,) * 3)
    assert reading("depth-pro", None).size == 128  # four patches of 32


@pytest.mark.parametrize(
    ("size", "hw", "expected"),
    [
        (518, (480, 640), (518, 686)),
        (518, (640, 480), (686, 518)),
        (518, (1080, 1920), (462, 812)),
        (518, (375, 1242), (336, 1120)),
        (518, (500, 500), (518, 518)),
        (14, (10, 5000), (14, 364)),
    ],
)
def test_working_size(size: int, hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert PreprocessSpec(size, 14, False, (0.5,) * 3, (0.5,) * 3).input_hw(hw) == expected


def test_squares_alone() -> None:
    assert reading("dpt", {"size": 100}).input_hw((375, 1242)) == (96, 96)


@pytest.mark.parametrize(
    ("preprocessor", "size"),
    [
        ({"image_mean": [0.5], "image_std": [0.5]}, None),
        ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, None),
        ({"image_mean": ["a"] * 3, "image_std": [0.5] * 3}, None),
        ({"size": {"longest": 3}}, None),
        ({"size": "large"}, None),
        ({"ensure_multiple_of": 100000}, None),
        ({"do_rescale": True, "rescale_factor": 0}, None),
        (None, 1),
        (None, 100000),
    ],
)
def test_a_senseless_preprocessor_is_refused(preprocessor: dict[str, Any] | None, size: int | None) -> None:
    given = None if preprocessor is None else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **preprocessor}
    with pytest.raises(NetworkError, match=r"preprocessor of depth-anything makes no sense|cannot work at size"):
        reading("depth-anything", given, size)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "depth_anything"}, DepthKind.AFFINE_DISPARITY),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, DepthKind.METRIC),
        ({"model_type": "dpt", "is_hybrid": True}, DepthKind.AFFINE_DISPARITY),
        ({"model_type": "dpt", "backbone_config": {"model_type": "beit"}}, DepthKind.AFFINE_DISPARITY),
        ({"model_type": "glpn"}, DepthKind.METRIC),
        ({"model_type": "zoedepth"}, DepthKind.METRIC),
        ({"model_type": "depth_pro", "use_fov_model": True}, DepthKind.METRIC),
        ({"model_type": "depth_pro"}, DepthKind.SCALE_INVARIANT),
    ],
)
def test_kind_by_config(config: dict[str, Any], kind: DepthKind) -> None:
    assert output_kind(config, "x") is kind


def test_a_kind_that_is_not_said_is_asked_for() -> None:
    config = {"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}}
    with pytest.raises(NetworkError, match=r"write hf:a/b,kind=metric .* or hf:a/b,kind=affine_disparity"):
        output_kind(config, "hf:a/b")


def test_depth_pro_is_in_metres_by_its_view() -> None:
    canonical, view = torch.tensor([[[0.5, 2.0]]]), torch.tensor([90.0])
    torch.testing.assert_close(adapter._depth_pro_depth(canonical, view), torch.tensor([[[1.0, 0.25]]]))
    torch.testing.assert_close(adapter._depth_pro_depth(canonical), torch.tensor([[[2.0, 0.5]]]))


# -------------------------------------------------------------------------------------------- names


def test_names(tmp_path: Path) -> None:
    name = ModelId.parse("hf:Intel/dpt-large@abc,kind=metric, size=392")
    assert (name.location.repository, name.location.revision) == ("Intel/dpt-large", "abc")
    assert (name.kind, name.size) == (DepthKind.METRIC, 392)
    assert name.pinned("0123456789abcdef") == "hf:Intel/dpt-large@0123456789ab,kind=metric,size=392"
    assert ModelId.parse(name.pinned("0123456789ab")).size == 392
    (tmp_path / "mine, all=mine").mkdir()
    folder = ModelId.parse(f"{tmp_path / 'mine, all=mine'}/,size=70")
    assert folder.display_name == "the folder mine, all=mine"
    assert folder.pinned(None) == "hf:mine, all=mine,size=70"
    assert str(tmp_path) not in folder.display_name
    assert is_model_id(str(tmp_path))
    assert is_model_id(f"{tmp_path},size=70")
    assert not is_model_id("bundled")


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a", "hf:a/b/c", "hf:../../etc", "hf:a/b,colour=red", "hf:a/b,kind=guess", "hf:a/b,size=big"]
)
def test_bad_names_are_one_sentence(text: str) -> None:
    with pytest.raises(NetworkError) as caught:
        networks.load(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in networks.names() if name.startswith("depth-anything")])
def test_shortcuts_are_names_of_models(name: str) -> None:
    known = networks.info(name)
    model = ModelId.parse(catalog.HUB_ALIASES[name].model)
    assert known.source.endswith(str(model.location.repository))
    assert known.licence.startswith("Apache-2.0" if "small" in name else "CC-BY-NC-4.0")
    assert (known.kind is DepthKind.METRIC) == ("indoor" in name or "outdoor" in name)


def test_a_shortcut_s_parameters_are_the_architecture_s() -> None:
    from transformers import AutoConfig, AutoModelForDepthEstimation

    config = AutoConfig.for_model(
        "depth_anything",
        backbone_config={
            "model_type": "dinov2",
            "image_size": 518,
            "hidden_size": 384,
            "num_attention_heads": 6,
            "out_indices": [3, 6, 9, 12],
            "reshape_hidden_states": False,
        },
    )
    with torch.device("meta"):
        model = AutoModelForDepthEstimation.from_config(config)
    count = sum(value.numel() for value in model.parameters())
    assert catalog.HUB_ALIASES["depth-anything-v2-small"].parameters == count


# --------------------------------------------------------------------------------------- hostile files


def changed(folder_of: Callable[[str], str], to: Path, name: str = "depth-anything", **config: Any) -> Path:
    """A copy of a tiny model with another config."""
    source = Path(folder_of(name))
    to.mkdir()
    for file in source.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    given = json.loads((source / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(given | config))
    return to


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "bert"}, "is a bert model, not a depth network"),
        ({"model_type": None}, "not a model of transformers"),
        ({"model_type": ["dpt"]}, "not a model of transformers"),
        (
            {"model_type": "my_depth", "auto_map": {"AutoModelForDepthEstimation": "modeling.Mine"}},
            "not a depth network",
        ),
        ({"model_type": "prompt_depth_anything"}, "needs measured depth as an input"),
        ({"use_timm_backbone": True}, "needs the library timm"),
        ({"fusion_hidden_size": 10**9}, "no network that fits"),
        ({"backbone_config": {"model_type": "dinov2", "num_hidden_layers": 10**6}}, "no network that fits"),
        ({"neck_hidden_sizes": [8] * 10**5}, "no network that fits"),
        ({"a": {"b": {"c": {"d": {"e": {}}}}}}, "no network that fits"),
        ({"depth_estimation_type": "guesses"}, "config of the folder model cannot be read"),
        ({"backbone_config": 7}, "config of the folder model cannot be read|do not fit"),
    ],
)
def test_what_is_no_depth_network_is_refused(
    config: dict[str, Any], sentence: str, folder_of: Callable[[str], str], tmp_path: Path
) -> None:
    folder = changed(folder_of, tmp_path / "model", **config)
    (folder / "modeling.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(SfmttrError, match=sentence) as caught:
        networks.load(str(folder))
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def weights_without(folder: Path, part: str) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith(part)}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def test_incomplete_weights_are_refused(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    folder = changed(folder_of, tmp_path / "model")
    weights_without(folder, "head.conv1")
    with pytest.raises(WeightsError, match=r"incomplete \(2 missing, head\.conv1"):
        networks.load(str(folder))


def test_what_no_picture_passes_through_may_be_missing(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    folder = changed(folder_of, tmp_path / "model")
    weights_without(folder, "neck.fusion_stage.layers.0.residual_layer1")
    assert isinstance(networks.load(str(folder)), adapter.HubNetwork)


def test_weights_of_another_shape_are_refused(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    folder = changed(folder_of, tmp_path / "model", head_hidden_size=4)
    with pytest.raises(WeightsError, match="do not fit its config"):
        networks.load(str(folder))


def test_a_model_of_the_hub_is_pinned(
    folder_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in Path(folder_of("depth-anything")).iterdir()}
    with hub_server() as server:
        use_hub(server.url, str(tmp_path / "cache"), monkeypatch)
        commit = server.repositories["someone/depth"].push(files)
        network = networks.load("hf:someone/depth")
        assert network.info.name == f"hf:someone/depth@{commit[:12]}"
        assert network.info.source == f"https://huggingface.co/someone/depth/tree/{commit}"
        assert network.info.licence == "cc0-1.0"
        monkeypatch.setattr(
            lookup,
            "HUB_ALIASES",
            {
                "ours": catalog.HubAlias(
                    replace(network.info, name="ours", licence="known"), 1, f"hf:someone/depth@{commit}"
                )
            },
        )
        ours = networks.load("ours")
        assert (ours.info.name, ours.info.licence) == ("ours", "known")
        assert ours.info.source.endswith(commit)
        assert networks.describe_all()[-1].weights_available
        with pytest.raises(NetworkError, match="nobody/nothing"):
            networks.load("hf:nobody/nothing")


# -------------------------------------------------------------------------------------- from clip to file


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "depth-anything" else pytest.mark.slow) for name in MODELS]
)
def test_from_a_clip_to_a_verified_file(
    name: str, room: RenderedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 20 if name == "depth-pro" else 40
    text = hf_models.load_fitted(name, tmp_path / "secret place" / name, room, steps)
    write_frames(room, tmp_path / "clip")
    truth = write_ground_truth(room, tmp_path / "truth")
    for i in range(len(room)):
        (truth / f"{i}.png").rename(truth / f"{i:06d}.png")
    FakeSfm(room).install(monkeypatch)
    run = tmp_path / "run"
    config = RunConfig(
        network=text,
        steps=4 if name == "depth-pro" else 40,
        # So tiny a GLPN has next to nothing in its decoder.
        trained=TrainableScope.ALL if name == "glpn" else None,
        learning_rate={"depth-pro": 1e-4, "glpn": 1e-3}.get(name),
        device="cpu",
        video=VideoConfig(duplicate_threshold=0.0),
        output=OutputConfig(pictures=False, clouds=False),
        ground_truth=GroundTruthConfig(truth),
    )
    result = pipeline.run(tmp_path / "clip", run, config)
    assert result.refined is not None
    errors = result.comparisons["ground_truth"]
    assert errors is not None
    after, aligned = (errors.columns[column].overall.abs_rel for column in (Column.AFTER, Column.ALIGNED))
    if name != "depth-pro":  # which needs more steps to get better than a test has time for
        assert not result.refined.rolled_back
        assert after < aligned
    # What is left behind needs neither the folder nor the Hub, and does not say where that was.
    for file in (tmp_path / "secret place" / name).iterdir():
        file.unlink()
    assert b"secret place" not in (run / "refined.safetensors").read_bytes()[:1_000_000]
    network = FinishedRun.read(run).refined_network()
    report = export_run(run, config=ExportConfig(variants=(Variant.FP32,), core=network.supports_dynamic_size))
    assert report.variants[Variant.FP32].held_out is not None
    if network.supports_dynamic_size:
        assert report.core is not None
        cases = report.core.parity
        assert len({case.hw for case in cases}) >= 2
        assert len({case.batch for case in cases}) == 2
    assert "secret place" not in (run / "export" / "export_report.json").read_text()
    assert result.kind is (DepthKind.METRIC if MODELS[name].kind is DepthKind.METRIC else DepthKind.SCALE_INVARIANT)


def test_the_library_is_not_imported_to_list_networks() -> None:
    import subprocess

    code = (
        "import sys, sfmttr.networks as n; n.describe_all(); n.load\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------- in two parts


@pytest.mark.parametrize("name", ["depth-anything", "depth-anything-metric"])
def test_two_parts_are_the_whole(name: str, load: Callable[[str], adapter.HubNetwork], room: RenderedClip) -> None:
    network = load(name)
    assert isinstance(network, adapter.DepthAnythingNetwork)
    image = torch.cat([network.prepare(rgb) for rgb in room.rgb[:2]])
    features = network.stem_features(image)
    assert [each.shape[1:] for each in features] == [(5, 7), *[(36, 32)] * 4]
    with torch.no_grad():
        torch.testing.assert_close(network.forward_from_stem(*features), network(image))


def test_the_encoder_s_features_are_kept_while_the_decoder_is_trained(
    load: Callable[[str], adapter.HubNetwork], room: RenderedClip
) -> None:
    network = load("depth-anything")
    sum(each.sum() for each in network.stem_features(network.prepare(room.rgb[0]))).backward()  # type: ignore[union-attr]
    used = {name for name, value in network.named_parameters() if value.grad is not None}
    assert used == {name for name, _ in network.stem_parameters()}
    assert used.isdisjoint(trainable_parameters(network, TrainableScope.DECODER))


def test_other_backbones_are_taken_as_a_whole(tmp_path: Path) -> None:
    tiny = MODELS["depth-anything"]
    other = replace(
        tiny,
        config={**tiny.config, "backbone_config": {**MODELS["zoedepth"].config["backbone_config"], "patch_size": 14}},
    )
    network = networks.load(hf_models.save(other, tmp_path / "beit"))
    assert type(network) is adapter.HubNetwork
