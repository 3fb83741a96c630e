"""The page in a real browser, with real reconstructions and networks, as a visitor would click through it."""

from __future__ import annotations

import json
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.service import Service
from sfmttr import networks
from sfmttr.config import RECIPES, Preset
from sfmttr.io.depth_files import read_depth_png
from sfmttr.types import DepthKind
from tests.support.bad_uploads import bad_uploads
from tests.support.browser import Visit, launched
from tests.support.data_paths import data_root, existing, weights_root
from tests.support.documents import ROOT, marked_block
from tests.support.folder_models import write_fitted_to
from tests.support.page import children, cpu_service, running
from tools.synthetic import RenderedClip

if TYPE_CHECKING:
    from playwright.sync_api import Browser, expect, sync_playwright
else:
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        pytest.skip("needs playwright (requirements-dev.txt)", allow_module_level=True)

pytestmark = pytest.mark.slow
expect.set_options(timeout=30_000)  # what waits for less fails where another's work is in the way

RUN_S, EXPORT_S = 600, 300
"""Patience: other work may share the machine."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return cpu_service(tmp_path_factory.mktemp("page") / "state", poll_s=0.25)


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        temporary = service.config.folder / "tmp"
        temporary.mkdir(parents=True)
        patch.setattr(tempfile, "tempdir", str(temporary))  # to see what is left there, and by nobody else
        if weights_root().exists():
            patch.setenv("SFMTTR_WEIGHTS", str(weights_root()))
        with running(service, patch) as url:
            yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver, launched(driver) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url)
    yield visit
    visit.close()


@pytest.fixture(scope="module")
def street(browser: Browser, url: str) -> str:
    """The street example, run live with preset fast, with its kit made; gives the query that opens the run."""
    visit = Visit(browser, url)
    page = visit.open()
    page.locator("#example-street").click()
    expect(page.locator("#preview .facts")).to_contain_text("60 of 60")
    page.get_by_label("Fast").check()
    page.locator("#go").click()
    page.locator("#live .pair img").first.wait_for(timeout=1000 * RUN_S)
    expect(page.locator("#live .steps li.now")).to_contain_text(re.compile("step|3D"))
    page.locator("#verdict h2").wait_for(timeout=1000 * RUN_S)
    expect(page.locator("#verdict")).to_contain_text("more accurate in this place")
    page.wait_for_url(re.compile(r"\?run="))
    visit.tab("Download")
    page.locator("#make-kit").click()
    page.locator('.offer[href$="/kit.zip"]').wait_for(timeout=1000 * EXPORT_S)
    visit.check_quiet()
    query = page.url.removeprefix(url)
    visit.close()
    return query


def opened(visit: Visit, query: str) -> Any:
    """The results of a finished run."""
    page = visit.open(query)
    page.locator("#verdict h2").wait_for()
    return page


# ------------------------------------------------------------------------------------ acceptance


def test_compare_moves_and_switches_frames(visit: Visit, street: str) -> None:
    page = opened(visit, street)
    compare = page.locator("#compare depth-compare")
    divider, frames = compare.get_by_label("Divider"), compare.get_by_label("Frame", exact=True)
    box = divider.bounding_box()
    assert box is not None
    divider.click(position={"x": 0.8 * box["width"], "y": 50})
    assert float(compare.get_attribute("data-split") or 0) == pytest.approx(80, abs=4)
    divider.focus()
    page.keyboard.press("Home")
    assert compare.get_attribute("data-split") == "0"
    picture = compare.locator("img").first.get_attribute("src")
    frames.focus()
    page.keyboard.press("ArrowRight")
    assert compare.get_attribute("data-frame") == "31"
    assert compare.locator("img").first.get_attribute("src") != picture
    expect(compare.locator(".dc-counter")).to_have_text("32 / 60")
    for layer in ("photo", "after_fused", "error_after"):
        compare.locator("select").last.select_option(layer)
        page.wait_for_function("() => document.querySelector('#compare .dc-stage img').naturalWidth > 0")
        assert f"/{layer}/31.webp" in (compare.locator("img").first.get_attribute("src") or "")
    compare.get_by_label("Play").click()
    page.wait_for_function("() => document.querySelector('#compare depth-compare').dataset.frame !== '31'")
    page.wait_for_function("() => document.querySelector('#compare video').readyState >= 1")
    visit.check_quiet()


def test_every_tab_opens_and_3d_is_drawn(visit: Visit, street: str) -> None:
    page = opened(visit, street)
    for name in ("before", "after"):
        assert page.locator(f"#model-{name} canvas").count() == 0
    visit.tab("3D")
    for name in ("before", "after"):
        page.locator(f"#model-{name} canvas").wait_for()
        page.wait_for_function(_DRAWN, arg=f"#model-{name} canvas", timeout=60_000)
    visit.tab("Points")
    expect(page.locator("#points .legend")).to_contain_text("Held out (used only to measure)")
    expect(page.locator("#points svg.chart circle")).to_have_count(60)
    visit.tab("Report")
    expect(page.locator("#report tr.after").first).to_contain_text("0.")
    expect(page.locator("#report svg.chart")).to_have_count(2)
    expect(page.locator("#report .health")).to_contain_text("60 of 60")
    visit.tab("Download")
    assert page.locator(".offer").count() >= 12
    visit.tab("Try it")
    page.locator("#try-go").wait_for()
    visit.check_quiet()


@pytest.mark.parametrize("wait_ms", [0, 30, 100])
def test_3d_is_drawn_for_who_opens_it_at_once(visit: Visit, street: str, wait_ms: int) -> None:
    """While the page is still making its tabs, and with the viewer's code coming late."""
    visit.page.add_init_script(_OPENS_3D.replace("WAIT_MS", str(wait_ms)))
    visit.page.route("**/Canvas3D-*.js", lambda route: (time.sleep(2), route.continue_()))
    opened(visit, street)
    for name in ("before", "after"):
        visit.page.locator(f"#model-{name} canvas").wait_for()
    visit.check_quiet()


