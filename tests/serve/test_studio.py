"""The studio in Chromium, over a real server: making, watching, cancelling, reloading, broken files, two tabs."""

import json
import time
from importlib.util import find_spec
from shutil import which

import numpy as np
import pytest
from PIL import Image

LACKS = not which("chromium") or not find_spec("playwright") or not find_spec("axe_playwright_python")
pytestmark = [
    pytest.mark.skipif(LACKS, reason="needs Chromium and osjax[browser]"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def tab(browser, server):
    """A function that opens the studio; what it asked of other hosts and what failed in it is looked at afterwards."""
    pages, asked, errors = [], [], []

    def opened(width: int = 1280, dark: bool = False):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        until(page, "document.getElementById('state').textContent === 'connected'")
        pages.append(page)
        return page

    yield opened
    assert [url for url in asked if not url.startswith((server.url, "blob:", "data:"))] == []
    assert errors == []
    for page in pages:
        page.close()


def until(page, holds: str, value=None, seconds: float = 30) -> None:
    """Wait until an expression holds. Playwright's own waiting evaluates text in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(holds, value):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(50)


def make(page, prompt: str, **fields) -> None:
    """Fill the form and make it by the keyboard alone."""
    page.fill("#prompt", prompt)
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.press("#prompt", "Control+Enter")


def finished(page, prompt: str):
    """The card of a video in the gallery, once it is there and can be played."""
    card = page.locator("#gallery li", has_text=prompt).first
    card.wait_for(timeout=60_000)
    until(page, "item => item.querySelector('video')?.readyState >= 1", card.element_handle())
    return card


def test_a_prompt_becomes_a_video_that_plays_and_a_second_tab_sees_it(tab, server):
    page, other = tab(), tab(width=360, dark=True)
    make(page, "a red circle in two tabs", steps=2, seed=7)
    for one in (page, other):
        assert "seed 7" in finished(one, "in two tabs").inner_text()
    page.locator("#gallery li", has_text="in two tabs").get_by_text("Again").click()
    assert (page.input_value("#seed"), page.input_value("#steps"), page.input_value("#size")) == ("7", "2", "32x32")
    page.fill("#search", "nothing like it")
    assert page.locator("#gallery li:visible").count() == 0


def test_progress_is_seen_outlasts_a_reload_and_is_cancelled(tab, server):
    page = tab()
    make(page, "a long one", steps=200, seconds=8)
    page.locator("#queue li", has_text="a long one").get_by_text("Step").wait_for(timeout=60_000)
    page.reload()
    card = page.locator("#queue li", has_text="a long one")
    card.wait_for(timeout=10_000)
    card.get_by_text("Cancel").click()
    page.locator("#gallery li", has_text="a long one").get_by_text("cancelled").first.wait_for(timeout=20_000)


def test_a_broken_file_gets_a_reason_and_a_frame_is_animated(tab, server, tmp_path):
    page = tab()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.set_input_files("#first", tmp_path / "broken.png")
    make(page, "with a broken file", steps=1)
    page.locator("#problem", has_text="cannot be used").wait_for(timeout=30_000)
    page.click("#clear")
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "first.png")
    page.set_input_files("#first", tmp_path / "first.png")
    page.wait_for_selector("#first-shown:not([hidden])")
    make(page, "from a picture", steps=1)
    card = finished(page, "from a picture")
    id = card.get_attribute("data-id")
    assert server.ask("GET", f"/v1/videos/{id}")[1]["mode"] == "i2v_head"
    card.get_by_text("Animate last frame").click()
    page.wait_for_selector("#first-shown:not([hidden])")
    until(page, "document.getElementById('mode').value === 'i2v_head'")


def test_a_video_brings_its_settings_back_when_it_is_dropped(tab, server, tmp_path):
    made = server.over(server.video("told by its file", seed=11, steps=2)["id"])
    (tmp_path / "made.mp4").write_bytes(server.ask("GET", f"/v1/videos/{made['id']}/content", raw=True)[1])
    page = tab()
    page.set_input_files("#first", tmp_path / "made.mp4")
    until(page, "document.getElementById('seed').value === '11'")
    assert page.input_value("#prompt") == "told by its file"


def test_two_videos_are_compared_side_by_side(tab, server):
    for n in range(2):
        server.over(server.video(f"pair {n}", steps=1)["id"])
    page = tab()
    for n in range(2):
        finished(page, f"pair {n}").get_by_text("Compare").click()
    page.click("#compare")
    page.wait_for_selector("#beside[open]")
    assert page.locator("#pair video").count() == 2
    page.click("#close")


def test_a_prompt_is_made_fuller_and_can_be_changed_before_it_is_used(tab):
    page = tab()
    page.fill("#prompt", "a cat")
    page.click("#refine")
    until(page, "document.getElementById('prompt').value === 'a cat, in soft light'")
    assert page.input_value("#motion") == "5"
    page.press("#prompt", "End")
    page.type("#prompt", " at dusk")
    page.fill("#steps", "1")
    page.press("#prompt", "Control+Enter")
    finished(page, "a cat, in soft light at dusk")


def test_a_video_is_made_longer_and_shows_its_seam(tab, server):
    server.over(server.video("short one", steps=1)["id"])
    page = tab()
    finished(page, "short one").get_by_text("Longer").click()
    page.fill("#longer-prompt", "goes on further")
    page.fill("#longer-seconds", "0.5")
    page.press("#longer-seconds", "Enter")
    card = finished(page, "goes on further")
    assert "1.5 s" in card.inner_text()
    marks = card.locator(".seams button")
    assert marks.count() == 1 and "at 1.00 seconds" in marks.first.get_attribute("aria-label")
    marks.first.click()
    until(page, "item => item.querySelector('video').currentTime > 0.5", card.element_handle())


def test_the_pages_policy_lets_no_text_run_and_no_other_host_be_asked(browser, server):
    page, said = browser.new_page(), []
    page.goto(server.url)
    page.on("console", lambda message: said.append(message.text))
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.x = 1'}))"
    )
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://other.invalid/x.png'}))")
    page.wait_for_timeout(200)
    assert page.evaluate("window.x === undefined") and len(said) >= 2
    page.goto(f"{server.url}/docs")  # whose style stands inside it, and is let in by its hash
    assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"


def test_errors_of_the_page_reach_the_log(tab, server):
    page = tab()
    page.evaluate("window.dispatchEvent(new ErrorEvent('error', {message: 'a fault of the test'}))")
    server.process.until(lambda: any("a fault of the test" in json.dumps(line) for line in server.log), 10)
    assert any(line.get("message") == "a fault of the test" for line in server.log)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_studio_keeps_every_rule_of_axe(tab, server, width, dark):
    from axe_playwright_python.sync_playwright import Axe

    server.over(server.video("seen by axe", steps=1)["id"])
    page = tab(width, dark)
    finished(page, "seen by axe")
    broken = Axe().run(page).response["violations"]
    assert {rule["id"]: json.dumps(rule["nodes"][0]["html"])[:200] for rule in broken} == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out of a phone
