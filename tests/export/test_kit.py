"""Contents of a kit; a kit that cannot be made leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from export.kit import model_card, ort_web
from export.kit.builder import CHECK_LIMIT, FP16_LIMIT, KitError, build_kit
from export.kit.ort_web import RuntimeFile, WebRuntimeError
from export.runtime import OnnxDepth
from sfmttr.errors import RunFolderError, SfmttrError
from sfmttr.io.depth_maps import read_maps
from sfmttr.networks.info import NetworkInfo
from sfmttr.run.finished import FinishedRun
from sfmttr.types import DepthKind
from sfmttr.viz import colormap
from tests.support.exported import HW, Exported

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kit(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unzipped kit."""
    return exported.build_kit(tmp_path_factory.mktemp("kits") / "kit")


@pytest.fixture(scope="module")
def content(kit: Path) -> dict[str, Any]:
    """kit.json"""
    return json.loads((kit / "kit.json").read_text(encoding="utf-8"))


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Exported:
    """An export that a test may spoil; its run is the one of all tests."""
    shutil.copytree(exported.export, tmp_path / "export")
    return Exported(exported.run, tmp_path / "export")


def change_report(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    change_json(folder / "export_report.json", change)


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# ------------------------------------------------------------------------------------------- zip


def test_everything_named_is_there(kit: Path, content: dict[str, Any]) -> None:
    named = [variant["model"] for variant in content["variants"].values()]
    for asset in [*named, content["check"]["frame"], content["check"]["expected"]]:
        found = (kit / asset["file"]).read_bytes()
        assert (len(found), ort_web.sha384(found)) == (asset["bytes"], asset["sha384"])
    for page in ("README.md", "LICENSES/README.md"):
        for target in re.findall(r"\]\(([^)]+)\)|`((?:models|check)/[^`]+)`", (kit / page).read_text(encoding="utf-8")):
            assert ((kit / page).parent / "".join(target)).exists(), target


def test_the_page_finds_its_parts(kit: Path) -> None:
    html = (kit / "index.html").read_text(encoding="utf-8")
    for address in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (kit / address).is_file(), address
    for script in (kit / "js").glob("*.js"):
        for address in re.findall(r"""from '([^']+)'|new URL\('([^']+)'""", script.read_text(encoding="utf-8")):
            assert (script.parent / "".join(address)).is_file(), (script.name, address)


def test_every_element_that_a_script_asks_for_is_in_the_page(kit: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (kit / "index.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))
    asked = set(re.findall(r"\$\('([^']+)'\)", (kit / "js" / "app.js").read_text(encoding="utf-8")))
    assert len(asked) > 20
    assert asked <= set(ids)


def test_names_are_plain_and_nothing_tells_of_this_machine(exported: Exported, kit: Path, tmp_path: Path) -> None:
    path = build_kit(exported.run, exported.export, tmp_path / "kit.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", entry.filename)
            assert ".." not in entry.filename.split("/")
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == 0o100644
    private = [str(exported.run.parent), str(ROOT), str(Path.home())]
    for file in kit.rglob("*"):
        if file.is_file():
            assert not [place for place in private if len(place) > 2 and place.encode() in file.read_bytes()], file


def test_the_same_export_gives_the_same_zip(exported: Exported, tmp_path: Path) -> None:
    first, second = (build_kit(exported.run, exported.export, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()


def test_scripts_need_only_their_three_packages(kit: Path) -> None:
    for script in kit.glob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (\w+)", script.read_text(encoding="utf-8"), re.MULTILINE)
        others = set(imported) - sys.stdlib_module_names
        assert others <= {"numpy", "onnxruntime", "PIL", "cv2", "runtime"}, script.name


def test_licence_text_is_the_project_s_own(kit: Path) -> None:
    assert (kit / "LICENSES" / "Apache-2.0.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()


# --------------------------------------------------------------------------------------- kit.json


def test_check_is_what_fp32_gives(kit: Path, content: dict[str, Any], exported: Exported) -> None:
    check = content["check"]
    with Image.open(kit / check["frame"]["file"]) as image:
        assert not set(image.info) & {"gamma", "icc_profile", "chromaticity", "srgb"}  # browsers would change pixels
        rgb = np.asarray(image.convert("RGB"))
    frames = FinishedRun.read(exported.run).frames
    np.testing.assert_array_equal(rgb, frames.read(len(frames) // 2).rgb)
    assert rgb.shape[:2] == HW
    assert check["pixel_sum"] == int(rgb.astype(np.int64).sum())
    depth = OnnxDepth(kit / content["variants"]["fp32"]["model"]["file"]).predict(rgb)
    expected = np.load(kit / check["expected"]["file"])
    assert expected.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(depth[check["first"] :: check["step"], check["first"] :: check["step"]], expected)
    assert content["variants"]["fp32"]["largest_difference"] == CHECK_LIMIT


def test_limits_of_other_variants_are_what_they_differ_by(kit: Path, content: dict[str, Any]) -> None:
    rgb = np.asarray(Image.open(kit / "check" / "frame.png").convert("RGB"))
    exact = OnnxDepth(kit / "models" / "depth-fp32.onnx").predict(rgb)
    for name, variant in content["variants"].items():
        found = np.abs(OnnxDepth(kit / variant["model"]["file"]).predict(rgb) / exact - 1).max()
        assert found < variant["largest_difference"] <= max(CHECK_LIMIT + 2 * found + 1e-6, FP16_LIMIT), name
        assert variant["largest_difference"] < 0.5, "a check that passes everything"


def test_resizing_stays_off_webgpu(kit: Path, content: dict[str, Any]) -> None:
    for variant in content["variants"].values():
        nodes = {node.name: node for node in onnx.load(kit / variant["model"]["file"]).graph.node}
        (name,) = variant["cpu_nodes_on_webgpu"]
        assert nodes[name].op_type == "Resize"


def test_colours_are_the_run_s(content: dict[str, Any], exported: Exported) -> None:
    maps = [read_maps(exported.run / "depth" / f"{name}.npz") for name in ("before", "after")]
    colours = colormap.color_range(frame for values in maps for frame in values)
    assert content["colour_range"] == pytest.approx({"near": colours.near, "far": colours.far})
    assert 65535 / content["png_steps_per_unit"] > maps[1].max() * 2


def test_kit_says_what_it_is(content: dict[str, Any], exported: Exported) -> None:
    report = json.loads((exported.run / "report.json").read_text(encoding="utf-8"))
    assert content["place"] == exported.run.name
    assert (content["network"], content["unit"], content["network_licence"]) == (
        "tiny-test",
        "network units",
        "CC0-1.0",
    )
    assert content["held_out"]["abs_rel_after"] == report["comparison"]["held_out"]["after"]["abs_rel"]


# ------------------------------------------------------------------------------------- model card


def test_model_card_has_the_figures(kit: Path, exported: Exported) -> None:
    card = (kit / "README.md").read_text(encoding="utf-8")
    held_out = json.loads((exported.run / "report.json").read_text(encoding="utf-8"))["comparison"]["held_out"]
    errors = [f"{held_out[column]['abs_rel']:.4f}" for column in ("before", "aligned", "after")]
    assert f"| {held_out['protocol']} | {' | '.join(errors)} |" in card
    report = json.loads((exported.export / "export_report.json").read_text(encoding="utf-8"))
    for name, entry in report["variants"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {name}"))
        assert f"{entry['bytes'] / 1e6:.2f} MB" in row
        assert f"{entry['held_out']['abs_rel']:.4f}" in row
        assert entry["sha256"] in card
    for word in ("CC0-1.0", "https://example.org/tiny", "network units", "pip install onnxruntime numpy pillow"):
        assert word in card
    assert not re.search(r"\bNone\b|\bnan\b|\{\w*\}|null", card)
    widths = [line.count("|") for line in card.splitlines() if line.startswith("| ")]
    assert min(widths) >= 3


def other_run(exported: Exported, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The run as if it had found something else."""
    shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    change_json(tmp_path / "run" / "report.json", change)
    return tmp_path / "run"


def test_run_that_was_not_trusted_says_so(exported: Exported, kit: Path, tmp_path: Path) -> None:
    run = other_run(exported, tmp_path, lambda report: report["alignment"].update(trusted=False))
    forced = Exported(run, exported.export).build_kit(tmp_path / "kit")
    words = "Structure-from-motion of this clip was not trusted"
    for name in ("README.md", "kit.json"):
        assert words in (forced / name).read_text(encoding="utf-8")
        assert words not in (kit / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "network_kind", "words"),
    [
        (DepthKind.METRIC, DepthKind.METRIC, "metres are the network's own"),
        (DepthKind.METRIC, DepthKind.SCALE_INVARIANT, "come from one distance that was given"),
        (DepthKind.SCALE_INVARIANT, DepthKind.SCALE_INVARIANT, "One known distance gives the factor"),
    ],
)
def test_card_says_where_its_unit_comes_from(
    kind: DepthKind, network_kind: DepthKind, words: str, exported: Exported
) -> None:
    finished = FinishedRun.read(exported.run)
    finished = replace(finished, info=replace(finished.info, kind=network_kind))
    assert words in model_card._limits(finished, {"kind": str(kind)})


def test_card_without_held_out_points(exported: Exported, copied: Exported, tmp_path: Path) -> None:
    def forget(report: dict[str, Any]) -> None:
        report["held_out"] = None
        report["model"].update(held_out_abs_rel_before=None, held_out_abs_rel_after=None, held_out_points=0)
        for entry in report["variants"].values():
            entry.update(held_out=None, abs_rel_change=None)

    run = other_run(exported, tmp_path, lambda report: report["comparison"].update(held_out=None))
    change_report(copied.export, forget)
    kit = Exported(run, copied.export).build_kit(tmp_path / "kit")
    card = (kit / "README.md").read_text(encoding="utf-8")
    assert "left no points" in card
    assert "None" not in card
    content = json.loads((kit / "kit.json").read_text(encoding="utf-8"))
    assert content["held_out"] is None
    assert content["variants"]["fp32"]["held_out_abs_rel"] is None


@pytest.mark.parametrize(
    ("licence", "copyright_line", "words"),
    [
        ("MIT", "Copyright (c) 2022 somebody", "Permission is hereby granted, free of charge"),
        ("Apache-2.0", "", "Apache-2.0.txt"),
        ("non-commercial use only (authors' README)", "", "non-commercial use only (authors' README)"),
        ("MIT", "", "MIT"),
    ],
)
def test_terms_of_the_network(licence: str, copyright_line: str, words: str) -> None:
    info = NetworkInfo("net", DepthKind.METRIC, licence, "https://example.org", "", copyright_line)
    text = model_card._network_terms(info)
    assert words in text
    assert copyright_line in text
    assert "{" not in text


# ----------------------------------------------------------------------------------- browser runtime


def policy(kit: Path) -> str:
    """Where the page may fetch from."""
    found = re.search(r"connect-src ([^;]+);", (kit / "index.html").read_text(encoding="utf-8"))
    assert found
    return found.group(1)


def runtime_base(kit: Path) -> str:
    return json.loads((kit / "kit.json").read_text(encoding="utf-8"))["web_runtime"]["base"]


def test_page_may_ask_the_cdn_only_when_it_must(
    kit: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {file.name: file.name.encode() for file in ort_web.FILES}
    monkeypatch.setattr(ort_web, "read_files", lambda: contents)
    bundled = exported.build_kit(tmp_path / "bundled", bundle_runtime=True)
    assert policy(kit) == "'self' https://cdn.jsdelivr.net"
    assert policy(bundled) == "'self'"
    assert runtime_base(kit) == "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/"
    assert runtime_base(bundled) == "runtime/"
    assert not (kit / "runtime").exists()
    assert {path.name: path.read_bytes() for path in (bundled / "runtime").iterdir()} == contents


def test_every_runtime_file_is_pinned(content: dict[str, Any]) -> None:
    for provider in ("wasm", "webgpu"):
        for part in ("script", "binary"):
            asset = content["web_runtime"][provider][part]
            assert RuntimeFile(asset["file"], asset["bytes"], asset["sha384"]) in ort_web.FILES
            assert len(asset["sha384"]) == 64


# ------------------------------------------------------------------------------------------ refusals


def changed_model(folder: Path) -> None:
    with (folder / "depth-fp32.onnx").open("ab") as file:
        file.write(b"more")


def missing_model(folder: Path) -> None:
    (folder / "depth-int8.onnx").unlink()


def missing_report(folder: Path) -> None:
    (folder / "export_report.json").unlink()


def empty_report(folder: Path) -> None:
    (folder / "export_report.json").write_text("{}")


def without_fp32(folder: Path) -> None:
    change_report(folder, lambda report: report["variants"].pop("fp32"))


def outside(folder: Path) -> None:
    shutil.copy(folder / "depth-fp32.onnx", folder.parent / "depth-fp32.onnx")
    change_report(folder, lambda report: report["variants"]["fp32"].update(file="../depth-fp32.onnx"))


def other_clip(folder: Path) -> None:
    change_report(folder, lambda report: report["model"].update(clip_sha256="0" * 64))


def other_weights(folder: Path) -> None:
    change_report(folder, lambda report: report["model"].update(weights_sha256="0" * 64))


SPOILED: dict[Callable[[Path], None], tuple[type[SfmttrError], str]] = {
    changed_model: (KitError, "not what the report beside it is about"),
    missing_model: (KitError, "depth-int8.onnx cannot be read"),
    missing_report: (RunFolderError, "export_report.json cannot be read"),
    empty_report: (KitError, "damaged or from another version"),
    without_fp32: (KitError, "fp32"),
    outside: (KitError, "outside of its folder"),
    other_clip: (KitError, "another clip"),
    other_weights: (KitError, "refined anew"),
}


@pytest.mark.parametrize(("spoil", "refusal"), SPOILED.items(), ids=[spoil.__name__ for spoil in SPOILED])
@pytest.mark.parametrize("earlier", [None, b"an earlier kit"])
def test_refused(
    spoil: Callable[[Path], None],
    refusal: tuple[type[SfmttrError], str],
    earlier: bytes | None,
    copied: Exported,
    tmp_path: Path,
) -> None:
    spoil(copied.export)
    out = tmp_path / "out" / "kit.zip"
    out.parent.mkdir()
    if earlier is not None:
        out.write_bytes(earlier)
    error, words = refusal
    with pytest.raises(error, match=words):
        build_kit(copied.run, copied.export, out)
    assert [path.read_bytes() for path in out.parent.iterdir()] == ([] if earlier is None else [earlier])


def test_nothing_is_left_when_writing_fails(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: zipfile.ZipFile, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(RunFolderError, match="is full; free some space"):
        build_kit(exported.run, exported.export, tmp_path / "out" / "kit.zip")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_runtime_no_kit(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    monkeypatch.setenv("SFMTTR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WebRuntimeError, match="leave --bundle-runtime out"):
        build_kit(exported.run, exported.export, tmp_path / "kit.zip", bundle_runtime=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