_OPENS_3D = """(() => {
  const watcher = new MutationObserver(() => {
    const tabs = [...document.querySelectorAll('#tabs button[role=tab]')];
    const tab = tabs.find(each => each.textContent.trim() === '3D' && each.checkVisibility({visibilityProperty: true}));
    if (!tab) return;
    watcher.disconnect();
    setTimeout(() => tab.click(), WAIT_MS);
  });
  watcher.observe(document, {subtree: true, childList: true, attributes: true});
})()"""
_DRAWN = """selector => new Promise(resolve => requestAnimationFrame(() => {
  const canvas = document.querySelector(selector);
  const copy = document.createElement('canvas');
  copy.width = copy.height = 64;
  const context = copy.getContext('2d');
  context.drawImage(canvas, 0, 0, 64, 64);
  const data = context.getImageData(0, 0, 64, 64).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3]) colours.add(data.slice(i, i + 3).join());
  }
  resolve(colours.size > 20);
}))"""


def test_the_kit_is_downloaded_and_its_page_is_served(visit: Visit, street: str, tmp_path: Path) -> None:
    page = opened(visit, street)
    visit.tab("Download")
    with page.expect_download() as download:
        page.locator('.offer[href$="/kit.zip"]').click()
    download.value.save_as(tmp_path / "kit.zip")
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        assert archive.testzip() is None
        assert {"kit.json", "infer.py", "index.html", "models/depth-int8.onnx"} <= set(archive.namelist())
        assert json.loads(archive.read("kit.json"))["network"] == "bundled"
    with page.expect_download() as download:
        page.locator('.offer[href$="/colmap.zip"]').click()
    download.value.save_as(tmp_path / "colmap.zip")
    assert any(name.endswith("points3D.bin") for name in zipfile.ZipFile(tmp_path / "colmap.zip").namelist())
    visit.tab("Try it")
    address = page.locator("a.kit-link").get_attribute("href")
    answer = page.request.get(f"{visit.url.rstrip('/')}/{address}")
    assert answer.ok
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    outside = address.removesuffix("index.html") + "..%2f..%2fmanifest.json"
    assert not page.request.get(f"{visit.url.rstrip('/')}/{outside}").ok
    visit.check_quiet()


def test_the_exported_network_is_tried_on_another_frame_and_on_a_photo(
    visit: Visit, street: str, service: Service
) -> None:
    page = opened(visit, street)
    visit.tab("Try it")
    page.locator("#try-frame input[type=number]").fill("17")
    page.locator("#try-frame input[type=number]").press("Tab")
    page.locator("#try-go").click()
    expect(page.locator("#predicted")).to_contain_text("depth-fp32.onnx")
    expect(page.locator("#predicted")).to_contain_text("ms on CPU")
    photo = next((service.config.folder / "visitors").glob("*/run/frames/000005.png"))
    page.set_input_files("#try-picture input[type=file]", str(photo))
    page.locator("#try-picture img").wait_for()
    page.get_by_label("int8").check()
    page.locator("#try-go").click()
    expect(page.locator("#predicted")).to_contain_text("depth-int8.onnx")
    visit.check_quiet()


def test_a_stranger_sees_nothing_and_a_link_opens_the_run(visit: Visit, street: str) -> None:
    page = visit.open()
    page.wait_for_timeout(1500)
    expect(page.locator("#verdict")).not_to_be_visible()
    page.goto(visit.url + street)
    page.locator("#verdict h2").wait_for()
    page.reload()
    page.locator("#verdict h2").wait_for()
    page.goto(visit.url + "?run=" + "x" * 22)
    expect(page.locator("#live .notice")).to_contain_text("not found")
    visit.check_quiet()


