"""The page of a run, and the width of every page."""

import html
import json
import re
import subprocess
from collections import Counter
from shutil import which

import numpy as np
import pytest

from osjax.__main__ import main
from osjax.pages import clips, demo, recon, run
from osjax.sampling.write import write_samples
from tests.pages import test_demo

LONG = "/a/very/long/path/" + "without_a_place_to_break" * 12
PROMPTS = [f"a red circle moves {'ever so slowly ' * 30}", "<b>blue</b> " + "y" * 200]
LINES = [{"stage": "one", "step": n, "loss": 1.0 / (n + 1), "steps_per_s": 2.0} for n in range(9)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run that was evaluated ten times, and a sample that is of no evaluation."""
    folder = tmp_path_factory.mktemp("a run with spaces")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    videos = np.zeros((2, 4, 16, 16, 3), np.uint8)
    for step in range(0, 1000, 100):
        write_samples(folder / "samples" / "one" / f"step-{step:07d}", videos, PROMPTS, {}, 8)
    write_samples(folder / "samples" / "held out", videos[:1], ["x" * 300], {}, 8)
    (folder / "one").mkdir()
    (folder / "one" / "clips.txt").write_text(f"one: left out: {LONG}.mp4\n" * 3)
    assert main(["report", str(folder)]) == 0
    return folder


def test_samples_of_evaluations_are_a_grid_of_prompts_by_steps_the_first_and_the_newest(workdir):
    page = (workdir / "run.html").read_text()
    (grid,) = re.findall(r'<table class="grid" tabindex="0">(.*?)</table>', page)
    head, *rows = re.findall(r"<tr>(.*?)</tr>", grid)
    steps = [0, *range(300, 1000, 100)]
    assert re.findall(r"<th>(.*?)</th>", head) == ["prompt", *(f"step {step}" for step in steps)]
    assert [html.unescape(re.search(r"<th>(.*?)</th>", row)[1]) for row in rows] == PROMPTS
    for row in rows:
        sources = re.findall(r'src="(.*?)"', row)
        assert [int(re.search(r"step-(\d+)", source)[1]) for source in sources] == steps
        assert all((workdir / source).is_file() for source in sources)
    assert "2 more steps in" in page and "held%20out" not in grid and page.count("<video") == 17


def test_a_sample_without_its_json_is_called_by_its_file(workdir, tmp_path):
    folder = tmp_path / "samples" / "one" / "step-0000003"
    write_samples(folder, np.zeros((1, 1, 16, 16, 3), np.uint8), ["a cat"], {}, 8)
    (folder / "0000-a-cat.json").unlink()
    run.write(tmp_path, {"one": LINES})
    page = (tmp_path / "run.html").read_text()
    assert "<th>0000-a-cat</th><td><img" in page and 'alt="0000-a-cat, step 3"' in page


def pages(workdir, folder):
    """A page of every kind, with long paths and prompts; its name and its file."""
    words = [demo.Word(PROMPTS[0], True), demo.Word("y" * 300, False, LONG)]
    shown = {"Samples": [demo.Shown("samples/a.mp4", words)] * 3, LONG: [demo.Shown(f"{LONG}.mp4", words)]}
    demo.write(folder / "demo.html", test_demo.REPORT, shown, {LONG: "training.svg"}, {LONG: f"osjax sample {LONG}"})
    rows = [{"path": f"{LONG}.mp4", "text": PROMPTS[1], "jpeg": b"x"}, {"path": LONG, "reason": LONG}]
    clips.write(folder / "clips.html", LONG, {LONG: [1.0, 2.0]}, rows, Counter({LONG: 3}), [(LONG, 4, 2)])
    row = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1, "flicker": 1.0}
    latents = {"mean": 0.0, "std": 1.0, "implied": {"scale": 1.0, "shift": 0.0}, "dead_channels": [LONG]}
    report = {"model": LONG, "videos": [{"name": LONG, **row}], "mean": row, "latents": latents, "seams": {}}
    recon.write(folder, report, [LONG])
    plan = folder / "plan.html"
    argv = ["--config=configs/diffusion/stage1_t2v_256.py", "--target=h200x64", f"--html={plan}", "--no-compile"]
    assert main(["plan", *argv]) == 0
    return {"run": workdir / "run.html", **{p.stem: p for p in folder.glob("*.html")}}


@pytest.mark.skipif(not which("chromium"), reason="needs Chromium")
def test_no_page_is_wider_than_a_phone_or_a_screen(workdir, tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text(f"<!doctype html><p style='white-space:nowrap'>{'x' * 999}")  # the control
    made = {**pages(workdir, tmp_path), "wide": wide}
    assert made.keys() == {"run", "demo", "clips", "recon", "plan", "wide"}
    frames = "".join(
        f'<iframe name="{name} {width}" src="{path.as_uri()}" width="{width}" height="400" style="border:0"></iframe>'
        for name, path in made.items()
        for width in (360, 1280)
    )
    script = """onload = () => { for (const frame of document.querySelectorAll("iframe")) {
        const root = frame.contentDocument.documentElement
        const told = document.createElement("p")
        told.textContent = `${frame.name} ${root.clientWidth} ${root.scrollWidth}.`
        document.body.append(told) } }"""
    outer = tmp_path / "frames.htm"
    outer.write_text(f"<!doctype html><meta charset=utf-8><body>{frames}<script>{script}</script>")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    told = re.findall(r"<p>(\w+) (\d+) (\d+) (\d+)\.</p>", done.stdout)
    assert len(told) == 2 * len(made)
    for name, width, client, scroll in told:
        assert int(width) - int(client) in range(20)  # less where there is a bar to scroll by
        assert (scroll == client) == (name != "wide"), (name, width, scroll)
