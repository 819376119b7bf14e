"""The page at `/` in a real browser: from upload to played result, and what people do wrong."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
assert _SPEC and _SPEC.loader
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120_000  # milliseconds that a step of the page may take
KEY = "open sesame"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with kit.serving(tmp_path_factory.mktemp("service")) as server:
        yield server


@contextmanager
def visit(browser: Any, url: str, **context: Any) -> Iterator[Any]:
    """The page, freshly opened. Afterwards it must not have broken its own rules or met an error of its own."""
    trouble: list[str] = []
    guest = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
    page = guest.new_page()
    page.set_default_timeout(SECONDS)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    yield page
    guest.close()
    assert trouble == []


def fill(page: Any, clip: Path, words: str) -> None:
    """What a person does first."""
    page.wait_for_selector("#engine option[value=fake]", state="attached")
    page.set_input_files("#source", clip)
    page.fill("#text", words)
    page.select_option("#engine", "fake")


def without_report(page: Any) -> None:
    page.click("#more summary")
    page.uncheck("#report")


def newest(server: Any) -> Any:
    return server.jobs.find(None, limit=1)[0]


def wait_for(page: Any, expression: str) -> None:
    """Until something is true in the page; the page's rules forbid `wait_for_function`, which makes code from text."""
    for _ in range(SECONDS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def says(page: Any, selector: str, words: str) -> None:
    page.locator(selector, has_text=words).first.wait_for()


def test_from_upload_to_the_played_result(browser: Any, server: Any, face_clip: Path, tmp_path: Path) -> None:
    with visit(browser, server.url) as page:
        says(page, "#ready", "Ready")
        fill(page, face_clip, "Good morning.")
        without_report(page)
        page.click("#create")
        says(page, "#stage", "Waiting for its turn")
        job = server.jobs.claim("tester", 2)
        server.jobs.progress(job.id, job.fence, "render", 28, 45, 0.62, 34.0)
        says(page, "#stage", "Painting the new mouth")
        says(page, "#percent", "62 %")
        says(page, "#detail", "28 of 45 frames")
        with server.worker():  # takes the job over once the tester's lease is over
            page.wait_for_selector("#player", state="visible")
            wait_for(page, "after.videoWidth === 256 && before.videoWidth === 256")
            page.click("#play")
            wait_for(page, "after.currentTime > 0.5")
            assert page.evaluate("Math.abs(after.currentTime - before.currentTime)") < 0.4, "both play in step"
            wait_for(page, "after.ended")
            with page.expect_download() as download:
                page.click("#download")
            download.value.save_as(tmp_path / "got.mp4")
    done = server.jobs.get(job.id)
    assert (done.status, done.spec.speech[0].text, done.spec.engine) == ("succeeded", "Good morning.", "fake")
    assert (tmp_path / "got.mp4").read_bytes() == server.media.fetch(done.result).read_bytes()
    assert download.value.suggested_filename.endswith(".mp4")


def test_a_sound_for_a_part_of_the_clip_arrives_as_chosen(browser: Any, server: Any, face_clip: Path, speech_file: Path) -> None:
    with visit(browser, server.url) as page:
        fill(page, face_clip, "Not this.")
        page.check("[name=speech][value=audio]", force=True)
        page.set_input_files("#audio", speech_file)
        page.select_option("#sync-mode", "loop")
        page.click("#more summary")
        page.select_option("#quality", "small")
        page.fill("#start", "0.5")
        page.fill("#end", "1,25")
        page.click("#create")
        says(page, "#stage", "Waiting for its turn")
        job = newest(server)
        page.click("#cancel")
        says(page, "#badge", "cancelled")
    (part,) = job.spec.speech
    assert (part.start, part.end, part.text) == ("0.5", "1.25", None)
    assert server.media.fetch(part.audio).read_bytes() == speech_file.read_bytes()
    assert (job.spec.sync_mode, job.spec.quality) == ("loop", "small")
    assert server.jobs.get(job.id).status == "cancelled"


def test_what_is_missing_or_refused_is_said_in_place(browser: Any, server: Any, face_clip: Path, tmp_path: Path) -> None:
    before = len(server.jobs.find(None, limit=100))
    text = tmp_path / "words.mp4"
    text.write_text("just words " * 100)
    with visit(browser, server.url) as page:
        page.wait_for_selector("#engine option[value=fake]", state="attached")
        page.click("#create")
        says(page, "#form-error", "Choose a video")
        page.set_input_files("#source", face_clip)
        page.click("#create")
        says(page, "#form-error", "Type the words")
        page.click("#source-drop .picked button")
        fill(page, text, "Hello.")
        page.click("#create")
        says(page, "#form-error", "expected a video file")
        assert page.is_enabled("#create")
    assert len(server.jobs.find(None, limit=100)) == before


def test_the_report_is_waited_for_and_then_linked(browser: Any, server: Any, face_clip: Path, tmp_path: Path) -> None:
    with server.client() as client:
        client.post("/v1/videos", data={"model": "fake", "text": "Hello."}, files={"video": face_clip.read_bytes()})
    job = server.jobs.claim("tester", 60)
    result, report = f"results/{job.id}.mp4", f"reports/{job.id}"
    server.media.put(face_clip, result)
    server.jobs.succeed(job.id, job.fence, result, report, {"width": 256, "height": 256, "seconds": 1.8}, 3600)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.json").write_text("{}")
    (tmp_path / "made" / "report.html").write_text("<!doctype html><h1>All is well</h1>")
    with visit(browser, f"{server.url}/#{job.id}") as page:
        says(page, "#about", "256 × 256")
        page.wait_for_selector("#report-note", state="visible")
        assert page.is_hidden("#report-link")
        server.media.put_folder(tmp_path / "made", report)
        page.wait_for_selector("#report-link", state="visible")
        with page.context.expect_page() as opened:
            page.click("#report-link")
        says(opened.value, "h1", "All is well")


def test_what_others_wrote_is_shown_and_never_run(browser: Any, server: Any, face_clip: Path) -> None:
    evil = '<img src=x onerror="document.title=1"> & "words"'
    with server.client() as client:
        files = {"video": face_clip.read_bytes()}
        job = client.post("/v1/videos", data={"model": "fake", "text": evil}, files=files).json()
    claimed = server.jobs.claim("tester", 60)
    assert claimed.id == job["id"]
    server.jobs.fail(claimed.id, claimed.fence, "no_face", evil)
    with visit(browser, f"{server.url}/#{job['id']}") as page:
        says(page, "#job-error", evil)
        says(page, "#recent li", evil)
        assert page.locator("#job img[src=x], #recent img").count() == 0
        assert page.title() == "lipsync-serve"


def test_a_server_with_keys_asks_for_one_and_then_everything_works(browser: Any, face_clip: Path, tmp_path: Path) -> None:
    keys = (sha256(KEY.encode()).hexdigest(),)
    with kit.serving(tmp_path, api_keys=keys) as server, server.worker(), visit(browser, server.url) as page:
        page.wait_for_selector("#key-form", state="visible")
        page.fill("#key", "wrong")
        page.click("#key-form button")
        says(page, "#key-error", "does not know this key")
        page.fill("#key", KEY)
        page.click("#key-form button")
        page.wait_for_selector("#key-form", state="hidden")
        fill(page, face_clip, "Hello.")
        without_report(page)
        page.click("#create")
        page.wait_for_selector("#player", state="visible")
        page.click("#play")
        wait_for(page, "after.currentTime > 0.2 && after.videoWidth === 256")
        assert page.evaluate("localStorage.length + document.cookie.length") == 0, "the key goes with the tab"
        assert KEY not in json.dumps(page.evaluate("performance.getEntries().map((entry) => entry.name)")), "never in an address"


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_the_page_fits_phones_and_dark_rooms(browser: Any, server: Any, width: int, scheme: str) -> None:
    with visit(browser, server.url, color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_selector("#engine option[value=fake]", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
        assert (sum(shade) < 384) == (scheme == "dark")
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea, button')].filter((field) => field.offsetParent &&"
            " !field.labels?.length && !field.ariaLabel && !field.textContent.trim()).map((field) => field.id)"
        )
        assert unnamed == [], "every field has a name that is read aloud"