# -------------------------------------------------------------------------------------- stopping


def quiet_within(service: Service, seconds: float) -> float:
    """Wait until nothing of a run is left; how long that took. Fails when it takes longer."""
    started = time.monotonic()
    while (left := leftovers(service)) and time.monotonic() - started < seconds:
        time.sleep(0.05)
    assert left == []
    return time.monotonic() - started


def leftovers(service: Service) -> list[str]:
    """Jobs, child processes, temporary files and unfinished folders."""
    found = [f"{service.jobs.running} jobs"] if service.jobs.running else []
    found += [] if service.queue.idle else ["somebody in line"]
    found += [f"child: {line}" for line in own_children()]
    found += [str(path) for path in (service.config.folder / "tmp").glob("sfmttr-*")]
    visitors = service.config.folder / "visitors"
    return found + [str(path) for path in visitors.glob("*/run") if not (path / "report.json").is_file()]


def own_children() -> list[str]:
    """Command lines of this process's children that belong to the page."""
    return [line for line in children() if "sfmttr" in line or "demo" in line]


def test_stop_in_structure_from_motion_and_in_refinement(visit: Visit, service: Service) -> None:
    clip = existing(data_root() / "clips" / "kitti_drive_0002.mp4")
    existing(weights_root() / "build_model_best_kitti_xxs")
    page = visit.open()
    page.set_input_files("#upload input[type=file]", str(clip))
    expect(page.locator("#preview .facts")).to_contain_text("1242")
    page.locator("#network input").click()
    page.get_by_role("option", name=re.compile("meter-xxs-kitti")).click()
    page.get_by_label("Accurate", exact=True).check()
    page.locator("#go").click()
    visit.stop_in("3D points", 60)
    quiet_within(service, 3.0)
    expect(page.locator("#live")).to_contain_text("Stopped")
    page.locator("#go").click()
    visit.stop_in("Fine-tune the network", RUN_S)
    quiet_within(service, 3.0)
    expect(page.locator("#live")).to_contain_text("Stopped")
    expect(page.locator("#go")).to_be_enabled()
    visit.check_quiet()


def test_stop_ends_an_export(visit: Visit, street: str, service: Service) -> None:
    page = opened(visit, street)
    visit.tab("Download")
    page.locator("#make-kit").click()
    expect(page.locator("#export-live")).to_contain_text(re.compile("ONNX|Loading"), timeout=60_000)
    assert own_children()
    page.locator("#stop-kit").click()
    quiet_within(service, 3.0)
    expect(page.locator("#export-live")).to_contain_text("Stopped")
    assert not list((service.config.folder / "visitors").glob("*/run/.tmp-*"))
    visit.check_quiet()


def test_leaving_ends_the_run(browser: Browser, url: str, service: Service) -> None:
    visit = Visit(browser, url)
    page = visit.open()
    page.locator("#example-room").click()
    expect(page.locator("#preview .facts")).to_contain_text("60")
    page.locator("#go").click()
    page.locator("#live .steps").wait_for()
    visit.close()
    quiet_within(service, 10.0)


@pytest.mark.parametrize("patience_ms", range(0, 105, 7))
def test_a_setting_changed_in_haste_is_not_lost(visit: Visit, patience_ms: int) -> None:
    """An answer that is on its way when the next change is made must neither swallow it nor come out on top."""
    page = visit.open()
    visit.advanced()
    frames = page.locator("#max-frames input[type=number]")
    page.locator("#example-street").click()
    expect(page.locator("#preview .facts")).to_contain_text("60 of 60")
    frames.fill("20")  # what is typed is told when the field is left, here for another clip
    page.locator("#example-room").click()
    page.wait_for_timeout(patience_ms)
    frames.fill("14")
    frames.press("Tab")
    facts = page.locator("#preview .facts")
    expect(facts).to_contain_text("14 of 60")
    expect(facts).to_contain_text(re.compile("640 . 480"))


# ------------------------------------------------------------------------------- other networks


