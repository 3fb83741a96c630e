"""The kit's page in a real browser: headless Chromium, from a static server, as a person would click through it."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from export.kit import ort_web
from export.kit.ort_web import WebRuntimeError
from export.runtime import OnnxDepth
from sfmttr.io.depth_files import read_depth_png
from sfmttr.types import DepthKind
from tests.support.exported import Exported
from tools.synthetic import render_room, write_video

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright, Route, expect, sync_playwright
else:
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        pytest.skip("needs playwright (requirements-dev.txt)", allow_module_level=True)

pytestmark = pytest.mark.slow

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP kit.test 127.0.0.1"),
)
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SOFTWARE_GPU = (
    *("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"),
    *("--use-vulkan=swiftshader", "--ignore-gpu-blocklist"),
)
PATIENCE_MS = 60_000
CDN = "https://cdn.jsdelivr.net/**"


# ------------------------------------------------------------------------------------ kit and server


@pytest.fixture(scope="module")
def runtime() -> dict[str, bytes]:
    """The browser's runtime, or a skip where there is no registry."""
    try:
        return ort_web.read_files()
    except WebRuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def kit(exported: Exported, runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unzipped kit with everything in it."""
    return exported.build_kit(tmp_path_factory.mktemp("kits") / "kit", bundle_runtime=True)


@pytest.fixture(scope="module")
def cdn_kit(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unzipped kit whose page fetches the runtime from elsewhere."""
    return exported.build_kit(tmp_path_factory.mktemp("kits") / "cdn")


class PlainHandler(SimpleHTTPRequestHandler):
    """`python -m http.server`."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, *, isolated: bool = True) -> Iterator[int]:
    """The port of a server of `folder`: the kit's own, which isolates the page, or a plain one."""
    if isolated:
        spec = importlib.util.spec_from_file_location("kit_serve", folder / "serve.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        server = module.make_server(0)
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(PlainHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port(kit: Path) -> Iterator[int]:
    with served(kit) as port:
        yield port


# ------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@contextmanager
def launched(driver: Playwright, *flags: str) -> Iterator[Browser]:
    """A browser, or a skip where there is none."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    browser = driver.chromium.launch(executable_path=path, args=[*QUIET, *flags])
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    with launched(driver, *FAKE_CAMERA) as browser:
        yield browser


class Visit:
    """A page, and what it should not have done."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, port: int, host: str = "127.0.0.1") -> Page:
        """Go to the page and wait until it shows depth."""
        self.page.goto(f"http://{host}:{port}/")
        self.page.wait_for_selector("body.ready")
        expect(self.page.locator("#speed")).to_contain_text("ms")
        return self.page

    def message(self) -> str:
        """Error that the page shows."""
        box = self.page.locator("#message")
        box.wait_for(state="visible")
        return box.inner_text()

    def largest_difference(self) -> float:
        return float(self.page.locator("#check-verdict").get_attribute("data-largest") or "nan")

    def check(self) -> str:
        """Press the button of the self-check; its verdict."""
        self.page.get_by_role("button", name="Check again").click()
        expect(self.page.locator("#check-verdict")).to_have_class(re.compile("good|bad"))
        return self.page.locator("#check-verdict").inner_text()

    def saved_depth(self, path: Path) -> np.ndarray:
        """Depth that the page lets people save, and that is stated in it."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Save depth").click()
        download.value.save_as(path)
        png = read_depth_png(path)
        assert png.kind is DepthKind.SCALE_INVARIANT
        return png.values


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Visit(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def photo(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of another size than the clip's."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    with Image.open(kit / "check" / "frame.png") as image:
        image.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((261, 180)).save(path)
    return path


def native(kit: Path, photo: Path, variant: str = "fp32") -> np.ndarray:
    return OnnxDepth(kit / "models" / f"depth-{variant}.onnx").predict(np.asarray(Image.open(photo)))


# -------------------------------------------------------------------------------------- click paths


def test_picture_self_check_and_int8(visit: Visit, port: int, kit: Path, photo: Path, tmp_path: Path) -> None:
    page = visit.open(port)
    assert visit.largest_difference() < 1e-3
    assert page.locator("#check-verdict").inner_text() == "Passed"

    page.set_input_files("#picture-file", photo)
    expect(page.locator("#picture-name")).to_have_text("photo.png")
    saved = visit.saved_depth(tmp_path / "depth.png")
    exact = native(kit, photo)
    np.testing.assert_allclose(saved, exact, rtol=1e-3)

    assert visit.check() == "Passed"
    assert visit.largest_difference() < 1e-3

    page.get_by_label("int8").check()
    expect(page.locator("#models")).not_to_have_attribute("aria-busy", "true")
    assert page.locator("#check-verdict").inner_text() == "Passed"
    assert visit.largest_difference() > 1e-3, "int8 computed what fp32 does"
    saved = visit.saved_depth(tmp_path / "depth-int8.png")
    np.testing.assert_allclose(np.median(saved / native(kit, photo, "int8")), 1, atol=0.02)
    page.screenshot(path=tmp_path / "page.png", full_page=True)

    assert visit.errors == []
    assert {url.split("/")[2] for url in visit.asked if not url.startswith(("blob:", "data:"))} == {f"127.0.0.1:{port}"}


def test_depth_under_the_pointer(visit: Visit, port: int, kit: Path, photo: Path, tmp_path: Path) -> None:
    page = visit.open(port)
    page.set_input_files("#picture-file", photo)
    expect(page.locator("#picture-name")).to_have_text("photo.png")
    depth = native(kit, photo)
    box = page.locator("#depth").bounding_box()
    assert box
    for x, y in ((6, 6), (130, 90), (254, 173)):  # the corners are round
        place = {"x": (x + 0.5) * box["width"] / 261, "y": (y + 0.5) * box["height"] / 180}
        page.hover("#depth", position=place)  # type: ignore[arg-type]
        assert_reads(page, depth, x, y)
    page.focus("#depth")
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert_reads(page, depth, 254 - 11, 172)
    assert page.locator(".mark:visible").count() == 2


def assert_reads(page: Page, depth: np.ndarray, x: int, y: int) -> None:
    said = page.locator("#readout").inner_text()
    found = re.fullmatch(r"([\d.]+) units at pixel \((\d+), (\d+)\)", said)
    assert found, said
    assert (int(found[2]), int(found[3])) == (x, y)
    assert float(found[1]) == pytest.approx(depth[y, x], rel=6e-3)


def test_colours_and_range(visit: Visit, port: int) -> None:
    page = visit.open(port)
    pixels = "() => [...document.getElementById('depth').getContext('2d').getImageData(40, 30, 1, 1).data]"
    ticks = page.locator("#ticks span").first
    spectral, place = page.evaluate(pixels), ticks.get_attribute("style")
    page.select_option("#map", "grey")
    grey = page.evaluate(pixels)
    assert len(set(grey[:2])) == 1
    assert spectral != grey
    page.select_option("#range", "own")
    assert ticks.get_attribute("style") != place
    with page.expect_download() as download:
        page.get_by_role("button", name="Save colours").click()
    assert download.value.suggested_filename == "depth-colours.png"


def test_on_a_phone(browser: Browser, port: int, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = Visit(context.new_page()).open(port)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.tap("#depth")
    assert "at pixel" in page.locator("#readout").inner_text()
    for control in page.locator("button:visible, select:visible, label.button:visible").all():
        box = control.bounding_box()
        assert box
        assert box["height"] >= 38, control.inner_text()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    context.close()


def test_clip(visit: Visit, port: int, tmp_path: Path) -> None:
    write_video(render_room(12, (120, 160)), tmp_path / "room.mp4")
    page = visit.open(port)
    page.get_by_label("Clip", exact=True).check()
    page.set_input_files("#clip-file", tmp_path / "room.mp4")
    expect(page.locator("#speed")).to_contain_text("frames/s")
    assert page.locator("#picture-name").inner_text() == "room.mp4"
    assert page.evaluate("document.getElementById('depth').width") == 160
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert re.fullmatch(r"0:0\d / 0:01", page.locator("#clock").inner_text())
    page.get_by_label("int8").check()  # what stands still is computed again
    expect(page.locator("#speed")).to_have_text(re.compile(r"^\d+ ms$"))
    page.get_by_label("Picture", exact=True).check()
    page.get_by_role("button", name="Stored frame").click()
    expect(page.locator("#picture-name")).to_contain_text("Stored frame")
    assert page.evaluate("document.getElementById('video').paused")
    assert visit.errors == []


def test_camera(visit: Visit, port: int) -> None:
    page = visit.open(port)
    page.get_by_label("Camera", exact=True).check()
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("#speed")).to_contain_text("frames/s")
    assert page.evaluate("document.getElementById('video').srcObject.getVideoTracks()[0].readyState") == "live"
    page.evaluate("window.track = document.getElementById('video').srcObject.getVideoTracks()[0]")
    page.get_by_label("int8").check()  # while it runs
    expect(page.locator("#models")).not_to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("window.track.readyState") == "ended"
    assert page.get_by_role("button", name="Start the camera").is_visible()
    assert visit.errors == []


def test_camera_that_is_allowed_too_late_stays_off(visit: Visit, port: int) -> None:
    visit.page.add_init_script(
        """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((resolve) => setTimeout(resolve, 1000));
            return (window.stream = await ask(wanted));
        };"""
    )
    page = visit.open(port)
    page.get_by_label("Camera", exact=True).check()
    page.get_by_role("button", name="Start the camera").click()
    page.get_by_label("Picture", exact=True).check()
    page.wait_for_timeout(2000)
    assert page.evaluate("window.stream.getTracks().every((track) => track.readyState === 'ended')")
    assert page.locator("#picture-name").inner_text().startswith("Stored frame")


def test_dropped_picture(visit: Visit, port: int, photo: Path) -> None:
    page = visit.open(port)
    data = page.evaluate_handle(
        """async (bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
            return data;
        }""",
        list(photo.read_bytes()),
    )
    page.dispatch_event("#depth", "dragover", {"dataTransfer": data})
    assert page.locator("#dropzone").is_visible()
    page.dispatch_event("#depth", "drop", {"dataTransfer": data})
    expect(page.locator("#picture-name")).to_have_text("dropped.png")
    assert not page.locator("#dropzone").is_visible()


def test_caution_stays_in_sight(visit: Visit, port: int) -> None:
    page = visit.open(port)
    assert not page.locator("#caution").is_visible()
    page.route("**/kit.json", altered('"caution": ""', '"caution": "Not to be trusted."'))
    page = visit.open(port)
    assert page.locator("#caution").inner_text() == "Not to be trusted."


# ------------------------------------------------------------------------------------ where it runs


def test_plain_server_gives_one_thread_and_says_why(visit: Visit, kit: Path) -> None:
    with served(kit, isolated=False) as port:
        page = visit.open(port)
        assert page.locator("#engine").inner_text() == "WASM, 1 thread"
        assert "serve.py" in page.locator("#engine-text").inner_text()
        assert visit.largest_difference() < 1e-3


def test_insecure_page_still_checks_what_it_fetches(visit: Visit, kit: Path, tmp_path: Path) -> None:
    """Over plain http from another machine: no digests, no camera; pictures work."""
    with served(kit, isolated=False) as port:
        page = visit.open(port, host="kit.test")
        assert not page.evaluate("isSecureContext")
        assert visit.largest_difference() < 1e-3
        page.get_by_label("Camera", exact=True).check()
        page.get_by_role("button", name="Start the camera").click()
        assert "https://, or from localhost" in visit.message()
    spoiled = spoil(kit, tmp_path, "models/depth-fp32.onnx")
    with served(spoiled, isolated=False) as port:
        visit.page.goto(f"http://kit.test:{port}/")
        assert "depth-fp32.onnx could not be fetched" in visit.message()


def test_camera_refused(driver: Playwright, port: int) -> None:
    with launched(driver, "--use-fake-device-for-media-stream") as browser:
        context = browser.new_context(permissions=[])
        visit = Visit(context.new_page())
        page = visit.open(port)
        page.get_by_label("Camera", exact=True).check()
        page.get_by_role("button", name="Start the camera").click()
        assert "Allow it for this page" in visit.message()
        assert page.get_by_role("button", name="Start the camera").is_visible()


def test_no_camera(driver: Playwright, port: int) -> None:
    with launched(driver, "--use-fake-ui-for-media-stream") as browser:
        visit = Visit(browser.new_page())
        page = visit.open(port)
        page.get_by_label("Camera", exact=True).check()
        page.get_by_role("button", name="Start the camera").click()
        assert "No camera was found" in visit.message()


def test_opened_as_a_file(browser: Browser, kit: Path) -> None:
    page = browser.new_page()
    page.goto((kit / "index.html").as_uri())
    assert "python serve.py" in page.locator("#status").inner_text()
    page.close()


# --------------------------------------------------------------------------------------- CDN


def test_runtime_from_the_cdn(visit: Visit, cdn_kit: Path, runtime: dict[str, bytes]) -> None:
    visit.page.route(CDN, from_cdn(lambda name: runtime[name]))
    with served(cdn_kit) as port:
        visit.open(port)
    assert visit.largest_difference() < 1e-3
    assert visit.errors == []
    fetched = {url for url in visit.asked if "jsdelivr" in url}
    assert fetched == {
        f"https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/{name}"
        for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
    }


def test_altered_runtime_is_not_run(visit: Visit, cdn_kit: Path, runtime: dict[str, bytes]) -> None:
    script = b"globalThis.ran = true;" + runtime["ort.wasm.bundle.min.mjs"][22:]
    visit.page.route(CDN, from_cdn(lambda name: script if name.endswith(".mjs") else runtime[name]))
    with served(cdn_kit) as port:
        visit.page.goto(f"http://127.0.0.1:{port}/")
        assert "ort.wasm.bundle.min.mjs is not the file" in visit.message()


def test_cdn_out_of_reach(visit: Visit, cdn_kit: Path) -> None:
    visit.page.route(CDN, lambda route: route.abort())
    with served(cdn_kit) as port:
        visit.page.goto(f"http://127.0.0.1:{port}/")
        assert "cdn.jsdelivr.net: is there a network connection? A kit made with --bundle-runtime" in visit.message()


def from_cdn(content: Callable[[str], bytes]) -> Callable[[Route], None]:
    headers = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}

    def answer(route: Route) -> None:
        route.fulfill(status=200, headers=headers, body=content(route.request.url.rsplit("/", 1)[1]))

    return answer


# ------------------------------------------------------------------------------------------ failures


def spoil(kit: Path, tmp_path: Path, name: str, size: int | None = None) -> Path:
    """A copy of the kit with one file altered, or cut to `size` bytes."""
    copy = tmp_path / "spoiled"
    shutil.copytree(kit, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content[:size])
    return copy


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("models/depth-fp32.onnx", None, "depth-fp32.onnx is not the file that this kit was made with"),
        ("models/depth-fp32.onnx", 1000, "1000 bytes instead of"),
        ("runtime/ort-wasm-simd-threaded.wasm", None, "ort-wasm-simd-threaded.wasm is not the file"),
        ("check/frame.png", None, "frame.png is not the file"),
        ("kit.json", 100, "kit.json is damaged"),
    ],
)
def test_damaged_kit(visit: Visit, kit: Path, tmp_path: Path, name: str, size: int | None, words: str) -> None:
    with served(spoil(kit, tmp_path, name, size)) as port:
        visit.page.goto(f"http://127.0.0.1:{port}/")
        assert words in visit.message()
        assert not visit.page.locator("#status").is_visible()


def test_incomplete_kit(visit: Visit, kit: Path, tmp_path: Path) -> None:
    copy = spoil(kit, tmp_path, "models/depth-int8.onnx")
    (copy / "models" / "depth-int8.onnx").unlink()
    with served(copy) as port:
        page = visit.open(port)
        page.get_by_label("int8").click()
        assert "depth-int8.onnx could not be fetched (status 404)" in visit.message()
        assert page.get_by_label("fp32").is_checked(), "what is chosen is what runs"


def test_no_picture(visit: Visit, port: int, tmp_path: Path) -> None:
    page = visit.open(port)
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files("#picture-file", tmp_path / "notes.png")
    assert "notes.png is not a picture" in visit.message()
    (tmp_path / "notes.mp4").write_text("no video")
    page.get_by_label("Clip", exact=True).check()
    page.set_input_files("#clip-file", tmp_path / "notes.mp4")
    page.get_by_text("notes.mp4 is not a video").wait_for()


def test_browser_that_alters_pixels_is_found_out(visit: Visit, port: int) -> None:
    visit.page.add_init_script(
        """const read = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...place) {
            const image = read.apply(this, place);
            for (let i = 0; i < image.data.length; i += 4) image.data[i] ^= 7;
            return image;
        };"""
    )
    page = visit.open(port)
    assert page.locator("#check-verdict").inner_text() == "Failed"
    assert page.locator("#chip-check").inner_text().endswith("Self-check failed")
    assert "alters the pixels" in page.locator("#check-text").inner_text()


# -------------------------------------------------------------------------------------------- WebGPU


@pytest.fixture(scope="module")
def gpu_browser(driver: Playwright) -> Iterator[Browser]:
    """Chromium whose WebGPU runs on the processor: right, and slow."""
    with launched(driver, *SOFTWARE_GPU) as browser:
        yield browser


# ------------------------------------------------------------------------------------- in haste


def test_a_model_chosen_before_the_first_depth_is_the_one_that_gives_it(visit: Visit, port: int) -> None:
    page = visit.page
    page.route("**/js/worker.js", altered("const start = performance.now();", SLOW_WASM.replace("8000", "1200")))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("body.ready")
    assert page.locator("#speed").inner_text() == ""
    page.get_by_role("button", name="Save depth").click()
    page.get_by_label("int8").check()
    expect(page.locator("#speed")).to_contain_text("ms")
    expect(page.locator("#models")).not_to_have_attribute("aria-busy", "true")
    assert visit.check() == "Passed"
    assert visit.largest_difference() > 1e-3  # int8's
    expect(page.locator("#message")).to_be_hidden()
    assert visit.errors == []


OPEN_AND_LEAVE = """(bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], 'room.mp4', { type: 'video/mp4' }));
  dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
  document.querySelector('input[name=source][value=picture]').click();
}"""


def test_a_video_that_is_still_being_opened_does_not_come_back(visit: Visit, port: int, tmp_path: Path) -> None:
    page = visit.open(port)
    video = write_video(render_room(12, (120, 160)), tmp_path / "room.mp4")
    page.evaluate(OPEN_AND_LEAVE, list(video.read_bytes()))
    page.wait_for_timeout(2000)
    expect(page.locator("#player")).to_be_hidden()
    expect(page.locator("#clip-hint")).to_have_text("or drop one here")
    expect(page.locator("#message")).to_be_hidden()
    assert page.locator("#picture-name").inner_text() == "Stored frame of the clip"
    assert visit.errors == []


def test_no_webgpu_is_said(visit: Visit, port: int) -> None:
    page = visit.open(port)
    assert page.locator("#gpu-text").inner_text() == "This browser offers no WebGPU here."


@pytest.mark.parametrize("wasm_is_slow", [False, True])
def test_webgpu_is_used_when_it_is_right_and_faster(gpu_browser: Browser, port: int, wasm_is_slow: bool) -> None:
    visit = gpu_visit(gpu_browser)
    if wasm_is_slow:
        visit.page.route("**/js/worker.js", altered("const start = performance.now();", SLOW_WASM))
    page = visit.open(port)
    said = gpu_verdict(page)
    if wasm_is_slow:
        assert re.fullmatch(r"WebGPU runs this model: right, and faster \(\d+ ms, WASM \d+ ms\)\.", said)
        expect(page.locator("#engine")).to_have_text("WebGPU")
        assert visit.check() == "Passed"
        assert visit.largest_difference() < 1e-3
    else:
        assert "it is right but not faster" in said
        assert page.locator("#engine").inner_text().startswith("WASM")
    page.context.close()


def test_webgpu_that_is_wrong_is_not_used(gpu_browser: Browser, port: int) -> None:
    visit = gpu_visit(gpu_browser)
    wrong = "if (provider === 'webgpu') values[values.length >> 1] *= 1.01;\n    const milliseconds"
    visit.page.route("**/js/worker.js", altered("const milliseconds", wrong))
    page = visit.open(port)
    assert "WebGPU was tried and is not used: it differs by up to" in gpu_verdict(page)
    assert page.locator("#engine").inner_text().startswith("WASM")
    page.context.close()


def test_webgpu_that_fails_later_hands_over(gpu_browser: Browser, port: int) -> None:
    visit = gpu_visit(gpu_browser)
    fails = f"{SLOW_WASM}\n    if (provider === 'webgpu' && width === 32) throw new Error('device lost');"
    visit.page.route("**/js/worker.js", altered("const start = performance.now();", fails))
    page = visit.open(port)
    expect(page.locator("#engine")).to_have_text("WebGPU", timeout=2 * PATIENCE_MS)
    page.set_input_files("#picture-file", {"name": "small.png", "mimeType": "image/png", "buffer": small_png()})
    expect(page.locator("#picture-name")).to_have_text("small.png")
    assert page.locator("#gpu-text").inner_text() == "WebGPU stopped (device lost); WASM goes on."
    assert page.locator("#engine").inner_text().startswith("WASM")
    page.context.close()


def test_model_may_change_while_webgpu_is_tried(gpu_browser: Browser, port: int) -> None:
    visit = gpu_visit(gpu_browser)
    page = visit.open(port)
    for name in ("int8", "fp32", "fp16"):
        page.get_by_label(name).check()
        expect(page.locator("#models")).not_to_have_attribute("aria-busy", "true")
    gpu_verdict(page)
    assert page.get_by_label("fp16").is_checked()
    # Trials that were broken off say nothing against WebGPU: those models get one of their own.
    for name in ("int8", "fp32"):
        page.get_by_label(name).check()
        expect(page.locator("#models")).not_to_have_attribute("aria-busy", "true")
        assert re.search("right, and faster|right but not faster", gpu_verdict(page))
    assert visit.check() == "Passed"
    assert visit.errors == []
    page.context.close()


LATE_ADAPTER = """const ask = navigator.gpu?.requestAdapter.bind(navigator.gpu);
let asked = 0;
if (ask) navigator.gpu.requestAdapter = async () => {
  if (asked++ === 0) await new Promise((resolve) => { window.findGpu = resolve; });
  return ask();
};"""


def test_webgpu_of_another_model_does_not_take_over(gpu_browser: Browser, port: int) -> None:
    """The first model's trial begins only when the browser has found a GPU; until then, another may be chosen."""
    visit = gpu_visit(gpu_browser)
    visit.page.add_init_script(LATE_ADAPTER)
    says_slow = "const milliseconds = (provider === 'wasm' ? 8000 : 0) +"  # so that WebGPU is the faster one
    visit.page.route("**/js/worker.js", altered("const milliseconds =", says_slow))
    page = visit.open(port)
    if page.evaluate("() => !window.findGpu"):
        pytest.skip("this Chromium has no software WebGPU")
    page.get_by_label("int8").check()
    expect(page.locator("#gpu-text")).to_have_attribute("data-state", re.compile("used|refused"))
    page.evaluate("() => window.findGpu()")
    page.wait_for_timeout(5000)
    assert visit.check() == "Passed"
    assert visit.largest_difference() > 1e-3  # int8's, not that of the first model, fp32
    assert visit.errors == []
    page.context.close()


SLOW_WASM = """const start = performance.now();
    if (provider === 'wasm') await new Promise((resolve) => setTimeout(resolve, 8000));"""


def gpu_visit(browser: Browser) -> Visit:
    return Visit(browser.new_page())


def gpu_verdict(page: Page) -> str:
    """Result of trying WebGPU."""
    box = page.locator("#gpu-text")
    expect(box).to_have_attribute("data-state", re.compile("absent|used|refused"), timeout=2 * PATIENCE_MS)
    if box.get_attribute("data-state") == "absent":
        pytest.skip("this Chromium has no software WebGPU")
    return box.inner_text()


def altered(old: str, new: str) -> Callable[[Any], None]:
    """Answers with the file of the kit, with `old` replaced."""

    def answer(route: Route) -> None:
        response = route.fetch()
        text = response.text()
        assert text.count(old) == 1
        route.fulfill(response=response, body=text.replace(old, new))

    return answer


def small_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 120, 60)).save(buffer, "PNG")
    return buffer.getvalue()
