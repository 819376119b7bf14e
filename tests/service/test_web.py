"""The page in a real browser, against a real server: from upload to played result, and what goes wrong in words."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

_SPEC = importlib.util.spec_from_file_location("api_kit", Path(__file__).with_name("api_kit.py"))
kit = sys.modules.setdefault("api_kit", importlib.util.module_from_spec(_SPEC))
if not hasattr(kit, "serving"):
    _SPEC.loader.exec_module(kit)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIMIT = 90_000  # milliseconds; only a failing test waits so long
KEY = "open sesame"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here: expected one of {', '.join(BROWSERS)} on PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with kit.serving(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    """The page, just opened. A script error, or a break of its own content policy, fails the test."""
    yield from opened(browser, server.url)


def opened(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LIMIT)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    page.goto(url)
    yield page
    context.close()
    assert wrong == []


def fill(page: Any, clip: Path, words: str = "Hello John.") -> None:
    """The form, as a person fills it."""
    page.locator("#engine option[value=fake]").wait_for(state="attached")
    page.set_input_files("#source", clip)
    page.select_option("#engine", "fake")
    page.fill("#text", words)


def until(page: Any, script: str) -> None:
    """Wait until an expression is true. The page's policy forbids to wait inside it."""
    for _ in range(LIMIT // 100):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {script}")


def test_an_upload_becomes_a_video_that_plays_beside_its_source(server: Any, page: Any, face_clip: Path) -> None:
    fill(page, face_clip)
    page.click("#create")
    page.wait_for_url("**/#video_*")
    page.get_by_text("Waiting for its turn").wait_for()
    with server.worker():
        page.locator("#player").wait_for()
        until(page, "before.readyState > 2 && after.readyState > 2")
        assert page.evaluate("[after.videoWidth, before.videoWidth, after.currentTime]") == [256, 256, 0]
        assert page.evaluate("after.duration") == pytest.approx(1.8, abs=0.1)
        page.get_by_role("button", name="Play").click()
        until(page, "after.currentTime > 0.3 && before.currentTime > 0")
        assert page.evaluate("[after.muted, before.muted]") == [False, True]
        until(page, "after.ended")
        page.locator("#seek").fill("0.8")
        until(page, "after.currentTime === 0.8 && Math.abs(before.currentTime - 0.8) < 0.05")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        job = server.jobs.find(None, limit=1)[0]
        assert Path(download.value.path()).read_bytes() == server.media.fetch(job.result).read_bytes()
        assert download.value.suggested_filename.endswith(".mp4")
        page.locator("#report-link").wait_for()
        with page.context.expect_page() as report:
            page.locator("#report-link").click()
        assert "video" in report.value.locator("body").inner_text()
    assert "Hello John." in page.locator("#recent li").first.inner_text()


def test_a_clip_that_the_browser_cannot_show_is_not_a_black_picture(
    server: Any, page: Any, face_clip: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "old.mp4"
    with av.open(str(face_clip)) as source, av.open(str(clip), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, width=256, height=256, pix_fmt="yuv420p")
        for frame in source.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    fill(page, clip)
    page.click("#create")
    page.wait_for_url("**/#video_*")
    job = server.jobs.claim("tester", 60)
    server.media.put(face_clip, f"results/{job.id}.mp4")
    server.jobs.succeed(job.id, job.fence, f"results/{job.id}.mp4", None, {}, 60)
    page.get_by_text("This browser cannot play the format of the video you sent").wait_for()
    assert not page.locator("#before").is_visible() and not page.locator("#hear-box").is_visible()
    page.get_by_role("button", name="Play").click()
    until(page, "after.currentTime > 0.1")


def test_progress_is_told_live_and_cancel_stops_the_job(server: Any, page: Any, face_clip: Path) -> None:
    fill(page, face_clip)
    page.click("#create")
    page.wait_for_url("**/#video_*")
    page.get_by_text("Waiting for its turn").wait_for()
    job = server.jobs.claim("tester", 60)
    server.jobs.progress(job.id, job.fence, "track", 9, 45, 0.1, 200.0)
    page.get_by_text("Finding the face in every frame").wait_for()
    server.jobs.progress(job.id, job.fence, "render", 30, 45, 0.62, 33.0)
    page.get_by_text("Painting the new mouth").wait_for()
    assert page.inner_text("#percent") == "62 %"
    assert page.inner_text("#detail") + page.inner_text("#eta") == "30 of 45 framesabout 35 s left"
    assert page.evaluate("bar.value") == pytest.approx(0.62)
    with page.expect_response("**/cancel"):
        page.click("#cancel")
    page.get_by_text("Stopping").wait_for()
    assert server.jobs.heartbeat(job.id, job.fence, 60), "the server was asked to cancel"
    server.jobs.cancelled(job.id, job.fence)
    page.get_by_text("This job was cancelled").wait_for()
    assert page.inner_text("#badge") == "Cancelled"


def test_a_job_that_fails_says_why(server: Any, page: Any, face_clip: Path) -> None:
    fill(page, face_clip)
    page.click("#create")
    page.wait_for_url("**/#video_*")
    page.get_by_text("Waiting for its turn").wait_for()
    job = server.jobs.claim("tester", 60)
    server.jobs.fail(job.id, job.fence, "no_face", "expected a face, got <b>none</b>; choose another clip")
    page.get_by_text("expected a face, got <b>none</b>; choose another clip").wait_for()
    page.reload()
    page.get_by_text("expected a face, got <b>none</b>").wait_for()


def test_a_sound_for_a_part_of_the_clip_is_sent_with_all_options(
    server: Any, page: Any, face_clip: Path, speech_file: Path
) -> None:
    fill(page, face_clip, "these words are not used")
    page.get_by_text("Use a sound").click()
    page.set_input_files("#audio", speech_file)
    page.select_option("#sync-mode", "bounce")
    page.get_by_text("More options").click()
    page.fill("#start", "0.5")
    page.fill("#end", "1.2")
    page.fill("#expression", "0.4")
    page.select_option("#face", "speaking")
    page.select_option("#quality", "small")
    page.fill("#chunks", "3")
    page.uncheck("#report")
    page.click("#create")
    page.wait_for_url("**/#video_*")
    spec = server.jobs.find(None, limit=1)[0].spec
    (said,) = spec.speech
    assert (said.text, said.start, said.end) == (None, "0.5", "1.2")
    assert server.media.fetch(said.audio).read_bytes() == speech_file.read_bytes()
    assert (spec.sync_mode, spec.expression, spec.face, spec.quality, spec.chunks) == ("bounce", 0.4, "speaking", "small", 3)
    assert spec.report is False
    page.click("#cancel")
    page.get_by_text("This job was cancelled").wait_for()


def test_a_photo_is_offered_the_engines_that_take_one(server: Any, page: Any, tmp_path: Path) -> None:
    from skimage import data, io

    photo = tmp_path / "me.png"
    io.imsave(photo, data.astronaut())
    page.locator("#engine option[value=fake]").wait_for(state="attached")
    page.set_input_files("#source", photo)
    assert page.locator("#engine option").evaluate_all("all => all.map(one => one.value)") == ["portrait", "vasa1"]
    assert not page.locator("#sync-mode").is_visible()
    page.fill("#text", "Nice to meet you.")
    page.click("#create")
    page.wait_for_url("**/#video_*")
    spec = server.jobs.find(None, limit=1)[0].spec
    assert (spec.kind, spec.engine, spec.speech[0].text) == ("portrait", "portrait", "Nice to meet you.")
    page.click("#cancel")
    page.get_by_text("This job was cancelled").wait_for()


def test_a_photo_is_made_in_the_manner_of_a_person_who_was_chosen(server: Any, page: Any, tmp_path: Path) -> None:
    from skimage import data, io

    from serve_app.jobs.spec import JobSpec

    folder = server.media.root / "avatars" / "anna"
    folder.mkdir(parents=True)
    (folder / "manner.safetensors").write_bytes(b"what was learned")
    spec = JobSpec(kind="avatar", engine="vasa1", source="inputs/aa/clip.mp4", report=False)
    server.jobs.create(spec, "anonymous", metadata={"name": "Anna"})
    job = server.jobs.claim("tester", 60)
    server.jobs.succeed(job.id, job.fence, None, None, {"avatar": "anna", "seconds": 3.0}, 60)
    photo = tmp_path / "me.png"
    io.imsave(photo, data.astronaut())
    page.locator("#engine option[value=fake]").wait_for(state="attached")
    page.set_input_files("#source", photo)
    page.get_by_text("More options").click()
    assert not page.locator("#manner").is_visible(), "the engine that was chosen takes none"
    page.select_option("#engine", "vasa1")
    page.select_option("#manner", label="Anna")
    page.fill("#text", "Nice to meet you.")
    page.click("#create")
    page.wait_for_url("**/#video_*")
    spec = server.jobs.find(None, limit=1)[0].spec
    assert (spec.kind, spec.engine, spec.avatar_id, spec.manner) == ("portrait", "vasa1", job.id, "avatars/anna")
    page.click("#cancel")
    page.get_by_text("This job was cancelled").wait_for()


def test_a_refusal_is_shown_in_words_and_nothing_is_queued(server: Any, page: Any, tmp_path: Path) -> None:
    before = len(server.jobs.find(None, limit=100))
    page.locator("#engine option").first.wait_for(state="attached")
    page.click("#create")
    page.get_by_text("Choose a video or a photo first.").wait_for()
    text = tmp_path / "words.mp4"
    text.write_text("these are words, and no video\n" * 40)
    fill(page, text)
    page.click("#create")
    page.locator("#form-error", has_text="expected a video").wait_for()
    assert page.locator("#create").is_enabled()
    assert page.locator("#empty").is_visible()
    assert len(server.jobs.find(None, limit=100)) == before


def test_a_locked_server_asks_for_its_key_and_everything_works_with_it(browser: Any, face_clip: Path, tmp_path: Path) -> None:
    known = hashlib.sha256(KEY.encode()).hexdigest()
    with kit.serving(tmp_path / "locked", api_keys=(known,)) as server, server.worker():
        for page in opened(browser, server.url):
            page.get_by_label("API key").fill("a guess")
            page.get_by_role("button", name="Use this key").click()
            page.get_by_text("does not know this key").wait_for()
            page.get_by_label("API key").fill(KEY)
            page.get_by_role("button", name="Use this key").click()
            fill(page, face_clip)
            page.click("#create")
            page.locator("#player").wait_for()
            until(page, "after.readyState > 2 && after.videoWidth === 256")
            page.locator("#report-link").wait_for()
            with page.expect_download() as download:
                page.locator("#report-link").click()
            assert Path(download.value.path()).read_text(encoding="utf-8").startswith("<!doctype html>")
            page.once("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name="Delete").click()
            page.locator("#empty").wait_for()
            assert server.jobs.find(None) == []
            assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie"), "it goes with the tab"


def test_the_page_fits_a_phone(browser: Any, server: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(server.url)
    page.locator("#engine option").first.wait_for(state="attached")
    page.get_by_text("More options").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = "all => all.filter(one => !one.labels.length && !one.ariaLabel).map(one => one.id)"
    assert page.locator("input, select, textarea").evaluate_all(unnamed) == [], "every field has a name"
    context.close()
