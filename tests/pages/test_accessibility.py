"""Every kind of page in a browser, under all rules of axe: those of WCAG, A and AA, and what it calls good practice."""

import json
from collections import Counter
from importlib.util import find_spec
from shutil import which

import numpy as np
import pytest

from osjax.__main__ import main
from osjax.pages import clips, recon, run
from tests.pages import test_demo

LACKS = not which("chromium") or not find_spec("playwright") or not find_spec("axe_playwright_python")
pytestmark = pytest.mark.skipif(LACKS, reason="needs Chromium and osjax[browser]")
LONG = "a red circle moves left over a cloudy background " * 6
demo_path = test_demo.path  # the fixture


@pytest.fixture(scope="module")
def pages(tmp_path_factory, demo_path):
    """A page of each kind, by name."""
    folder = tmp_path_factory.mktemp("pages")
    lines = [{"step": step, "loss": 1.0 / (1 + step), "steps_per_s": 2.0, "skipped": 0} for step in range(8)]
    (folder / "one").mkdir()
    (folder / "one" / "clips.txt").write_text("bucket  frames  " + "x" * 400 + "\n")
    (folder / "samples" / "step8").mkdir(parents=True)
    (folder / "samples" / "step8" / "a.mp4").write_bytes(b"")
    run.write(folder, {"one": lines})
    rows = [{"path": "/clips/" + "x" * 300, "text": LONG, "jpeg": b"x"}, {"path": "b.mp4", "reason": "too dark"}]
    clips.write(
        folder / "clips.html", "Clips", {"fps": [24.0, 25.0]}, rows, Counter({"too dark": 1}), [("probe", 1, 1)]
    )
    plan = ["plan", "--config=configs/smoke.py", "--target=h200x8", "--no-compile", f"--html={folder / 'plan.html'}"]
    assert main(plan) == 0
    mean = {"psnr": 30.0, "ssim": 0.9}
    latents = {"mean": 0.0, "std": 1.0, "dead_channels": 0, "implied": {"scale": 1.0, "shift": 0.0}}
    report = {"model": "m", "videos": [{"name": "a", **mean}], "mean": mean, "latents": latents}
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    recon.write_clip(folder, "a", frames, frames, np.zeros((2, 16, 16), np.float32), 8)
    recon.write(folder, report, ["a"])
    names = {"run": "run.html", "clips": "clips.html", "plan": "plan.html", "reconstruction": "recon.html"}
    return {"demo": demo_path, **{name: folder / file for name, file in names.items()}}


def violations(browser, path, width):
    """What axe has against a page: {rule: what it names first}."""
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(path.as_uri())
    broken = Axe().run(page).response["violations"]
    page.close()
    return {rule["id"]: json.dumps(rule["nodes"][0]["html"])[:200] for rule in broken}


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("kind", ["demo", "run", "clips", "plan", "reconstruction"])
def test_a_page_keeps_every_rule(kind, width, pages, browser):
    assert violations(browser, pages[kind], width) == {}


def test_a_page_that_breaks_rules_is_noticed(tmp_path, browser):
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><title></title><img src=x><p style='color:#ccc'>pale</p>")
    assert {"image-alt", "html-has-lang", "color-contrast", "document-title"} <= set(violations(browser, broken, 1280))
