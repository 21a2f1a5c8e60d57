"""The demo's page: every word judged, readable without colours, without a network and on a phone."""

import re
import subprocess
from html.parser import HTMLParser
from shutil import which

import pytest

from osjax.data import clips
from osjax.pages import demo, figures
from osjax.pages.demo import Shown, Word

MATCH = {**dict.fromkeys(clips.WORDS, 0.5), "all": 0.25, "steady": 1.0, "samples": 8}
NUMBERS = ("motion_order", "ae_psnr_db", "ae_edges", "i2v_first_frame_psnr_db", "processor_seconds", "seconds")
REPORT = {
    "prompt_match": MATCH,
    **dict.fromkeys(NUMBERS, 0.75),
    "peak_rss_gb": 1.5,
    "stages": [{"name": "autoencoder", "steps": 4, "final_loss": 0.1, "processor_seconds": 61.0}],
}
RIGHT = Shown("samples/a.mp4", [Word("a "), Word("red", True), Word(" thing")])
WRONG = Shown("samples/b.mp4", [Word("a "), Word("<blue>", False, 'nothing "here"')])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    figures.curves(path.with_name("training.svg"), {"one": [{"loss": 2.0}, {"loss": 1.0}], "two": [{"loss": 0.5}]})
    demo.write(
        path, REPORT, {"Samples": [RIGHT] * 9 + [WRONG]}, {"Training": "training.svg"}, {"More": "osjax sample " * 20}
    )
    return path


class Elements(HTMLParser):
    """(tag, attributes) of a page in order; void tags and an open html are all that stays unclosed."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_words_are_judged_in_place_and_a_wrong_one_says_what_is_shown(path):
    page = path.read_text()
    assert 'a <span class="right">red</span> thing' in page
    assert '<span class="wrong">&lt;blue&gt; <small>(shows nothing &quot;here&quot;)</small></span>' in page
    assert page.index("<video") < page.index("<table")  # it opens with the samples
    for word in clips.WORDS:
        assert f"<td>{word}</td><td>50.0%</td>" in page


def test_the_page_is_whole_and_names_nothing_beyond_its_folder(path):
    elements = Elements(path.read_text())
    assert not elements.open
    sources = [attributes["src"] for _, attributes in elements.seen if "src" in attributes]
    assert set(sources) == {"samples/a.mp4", "samples/b.mp4", "training.svg"}
    assert not re.search(r"(https?:)?//", path.read_text()) and path.with_name("training.svg").stat().st_size > 1000


def test_who_sees_no_pictures_or_moves_too_fast_for_them_is_told_and_can_stop_them(path):
    elements = Elements(path.read_text()).seen
    assert ("html", {"lang": "en"}) in elements and [tag for tag, _ in elements].count("main") == 1
    assert any(tag == "meta" and "width=device-width" in a.get("content", "") for tag, a in elements)
    for tag, attributes in elements:
        if tag == "video":
            assert attributes["aria-label"].startswith("video: a ") and {"loop", "muted", "playsinline"} <= set(
                attributes
            )
        if tag == "img":
            assert attributes["alt"]
    assert [tag for tag, _ in elements].count("button") == 1
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and set(levels[1:]) == {2}


@pytest.mark.skipif(not which("chromium"), reason="needs Chromium")
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_overflows_a_phone_or_a_screen(path, width, tmp_path):
    frame = path.with_name(f"frame{width}.html")
    measure = (
        "document.body.append(document.documentElement.scrollWidth-document.documentElement.clientWidth+' too wide')"
    )
    frame.write_text(f"{path.read_text()}<script>{measure}</script>")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        [*command, f"--window-size={width},800", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert re.search(r">?(-?\d+) too wide", done.stdout)[1] == "0"