def test_a_model_in_a_folder_is_named_by_keyboard_and_refined(
    visit: Visit, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[Preset.FAST]  # so tiny a model has to move more than a real one to gain anything
    faster = replace(recipe, refine=replace(recipe.refine, learning_rate=1e-3))
    monkeypatch.setitem(RECIPES, Preset.FAST, faster)
    clip = next(each.clip for each in service.config.examples if each.name == "room")
    folder = write_fitted_to(tmp_path / "my-depth", clip, tmp_path / "frames", side=140)
    page = visit.open()
    page.locator("#example-room").click()
    expect(page.locator("#preview .facts")).to_contain_text("60")
    visit.advanced()
    page.locator("#max-frames input[type=number]").fill("14")
    page.locator("#max-frames input[type=number]").press("Tab")
    expect(page.locator("#preview .facts")).to_contain_text("14 of 60")
    page.locator("#network input").focus()
    for _ in networks.names():
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    name = page.locator("#other").get_by_role("textbox")
    name.wait_for()
    page.keyboard.press("Tab")
    expect(name).to_be_focused()
    for wrong, sentence in (("not there", "neither a model on the Hub nor a folder"), (str(tmp_path), "config.json")):
        name.fill(wrong)
        name.press("Enter")
        expect(page.locator("#about .notice")).to_contain_text(sentence)
    name.fill(str(folder))
    name.press("Enter")
    expect(page.locator("#about")).to_contain_text("hf:my-depth")
    expect(page.locator("#about")).to_contain_text("License: cc0-1.0")
    page.locator("#go").click()
    page.locator("#verdict h2").wait_for(timeout=1000 * RUN_S)
    page.wait_for_url(re.compile(r"\?run="))
    expect(page.locator("#verdict")).to_contain_text("the original network with the best scale and shift")
    compare = page.locator("#compare depth-compare")
    expect(compare.locator(".dc-left")).to_have_text("before, best scale and shift")
    page.wait_for_function("() => document.querySelector('#compare .dc-over').naturalWidth > 0")
    assert "/aligned/" in (compare.locator(".dc-over").get_attribute("src") or "")
    visit.tab("3D")
    page.locator("#model-before canvas").wait_for(timeout=60_000)
    expect(page.locator("#model-before")).to_contain_text("before, best scale and shift")
    visit.tab("Report")
    expect(page.locator("#report")).to_contain_text("network hf:my-depth (license: cc0-1.0)")
    assert str(tmp_path) not in page.locator("#results").inner_text()
    visit.check_quiet()


# -------------------------------------------------------------------------------------- mistakes


def test_bad_uploads_end_with_a_sentence_and_the_next_upload_works(
    visit: Visit, room: RenderedClip, tmp_path: Path, service: Service
) -> None:
    page = visit.open()
    for upload in bad_uploads(room, tmp_path / "bad").values():
        page.set_input_files("#upload input[type=file]", str(upload.file))
        if upload.intrinsics:
            visit.advanced()
            page.locator("#intrinsics textarea, #intrinsics input").first.fill(upload.intrinsics)
        page.locator("#preview .facts, #preview .notice").first.wait_for()
        if page.locator("#preview .facts").count():
            page.locator("#go").click()
        assert re.search(upload.sentence, visit.notice(60))
        body = page.locator("body").inner_text()
        assert "Traceback" not in body
        assert str(tmp_path) not in body
        page.locator("#upload").get_by_label("Clear").first.click()
        expect(page.locator("#preview")).to_be_empty()
        page.reload()
        page.wait_for_selector("#go")
    quiet_within(service, 3.0)
    page.set_input_files("#upload input[type=file]", str(tmp_path / "bad" / "fine.mp4"))
    expect(page.locator("#preview .facts")).to_contain_text("12")
    expect(page.locator("#go")).to_be_enabled()
    visit.check_quiet()


# ----------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge_of_a_phone(browser: Browser, url: str, street: str, scheme: str) -> None:
    visit = Visit(browser, url, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page = opened(visit, street)
    for tab in ("Compare", "3D", "Points", "Report", "Download", "Try it"):
        visit.tab(tab)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    visit.check_quiet()
    visit.close()


def test_everything_can_be_reached_by_keyboard(visit: Visit) -> None:
    page = visit.open()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('[id]')?.id"))
    assert {"example-street", "example-room"} <= reached
    page.locator("#example-room").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#preview .facts")).to_contain_text("60")
    expect(page.locator("#go")).to_be_enabled()
    page.locator("#go").focus()
    assert page.evaluate("document.activeElement.id") == "go"


# -------------------------------------------------------------------------------------- programs


def test_the_readme_s_program_runs(
    url: str, street: str, service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # it names an example of the repository
    photo = next((service.config.folder / "visitors").glob("*/run/frames/000005.png"))
    code = marked_block("docs/python.md", "api").replace("http://127.0.0.1:7860", url).replace("photo.jpg", str(photo))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["status"]["refined"] is True
    assert zipfile.is_zipfile(names["kit"])
    depth = read_depth_png(Path(names["depth"]))
    assert depth.kind is DepthKind.SCALE_INVARIANT
    assert names["facts"]["depth"] in capsys.readouterr().out
    assert Path(names["coloured"]).stat().st_size > 1000
