"""The documentation site: complete, with nothing from elsewhere, and a mistake in a page stops it (osjax[docs])."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="osjax[docs] is not installed")
pytest.importorskip("material", reason="osjax[docs] is not installed")
pytest.importorskip("mkdocstrings_handlers.python", reason="osjax[docs] is not installed")
ROOT = Path(__file__).parents[1]


def build(folder: Path, site: Path) -> subprocess.CompletedProcess:
    """`mkdocs build --strict` in a folder with the repository's pages."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ran = build(ROOT, folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_every_module_with_something_public_is_on_the_page_of_its_floor(site):
    names = set()
    for path in (ROOT / "osjax").rglob("*.py"):
        if re.search(r"^(def|class) [a-z]", path.read_text(), re.MULTILINE | re.IGNORECASE):
            names.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    pages = "".join(path.read_text() for path in (site / "api").rglob("*.html"))
    shown = {name for name in names if f'id="{name.replace(".", "")}"' in pages}
    assert names - shown <= {"osjax.__main__", "osjax"} and len(shown) > 200


def test_pages_load_nothing_from_elsewhere(site):
    loaded = re.compile(r'<(?:script|link|img|iframe|video)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)"')
    outside = {address for path in site.rglob("*.html") for address in loaded.findall(path.read_text())}
    assert outside == set()
    assert loaded.findall('<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=Roboto">')
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//", styles) and "@import" not in styles


def test_the_search_finds_public_names_and_prose(site):
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    titles = {entry["title"]: entry["location"] for entry in index}
    assert any("from_checkpoint" in title for title in titles)
    assert any("latent frame holds one frame" in entry["text"] for entry in index)  # of SampleSettings.put_back
    assert any("calls that are not timed" in entry["text"] for entry in index)  # a comment behind a config key


def test_a_link_to_nowhere_stops_the_build(tmp_path):
    for name in ("docs", "osjax", "launch"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "house.md"
    page.write_text(page.read_text() + "\n[lost](no_such_page.md)\n")
    ran = build(tmp_path, tmp_path / "site")
    assert ran.returncode == 1 and "no_such_page.md" in ran.stdout + ran.stderr


def test_signs_of_docstrings_are_shown_as_they_are(site):
    text = html.unescape("".join(re.sub(r"<[^>]+>", "", path.read_text()) for path in (site / "api").rglob("*.html")))
    assert "0 to 2**63 - 1" in text
    assert "broken, < 2 s, < 0.02 bits per pixel" in text and "pixels in [-1, 1]" in text
    assert re.findall(r"\\[*<_\[]", text) == []
