"""The README's Python, run as it stands but for the paths of big files, on tiny models."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from osjax import models, weights
from tests.sampling import files, tiny, trained

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README.split("## From Python")[1].split("\n## ")[0], re.DOTALL)


def run(snippet: str, **instead: str) -> dict:
    """The names that a snippet leaves. instead: what stands for a text of it, each of which must be there."""
    for old, new in instead.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_three_snippets():
    assert len(SNIPPETS) == 3


def test_a_run_is_loaded_sampled_and_saved(here, capsys):
    trained.write(here / "runs" / "demo")
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(here / "first.png")
    names = run(SNIPPETS[0])
    assert capsys.readouterr().out == "(1, 8, 32, 32, 3) 7\n"
    assert sorted(p.suffix for p in (here / "samples").iterdir()) == [".json", ".mp4"]
    assert (here / "bar.mp4").is_file() and (here / "bar.json").is_file()
    assert names["sample"].settings["steps"] == 30


def test_a_config_is_loaded_with_changes_and_sampled(here):
    path = files.write(here)
    size = {'resolution="256px", aspect_ratio="1:1"': "height=32, width=32", "frames=33": "frames=8, steps=2"}
    names = run(SNIPPETS[1], **{"configs/sample/t2v_256.py": str(path), **size})
    assert names["cfg"].offload and names["sample"].videos_BTHWC.shape == (1, 8, 32, 32, 3)
    assert names["sample"].settings["guidance"] == 6.0


def test_a_plan_is_made_and_weights_go_both_ways(here, capsys):
    files.write(here)
    fields = f'models.config("mmdit", **{tiny.DENOISER!r})'
    names = run(SNIPPETS[2], **{"Open_Sora_v2.safetensors": "video.safetensors", 'models.config("mmdit")': fields})
    assert capsys.readouterr().out.startswith("[('stage1_t2v_256', ")
    back = weights.from_torch(names["cfg"], names["as_flux"], layout=weights.FLUX)
    want = tiny.params(models.config("mmdit", **tiny.DENOISER))
    np.testing.assert_array_equal(back["img_in"]["kernel"], want["img_in"]["kernel"])
    other = set(names["as_flux"]) - set(weights.torch_shapes(names["cfg"], layout=weights.OPEN_SORA_V2))
    assert any("qkv" in name for name in other)


def test_a_snippet_with_a_wrong_name_fails(here):
    trained.write(here / "runs" / "demo")
    with pytest.raises(TypeError, match="stepps"):
        run(SNIPPETS[0], **{"steps=30": "stepps=30"})
